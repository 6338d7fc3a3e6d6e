"""A state dict on disk: arrays, numbers and texts in one file, without pickle."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_path
from vlp_gym.errors import CheckpointError

TREE = "tree"
ARRAY = "__array__"


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of arrays, numbers, texts, None; at once or not at all.

    Args:
        path: a file ending in ".npz".
        state: such as `FeedbackLoop.state_dict()`; keys must be texts.

    Raises:
        TypeError: it holds something else.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a state file ends in .npz, got {path.name}")
    arrays: list[NDArray[Any]] = []
    tree = json.dumps(_plain(state, arrays)).encode()
    named = {TREE: np.frombuffer(tree, np.uint8)}
    named |= {str(number): array for number, array in enumerate(arrays)}
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **named)


def load_state(path: Path | str) -> dict[str, Any]:
    """Return the state that `save_state` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    try:
        # Opened here: NumPy leaves a file it cannot read open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            tree = json.loads(stored[TREE].tobytes())
            state: dict[str, Any] = _filled(tree, stored)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read as a state file ({error}); resume from an older checkpoint"
        ) from error
    return state


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a state's keys must be texts, got {list(value)[:5]}")
        return {key: _plain(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, arrays) for each in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        arrays.append(value)
        return {ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state holds arrays, numbers, texts and None, got {type(value).__name__}")


def _filled(value: Any, stored: Any) -> Any:
    if isinstance(value, dict):
        if ARRAY in value:
            return stored[str(value[ARRAY])]
        return {key: _filled(each, stored) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, stored) for each in value]
    return value
