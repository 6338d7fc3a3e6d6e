"""The one place where "auto" becomes a device."""

from typing import Any

import torch

from vlp_gym.errors import SettingError


def resolve_device(device: str = "auto") -> torch.device:
    """Return the device of a name; "auto" is a GPU if torch sees one.

    Raises:
        ValueError: torch does not know the name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:0") from error


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Kinds of numbers that a network can compute with, by name."""


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the kind of numbers of a name; "auto" is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        SettingError: no such kind, or one that this CPU does not compute with; it is never replaced in silence.
    """
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if precision not in PRECISIONS:
        raise SettingError(
            f"precision must be auto or one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if device.type == "cpu" and not _cpu_computes(precision):
        raise SettingError(
            f"this processor does not compute with {precision}; use precision='float32', or a GPU"
        )
    return PRECISIONS[precision]


def _cpu_computes(precision: str) -> bool:
    oned: Any = torch.ops.mkldnn
    if precision == "bfloat16":
        return bool(oned._is_mkldnn_bf16_supported())
    return precision == "float32" or bool(oned._is_mkldnn_fp16_supported())
