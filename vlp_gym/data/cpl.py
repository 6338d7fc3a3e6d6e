"""The public preference files of CPL and IPL (`.npz`): segments with scores, or pairs with labels.

CPL's newer files hold N segments: `obs` [N, steps, obs], `action`, `reward`, and scores a segment, [N], of which
`rl_sum` is the regret label of the paper (a sum of rewards and oracle values; higher is better). Its older files and
those of IPL hold pairs: `obs_1`, `obs_2`, `action_1`, `action_2` and `label`, the probability of the second.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from vlp_gym.data.comparisons import Comparisons
from vlp_gym.errors import CheckpointError, DataError

Mode = Literal["comparison", "rank"]

ACTION_EPSILON = 1e-5
"""Actions are clipped to 1 less this, as CPL does."""


def read_cpl(
    path: Path,
    score: str = "rl_sum",
    mode: Mode = "comparison",
    n_segments: int | None = None,
    n_pairs: int | None = None,
    seed: int = 0,
) -> Comparisons:
    """Return the pairs of a public file.

    Args:
        path: the file.
        score: which of its scores decides, in files of segments; equal scores are a tie, 0.5.
        mode: `comparison` pairs segment i with i + N/2; `rank` pairs every segment with partners drawn by `seed`.
        n_segments: of files of segments only the first so many (CPL's dense data: 2,500); None: all.
        n_pairs: of `rank`, how many pairs; None: forty partners a segment.
        seed: of `rank`.

    Raises:
        CheckpointError: the file is missing or no such file.
        DataError: nothing can be learned from it as it is.
    """
    arrays = _arrays(path)
    about = path.name
    if "label" in arrays and "obs_1" in arrays:
        return _pairs(arrays, about)
    for name in ("obs", "action", score):
        if name not in arrays:
            raise CheckpointError(
                f"{path} has no {name!r}; there are {', '.join(sorted(arrays))}. A file of segments needs obs, action "
                "and a score, a file of pairs obs_1, obs_2, action_1, action_2 and label"
            )
    picked = slice(n_segments)
    obs, action, value = arrays["obs"][picked], arrays["action"][picked], arrays[score][picked]
    if value.ndim != 1 or len(value) != len(obs):
        raise DataError(f"{about}: {score!r} must be one number a segment, got {value.shape}")
    pairs = _comparison(len(obs)) if mode == "comparison" else _rank(len(obs), n_pairs, seed)
    return _comparisons(obs, action, pairs, labels_of_scores(value, pairs), about)


def labels_of_scores(
    score: Float[np.ndarray, " segments"], pairs: Int[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, " pairs"]:
    """Return 1 where the second segment has the higher score, 0 where the first, 0.5 where they are equal.

    >>> labels_of_scores(np.array([1.0, 2.0, 2.0]), np.array([[0, 1], [1, 0], [1, 2]]))
    array([1. , 0. , 0.5], dtype=float32)
    """
    gap = score[pairs[:, 1]] - score[pairs[:, 0]]
    label: Float[np.ndarray, " pairs"] = ((np.sign(gap) + 1) / 2).astype(np.float32)
    return label


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read as a preference file of CPL or IPL ({error})"
        ) from error


def _pairs(arrays: Mapping[str, NDArray[Any]], about: str) -> Comparisons:
    shapes = {name: arrays[name].shape for name in ("obs_1", "obs_2", "action_1", "action_2")}
    if shapes["obs_1"] != shapes["obs_2"] or shapes["action_1"] != shapes["action_2"]:
        raise DataError(f"{about}: both segments of a pair must be equally long, got {shapes}")
    n_pairs = len(arrays["label"])
    obs = np.concatenate([arrays["obs_1"], arrays["obs_2"]])
    action = np.concatenate([arrays["action_1"], arrays["action_2"]])
    return _comparisons(obs, action, _comparison(2 * n_pairs), arrays["label"].reshape(-1), about)


def _comparisons(
    obs: NDArray[Any],
    action: NDArray[Any],
    pairs: Int[np.ndarray, "pairs 2"],
    label: NDArray[Any],
    about: str,
) -> Comparisons:
    limit = np.float32(1 - ACTION_EPSILON)
    # CPL clips to just inside of the box; what lies far outside is no rounding and is refused.
    beyond = np.abs(action) > 1 + 1e-3
    clipped = np.where(beyond, action, np.clip(action, -limit, limit)).astype(np.float32)
    return Comparisons(
        obs=obs.astype(np.float32),
        action=clipped,
        pairs=pairs,
        label=label.astype(np.float32),
        weight=np.ones(len(pairs), np.float32),
        about=about,
    )


def _comparison(n_segments: int) -> Int[np.ndarray, "pairs 2"]:
    half = n_segments // 2
    return np.stack([np.arange(half), np.arange(half) + half], axis=1)


def _rank(n_segments: int, n_pairs: int | None, seed: int) -> Int[np.ndarray, "pairs 2"]:
    if n_segments < 2:
        raise DataError(f"a pair takes two segments, there is {n_segments}")
    rng = np.random.default_rng(seed)
    n_pairs = 40 * n_segments if n_pairs is None else n_pairs
    first = np.resize(rng.permutation(n_segments), n_pairs)
    # CPL may draw a segment as its own partner; that pair teaches nothing and is left out here.
    second = (first + rng.integers(1, n_segments, n_pairs)) % n_segments
    return np.stack([first, second], axis=1)
