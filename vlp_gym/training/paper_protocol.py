"""The paper's way to draw the pairs of a test task: k-means on trajectories, then segments, one from each set."""

import numpy as np
from jaxtyping import Int
from sklearn.cluster import KMeans

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import DataError
from vlp_gym.training.agreement import Pairs, pairs_across
from vlp_gym.training.behaviours import LEVELS
from vlp_gym.training.clips import ClipSet
from vlp_gym.types import Pair, Segment, Task

PAPER_PAIRS = 100
"""Pairs a task (VLP, section on label inference)."""

N_MOMENTS = 10
"""Moments of a trajectory whose observations describe it to k-means; the paper does not name its features."""


def two_sets(data: Trajectories, seed: int) -> Int[np.ndarray, " episodes"]:
    """Return which of two sets every trajectory of the paper's three levels is in, -1 for other behaviour.

    K-means with K = 2 on observations at evenly spaced moments, each dimension standardised. The sets say little
    of what is better, but their pairs are one-sided: see `LabelQuality.constant`.
    """
    rows = data.of_behaviour(*LEVELS)
    moments = np.linspace(0, data.n_steps - 1, N_MOMENTS).round().astype(int)
    seen = data.obs[rows][:, moments].reshape(len(rows), -1).astype(np.float64)
    seen = (seen - seen.mean(0)) / np.maximum(seen.std(0), 1e-6)
    sets = np.full(len(data), -1)
    sets[rows] = KMeans(2, n_init=10, random_state=seed).fit_predict(seen)
    return sets


def paper_queries(
    data: Trajectories, n_pairs: int, length: int, task: Task, seed: int
) -> list[Pair]:
    """Return pairs of segments of the paper's three levels, one of each set, cut anywhere (VLP, label inference).

    Which of the two comes first is drawn: the sets are one-sided, and labels that are all equal say nothing.

    Args:
        data: trajectories of a task.
        n_pairs: how many pairs.
        length: steps of a segment.
        task: what is asked.
        seed: decides the sets and the pairs.

    Raises:
        DataError: there are not two trajectories of the three levels to put into two sets, or they are too short.
    """
    rows = data.of_behaviour(*LEVELS)
    if len(rows) < 2 or data.n_steps < length:
        raise DataError(
            f"{data.task_name}: two sets of segments of {length} steps take at least two trajectories of "
            f"{', '.join(LEVELS)}, there are {len(rows)} of {data.n_steps} steps; `vlp collect --kind mtvlp` makes some"
        )
    sets, rng = two_sets(data, seed), np.random.default_rng(seed)
    episodes = pairs_across(np.flatnonzero(sets == 0), np.flatnonzero(sets == 1), n_pairs, rng)
    starts = rng.integers(0, data.n_steps - length + 1, (n_pairs, 2))
    is_swapped = rng.random(n_pairs) < 0.5
    episodes[is_swapped], starts[is_swapped] = episodes[is_swapped, ::-1], starts[is_swapped, ::-1]
    cut = {row: data.episode(row) for row in np.unique(episodes).tolist()}

    def segment(pair: int, side: int) -> Segment:
        return Segment(cut[int(episodes[pair, side])], int(starts[pair, side]), length)

    return [Pair(segment(pair, 0), segment(pair, 1), task) for pair in range(n_pairs)]


def paper_pairs(data: Trajectories, clips: ClipSet, n_pairs: int, seed: int) -> Pairs:
    """Return pairs of segments, the first of one set and the second of the other, uniformly drawn.

    Args:
        data: trajectories of a task.
        clips: their clips; only windows of the three levels are drawn.
        n_pairs: how many pairs.
        seed: decides the sets and the pairs.
    """
    of_clip = two_sets(data, seed)[clips.episode]
    window = ~clips.whole
    return pairs_across(
        np.flatnonzero(window & (of_clip == 0)),
        np.flatnonzero(window & (of_clip == 1)),
        n_pairs,
        np.random.default_rng(seed),
    )
