"""A preference model of the official architecture, small and with random weights."""

import json
from pathlib import Path

import open_clip
import torch

from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.types import View

SIZE_PX = 32
TINY_VIT = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": SIZE_PX,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""CLIP ViT-B/16 in small: the same classes of open_clip, the same names of weights."""


def register_tiny_vit(folder: Path) -> str:
    """Let open_clip know the config and return its name."""
    path = folder / "tiny-vit.json"
    path.write_text(json.dumps(TINY_VIT))
    open_clip.add_model_config(path)
    return path.stem


def tiny_config(clip: str = "vlp-compact", **changes: object) -> VLPConfig:
    """Return a small config; `clip` names the encoders."""
    sizes = {
        "clip": clip,
        "stages": (1,) if clip == "tiny-vit" else (1, 2),
        "image_size_px": SIZE_PX,
        "n_frames": 3,
        "width": 16,
        "heads": 2,
        "head": (8,),
        "dropout": 0.0,
    }
    return VLPConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def tiny_model(clip: str = "vlp-compact", seed: int = 0, **changes: object) -> VLP:
    """Return a small model in evaluation mode."""
    torch.manual_seed(seed)
    return VLP(tiny_config(clip, **changes)).eval()


def tiny_checkpoint(folder: Path, seed: int = 0, **changes: object) -> Path:
    """Write a small checkpoint and return its folder."""
    view = View("corner4", SIZE_PX)
    checkpoint = Checkpoint(
        tiny_model(seed=seed, **changes), view, 16, {"train_tasks": ["DoorOpen"]}
    )
    return checkpoint.save_pretrained(folder)
