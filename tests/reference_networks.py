"""The published networks written down once more, plainly, in float64, from their state dicts."""

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
EPSILON = 1e-5


def double(weights: Weights) -> Weights:
    return {name: value.double() for name, value in weights.items()}


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """Return batch norm by its definition."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var, gain, bias = (
        w[f"{name}.{part}"].view(shape)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + EPSILON).sqrt() * gain + bias


def resnet(x: Tensor, w: Weights) -> Tensor:
    """Return the pooled features of a ResNet (He et al., 2015) of whatever depth the weights have."""
    x = F.conv2d(x, w["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, w, "bn1").clamp(min=0), 3, 2, 1)
    for layer in range(1, 5):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in w:
            x = resnet_block(x, w, f"layer{layer}.{block}.", 2 if layer > 1 and block == 0 else 1)
            block += 1
    return x.mean((2, 3))


def resnet_block(x: Tensor, w: Weights, at: str, stride: int) -> Tensor:
    deep = at + "conv3.weight" in w
    strides = (
        {1: 1, 2: stride, 3: 1} if deep else {1: stride, 2: 1}
    )  # torchvision strides the 3 x 3
    out = x
    for number, step in strides.items():
        kernel = w[f"{at}conv{number}.weight"]
        out = F.conv2d(out, kernel, stride=step, padding=kernel.shape[-1] // 2)
        out = norm(out, w, f"{at}bn{number}")
        if number < len(strides):
            out = out.clamp(min=0)
    if at + "downsample.0.weight" in w:
        x = norm(F.conv2d(x, w[at + "downsample.0.weight"], stride=stride), w, at + "downsample.1")
    return (out + x).clamp(min=0)


def s3d_conv(x: Tensor, w: Weights, at: str, padding: tuple[int, int, int] = (0, 0, 0)) -> Tensor:
    separable = at + ".conv2.weight" in w
    first = (0, *padding[1:]) if separable else padding
    x = norm(F.conv3d(x, w[at + ".conv1.weight"], padding=first), w, at + ".bn1").clamp(min=0)
    if separable:
        x = F.conv3d(x, w[at + ".conv2.weight"], padding=(padding[0], 0, 0))
        x = norm(x, w, at + ".bn2").clamp(min=0)
    return x


def s3d_gate(x: Tensor, w: Weights, at: str) -> Tensor:
    mean = x.flatten(2).mean(-1)
    weight = 1 / (1 + torch.exp(-(mean @ w[at + ".fc.weight"].T + w[at + ".fc.bias"])))
    return torch.einsum("ncthw,nc->ncthw", x, weight)


def s3d_pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return max pooling behind TensorFlow's padding, the odd zero at the end."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        before, after = (k - s) // 2, (k - s) - (k - s) // 2
        shape = list(x.shape)
        parts = [x.new_zeros([*shape[:axis], n, *shape[axis + 1 :]]) for n in (before, after)]
        x = torch.cat([parts[0], x, parts[1]], axis)
    return F.max_pool3d(x, kernel, stride, ceil_mode=True)


def s3d_video(pixels: Tensor, w: Weights) -> Tensor:
    """Return the embedding of videos [n, 3, t, h, w], each number of the first step written as an index."""
    corners = [
        pixels[:, :, a::2, b::2, c::2] for a in (0, 1) for b in (0, 1) for c in (0, 1)
    ]  # 2 x 2 x 2 blocks become channels
    x = torch.cat(corners, 1)
    x = s3d_conv(x, w, "conv1", (1, 2, 2))[:, :, 1:, 1:, 1:]
    x = s3d_conv(s3d_pool(x, (1, 3, 3), (1, 2, 2)), w, "conv_2b")
    x = s3d_gate(s3d_conv(x, w, "conv_2c", (1, 1, 1)), w, "gating")
    x = s3d_pool(x, (1, 3, 3), (1, 2, 2))
    for name in ("3b", "3c", None, "4b", "4c", "4d", "4e", "4f", "", "5b", "5c"):
        if name is None:
            x = s3d_pool(x, (3, 3, 3), (2, 2, 2))
        elif not name:
            x = s3d_pool(x, (2, 2, 2), (2, 2, 2))
        else:
            x = s3d_inception(x, w, f"mixed_{name}")
    return x.flatten(2).mean(-1) @ w["fc.weight"].T + w["fc.bias"]


def s3d_inception(x: Tensor, w: Weights, at: str) -> Tensor:
    one = (1, 1, 1)
    branches = [
        s3d_conv(x, w, at + ".conv_b0"),
        s3d_conv(s3d_conv(x, w, at + ".conv_b1_a"), w, at + ".conv_b1_b", one),
        s3d_conv(s3d_conv(x, w, at + ".conv_b2_a"), w, at + ".conv_b2_b", one),
        s3d_conv(F.max_pool3d(x, 3, 1, 1), w, at + ".conv_b3_b"),
    ]
    return torch.cat([s3d_gate(b, w, f"{at}.gating_b{i}") for i, b in enumerate(branches)], 1)


def s3d_text(sentence: str, words: tuple[str, ...], w: Weights) -> Tensor:
    """Return the embedding of a sentence; unknown words are dropped, padding takes part in the maximum."""
    known = [
        words.index(each) + 1 for each in re.findall(r"[\w']+", sentence.lower()) if each in words
    ]
    places = (known + [0] * 16)[:16]
    at = "text_module."
    hidden = w[at + "word_embd.weight"][places] @ w[at + "fc1.weight"].T + w[at + "fc1.bias"]
    return hidden.clamp(min=0).max(0).values @ w[at + "fc2.weight"].T + w[at + "fc2.bias"]


def mlp(x: Tensor, w: Weights, at: str, layers: int) -> Tensor:
    for i in range(layers):
        x = x @ w[f"{at}.{2 * i}.weight"].T + w[f"{at}.{2 * i}.bias"]
        x = x.clamp(min=0) if i < layers - 1 else x
    return x


def vlmrm(
    images: NDArray[np.float64],
    targets: NDArray[np.float64],
    baselines: NDArray[np.float64],
    alpha: float,
) -> NDArray[np.float64]:
    """Return VLM-RM's reward with its matrix, from embeddings that are not normalised yet."""

    def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))

    s, g, b = unit(images), unit(targets).mean(0), unit(baselines).mean(0)
    d = g - b
    projection = alpha * np.outer(d, d) / (d @ d) + (1 - alpha) * np.eye(len(d))
    return np.asarray(1 - 0.5 * np.linalg.norm((s - g) @ projection, axis=-1) ** 2)
