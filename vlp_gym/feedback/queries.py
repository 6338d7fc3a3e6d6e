"""Queries: which pairs of segments the labeler is asked about."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from vlp_gym.types import Episode, Pair, Segment, Task

Predictor = Callable[
    [Float[np.ndarray, "steps obs"], Float[np.ndarray, "steps action"]],
    Float[np.ndarray, "members steps"],
]
"""Reward of every step by every member."""


def uniform_queries(
    episodes: Sequence[Episode], n_pairs: int, length: int, task: Task, rng: np.random.Generator
) -> list[Pair]:
    """Return pairs of two different segments, every cut of every episode as likely as any other.

    Args:
        episodes: what to cut from.
        n_pairs: pairs wanted.
        length: steps of a segment.
        task: what the labeler is asked about.
        rng: source of randomness.

    Raises:
        ValueError: there are no two different segments of that length.
    """
    cuts = np.array([max(0, len(episode) - length + 1) for episode in episodes], np.int64)
    n_cuts = int(cuts.sum())
    if n_cuts < 2:
        longest = max(map(len, episodes), default=0)
        raise ValueError(
            f"segment length is {length} but the longest episode so far has {longest} steps, so no "
            "two different segments can be cut; lower FeedbackConfig.segment_length or record "
            "longer episodes"
        )
    first = rng.integers(n_cuts, size=n_pairs)
    # A draw from the others: the same cut twice teaches nothing.
    second = (first + rng.integers(1, n_cuts, size=n_pairs)) % n_cuts
    ends = np.cumsum(cuts)

    def cut(number: int) -> Segment:
        row = int(np.searchsorted(ends, number, side="right"))
        return Segment(episodes[row], int(number - ends[row] + cuts[row]), length)

    return [
        Pair(cut(a), cut(b), task) for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]


def disagreement_queries(
    candidates: Sequence[Pair], n_pairs: int, per_member: Predictor
) -> list[Pair]:
    """Return the candidates about whose label the members disagree most, in order of candidates.

    Disagreement is the standard deviation over members of the probability that the second segment
    is preferred (PEBBLE 4.2; BPref `disagreement_sampling`).

    Args:
        candidates: pairs to choose from.
        n_pairs: pairs wanted.
        per_member: reward of steps by each member, such as `RewardEnsemble.per_member`.
    """
    segments = [segment for pair in candidates for segment in (pair.first, pair.second)]
    reward = per_member(
        np.concatenate([segment.obs for segment in segments]),
        np.concatenate([segment.action for segment in segments]),
    )
    sums = reward.reshape(len(reward), len(candidates), 2, -1).sum(-1, dtype=np.float64)
    # tanh(x / 2) is 2 sigmoid(x) - 1, and does not overflow.
    spread = np.tanh((sums[..., 1] - sums[..., 0]) / 2).std(0)
    chosen = np.argsort(-spread, kind="stable")[:n_pairs]
    return [candidates[index] for index in sorted(chosen)]
