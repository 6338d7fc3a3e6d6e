"""Checkpoint files in the formats of their authors, with random weights by which a wrong port is seen.

Weights as a framework draws them are blind: a network of them says nearly the same of every picture. Here every
layer passes on what it gets (1.4 / sqrt(fan in)), norms and biases are no identities, and running statistics are those
of pictures that are smooth, because white noise averages away.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vlp_gym.models.clip import ClipTowers
from vlp_gym.models.resnet import VIPNetwork
from vlp_gym.models.s3d import S3D

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)
WORDS = ("robot", "closing", "green", "drawer", "door", "press", "the", "button", "red", "don't")


def smooth_frames(n: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Return pictures of a few soft blobs, uint8 [n, height, width, 3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, 5, 6), generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def smooth_pixels(n: int, size: int, seed: int) -> Tensor:
    """Return normalised pictures [n, 3, size, size]."""
    frames = torch.from_numpy(smooth_frames(n, size, size, seed)).permute(0, 3, 1, 2)
    return (frames.float() / 255 - 0.45) / 0.25


@torch.no_grad()
def draw_weights(network: nn.Module, seed: int = 0) -> None:
    """Draw all weights anew."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, size: float) -> Tensor:
        return torch.randn(like.shape, generator=generator) * size

    norms = {id(m.weight) for m in network.modules() if isinstance(m, NORMS)}
    for name, weight in network.named_parameters():
        if id(weight) in norms:
            weight.copy_(0.7 + 0.6 * torch.rand(weight.shape, generator=generator))
        elif weight.ndim < 2:
            weight.copy_(normal(weight, 0.1))
        elif "embed" in name or "embd" in name or weight.shape[0] > 5_000:
            weight.copy_(normal(weight, 1.0))
        else:
            weight.copy_(normal(weight, 1.4 / weight[0].numel() ** 0.5))


@torch.no_grad()
def calibrate(network: nn.Module, run: Callable[[], Any]) -> None:
    """Let batch norms take the statistics of what `run` feeds them, and stay in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    run()
    network.eval()


def nested(network: nn.Module, key: str, prefix: str = "module.") -> dict[str, Any]:
    """Return what R3M, VIP and LIV publish: a state dict of a `DataParallel` below a key."""
    return {key: {prefix + name: value for name, value in network.state_dict().items()}}


def random_vip(size: int = 18, seed: int = 0) -> VIPNetwork:
    network = VIPNetwork(size, 24)
    draw_weights(network, seed)
    calibrate(network, lambda: network.see(smooth_pixels(8, 64, seed)))
    return network


def write_vip(folder: Path, size: int = 18) -> Path:
    path = folder / "vip.pt"
    torch.save(nested(random_vip(size), "vip"), path)
    return path


def random_s3d(n_words: int = len(WORDS) + 1, seed: int = 0) -> S3D:
    network = S3D(n_words)
    draw_weights(network, seed)
    videos = smooth_pixels(16, 64, seed).view(2, 8, 3, 64, 64).transpose(1, 2) * 0.25 + 0.45
    calibrate(network, lambda: network.video(videos))
    return network


def write_s3d(folder: Path) -> tuple[Path, Path]:
    weights, words = folder / "s3d_howto100m.pth", folder / "s3d_dict.npy"
    # As the published file is: torch's format of before 1.6.
    torch.save(random_s3d().state_dict(), weights, _use_new_zipfile_serialization=False)
    np.save(words, np.array(WORDS))
    return weights, words


TINY = {
    "tiny-clip-vit": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
    "tiny-clip-rn-quickgelu": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
}  # fmt: skip
"""CLIP's two architectures in small: the same classes of open_clip, the same names of weights."""


def register_tiny_clips(folder: Path) -> None:
    """Let open_clip know the configs."""
    for name, config in TINY.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)


def random_clip(name: str, seed: int = 0) -> ClipTowers:
    towers = ClipTowers(name)
    draw_weights(towers.clip, seed)
    calibrate(towers, lambda: towers.see(smooth_pixels(8, towers.image_size_px, seed)))
    return towers


def write_clip(folder: Path, name: str = "tiny-clip-vit") -> Path:
    path = folder / "clip.pt"
    torch.save(random_clip(name).clip.state_dict(), path)
    return path


def write_liv(folder: Path) -> Path:
    path = folder / "liv.pt"
    towers = random_clip("tiny-clip-rn-quickgelu")
    torch.save(nested(towers.clip, "liv", "module.model."), path)
    return path
