"""The one place where "auto" becomes a device."""

import torch


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
