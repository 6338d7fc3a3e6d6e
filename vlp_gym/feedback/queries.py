"""Queries: which pairs of segments the labeler is asked about."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from vlp_gym.types import Episode, Pair, Segment, Task

Predictor = Callable[
    [Float[np.ndarray, "steps obs"], Float[np.ndarray, "steps action"]],
    Float[np.ndarray, "members steps"],
]
"""Reward of every step by every member."""

QUERIES = (
    "uniform",
    "disagreement",
    "entropy",
    "k-center",
    "disagreement+k-center",
    "entropy+k-center",
)
"""How pairs are chosen, see `FeedbackConfig.query`; PEBBLE's six (BPref reward_model.py)."""


def uniform_queries(
    episodes: Sequence[Episode],
    n_pairs: int,
    length: int,
    tasks: Task | Sequence[Task],
    rng: np.random.Generator,
    pairs_per_segment: int = 1,
) -> list[Pair]:
    """Return pairs of two different segments, every cut of every episode as likely as any other.

    Args:
        episodes: what to cut from.
        n_pairs: pairs wanted.
        length: steps of a segment.
        tasks: what the labeler is asked about; several: that of each env (`Episode.env`). Only
            segments of the same task make a pair.
        rng: source of randomness.
        pairs_per_segment: pairs that a segment is in, as long as enough segments of its task are drawn.

    Raises:
        ValueError: there are no two different segments of that length and of one task.
    """
    cuts = Cuts(episodes, length, [tasks] if isinstance(tasks, Task) else tasks)
    first = cuts.draw(math.ceil(n_pairs / pairs_per_segment), rng)
    # A draw from the others: the same cut twice teaches nothing.
    second = cuts.another(first, rng)
    if pairs_per_segment > 1:
        first, second = _again(first, second, pairs_per_segment, cuts, rng)
    return [
        Pair(cuts.segment(a), cuts.segment(b), cuts.task(a))
        for a, b in zip(first[:n_pairs].tolist(), second[:n_pairs].tolist(), strict=True)
    ]


def _again(
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    times: int,
    cuts: "Cuts",
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " more"], Int[np.ndarray, " more"]]:
    """Return these pairs of cuts, then every first one with the second of the next pair of its task, and so on."""
    kind = cuts.kind(first)
    same = [np.flatnonzero(kind == each) for each in np.unique(kind)]
    partners = []
    for ahead in range(times):
        partner = np.empty_like(second)
        for rows in same:
            partner[rows] = np.roll(second[rows], -ahead)
            if ahead >= len(rows):  # all have met
                partner[rows] = cuts.another(first[rows], rng)
        alike = partner == first
        partner[alike] = cuts.another(first[alike], rng)
        partners.append(partner)
    return np.tile(first, times), np.concatenate(partners)


class Cuts:
    """All segments of one length that episodes hold, numbered such that those of a task are side by side."""

    def __init__(self, episodes: Sequence[Episode], length: int, tasks: Sequence[Task]) -> None:
        kinds: list[Task] = []
        for task in tasks:
            if not any(task is kind for kind in kinds):
                kinds.append(task)
        by_kind = [
            [episode for episode in episodes if _task_of(episode, tasks) is kind] for kind in kinds
        ]
        counts = [[max(0, len(each) - length + 1) for each in group] for group in by_kind]
        # One lone cut of a task has no partner.
        usable = [number for number, count in enumerate(counts) if sum(count) > 1]
        if not usable:
            longest = max(map(len, episodes), default=0)
            raise ValueError(
                f"segment length is {length} but the longest episode so far has {longest} steps, so no "
                "two different segments can be cut; lower FeedbackConfig.segment_length or record "
                "longer episodes"
            )
        self._length, self._kinds = length, [kinds[number] for number in usable]
        self._episodes = [episode for number in usable for episode in by_kind[number]]
        self._counts = np.concatenate([np.array(counts[number], np.int64) for number in usable])
        self._ends = np.cumsum(self._counts)
        self._kind_ends = np.cumsum([sum(counts[number]) for number in usable])

    def draw(self, n_cuts: int, rng: np.random.Generator) -> Int[np.ndarray, " cuts"]:
        """Return numbers of cuts, each as likely as any other."""
        return rng.integers(int(self._ends[-1]), size=n_cuts)

    def another(
        self, cut: Int[np.ndarray, " cuts"], rng: np.random.Generator
    ) -> Int[np.ndarray, " cuts"]:
        """Return for each cut one of the others of its task, each as likely as any other."""
        kind = self.kind(cut)
        start = self._kind_starts[kind]
        n_same = self._kind_ends[kind] - start
        return np.asarray(start + (cut - start + rng.integers(1, n_same)) % n_same)

    def segment(self, cut: int) -> Segment:
        """Return a cut as a segment."""
        row = int(np.searchsorted(self._ends, cut, side="right"))
        start = int(cut - self._ends[row] + self._counts[row])
        return Segment(self._episodes[row], start, self._length)

    def task(self, cut: int) -> Task:
        """Return what a cut is judged by."""
        return self._kinds[int(self.kind(np.array(cut)))]

    def kind(self, cut: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return numbers of the tasks that cuts are judged by."""
        return np.asarray(np.searchsorted(self._kind_ends, cut, side="right"))

    @property
    def _kind_starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self._kind_ends[:-1]])


def _task_of(episode: Episode, tasks: Sequence[Task]) -> Task:
    return tasks[episode.env] if len(tasks) > 1 else tasks[0]


def choose_queries(
    query: str,
    candidates: Sequence[Pair],
    n_pairs: int,
    per_member: Predictor,
    asked: Float[np.ndarray, "asked 2 steps obs"] | None = None,
) -> list[Pair]:
    """Return the candidates that a query of this name asks about, in order of candidates.

    Args:
        query: a name in `QUERIES`; "uniform" takes the first ones.
        candidates: pairs to choose from.
        n_pairs: pairs wanted.
        per_member: reward of steps by each member, such as `RewardEnsemble.per_member`.
        asked: observations of the pairs that were asked about already, which k-center keeps away from; None: no pair.
    """
    if query == "uniform":
        return list(candidates[:n_pairs])
    worth, _, spread_out = query.partition("+")
    chosen = list(range(len(candidates)))
    if worth != "k-center":
        measure = disagreement if worth == "disagreement" else entropy
        # The better half, then the most different ones of it (BPref, sampling schemes 4 and 5).
        n_kept = max(n_pairs, len(candidates) // 2) if spread_out else n_pairs
        chosen = highest(measure(member_logits(candidates, per_member)), n_kept)
    if worth == "k-center" or spread_out:
        obs = np.stack([[pair.first.obs, pair.second.obs] for pair in candidates])
        picked = k_center(_flat(obs[chosen]), _flat(obs[:0] if asked is None else asked), n_pairs)
        chosen = sorted(chosen[index] for index in picked)
    return [candidates[index] for index in chosen]


def member_logits(
    pairs: Sequence[Pair], per_member: Predictor
) -> Float[np.ndarray, "members pairs"]:
    """Return each member's log-odds that the second segment is preferred (Bradley-Terry)."""
    segments = [segment for pair in pairs for segment in (pair.first, pair.second)]
    reward = per_member(
        np.concatenate([segment.obs for segment in segments]),
        np.concatenate([segment.action for segment in segments]),
    )
    sums = reward.reshape(len(reward), len(pairs), 2, -1).sum(-1, dtype=np.float64)
    return np.asarray(sums[..., 1] - sums[..., 0])


def disagreement(logit: Float[np.ndarray, "members pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return the standard deviation over members of the probability of the second segment (PEBBLE 4.2).

    >>> disagreement(np.array([[40.0, 0.0], [-40.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    # (1 + tanh(x / 2)) / 2 is the sigmoid of x, and does not overflow.
    return np.asarray(np.tanh(logit / 2).std(0) / 2)


def entropy(logit: Float[np.ndarray, "members pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return the mean over members of the entropy of their answer, in nats (PEBBLE 4.2).

    >>> entropy(np.array([[0.0, 800.0]])).round(4).tolist()
    [0.6931, 0.0]
    """
    # H(sigmoid(x)) = softplus(|x|) - |x| sigmoid(|x|) = log(1 + e^-a) + a e^-a / (1 + e^-a) for a = |x|.
    size = np.abs(logit)
    rare = np.exp(-size)
    return np.asarray((np.log1p(rare) + size * rare / (1 + rare)).mean(0))


def highest(worth: Float[np.ndarray, " pairs"], n_pairs: int) -> list[int]:
    """Return the indices of the highest values, in order of index; of equals the first.

    >>> highest(np.array([1.0, 3.0, 2.0, 3.0]), 2)
    [1, 3]
    """
    return sorted(np.argsort(-worth, kind="stable")[:n_pairs].tolist())


def k_center(
    points: Float[np.ndarray, "points numbers"],
    taken: Float[np.ndarray, "taken numbers"],
    n_points: int,
) -> list[int]:
    """Return points that lie far from what is taken and from each other, greedily, in order of choice.

    Each choice is the point with the largest distance to its nearest neighbour among the taken ones and those chosen
    before (Sener and Savarese, 2018). With nothing taken, the first point is the first choice.

    >>> k_center(np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([[0.0]]), 2)
    [3, 1]
    """
    nearest = (
        squared_distances(points, taken).min(1) if len(taken) else np.full(len(points), np.inf)
    )
    chosen: list[int] = []
    for _ in range(min(n_points, len(points))):
        chosen.append(int(nearest.argmax()))
        gap = points - points[chosen[-1]]
        nearest = np.minimum(nearest, (gap * gap).sum(-1))
        nearest[chosen] = -1.0
    return chosen


def squared_distances(
    points: Float[np.ndarray, "points numbers"], others: Float[np.ndarray, "others numbers"]
) -> Float[np.ndarray, "points others"]:
    """Return the squared Euclidean distance of every point to every other."""
    lengths = (points * points).sum(-1)[:, None] + (others * others).sum(-1)
    return np.asarray((lengths - 2 * points @ others.T).clip(min=0.0))


def _flat(obs: Float[np.ndarray, "pairs 2 steps obs"]) -> Float[np.ndarray, "pairs numbers"]:
    return obs.reshape(len(obs), -1).astype(np.float64)
