"""The labeler that looks: draws both segments and compares what a scorer says of them."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError, UnknownNameError
from vlp_gym.types import Frames, Labels, Pair, Scorer, Segment, Status, Task


@runtime_checkable
class Drawer(Protocol):
    """The part of a `Scene` that labels need."""

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[Any]) -> Frames:
        """Draw snapshots [frames, state] of one episode, uint8 [frames, height, width, 3]."""
        ...


def frames_of(segment: Segment, scene: Drawer, n_frames: int, keeps_last: bool = True) -> Frames:
    """Return `n_frames` uniformly spaced frames of a segment, its first and last step included.

    One frame is the last step; a segment of fewer steps than frames repeats some.
    """
    steps = frame_steps(segment.length, n_frames, keeps_last)
    episode = segment.episode
    return scene.draw(episode.constants, episode.snapshots[segment.start + steps])


def frame_steps(length: int, n_frames: int, keeps_last: bool = True) -> NDArray[np.int64]:
    """Return which steps of a segment are drawn: from the first to the last, or every so many from the first on.

    >>> frame_steps(50, 8).tolist()
    [0, 7, 14, 21, 28, 35, 42, 49]
    >>> frame_steps(50, 1).tolist()
    [49]
    >>> frame_steps(128, 32, keeps_last=False).tolist()[-3:]
    [116, 120, 124]
    """
    if not keeps_last:
        return np.arange(n_frames) * length // n_frames
    if n_frames == 1:
        return np.array([length - 1])
    return np.round(np.linspace(0, length - 1, n_frames)).astype(np.int64)


Reduce = Literal["mean", "last", "gain"]
REDUCE: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": lambda scores: scores.mean(-1),
    "last": lambda scores: scores[:, -1],
    "gain": lambda scores: scores[:, -1] - scores[:, 0],
}
"""What makes one score of a clip's frames, see `ScoreLabeler`."""


class ScoreLabeler:
    """Labels pairs by the difference of their scores: what looks more like the sentence wins.

    Each distinct segment is drawn and scored once a call. Scores of frames are averaged over the
    clip, unless `reduce` says otherwise. A pair with a score that is not finite is FAILED.

    Args:
        scorer: says how well a clip follows the task.
        scene: draws the snapshots that the recorder kept.
        soft: whether a label is a probability, sigmoid(difference / temperature), or 0 or 1.
        temperature: score difference that makes one unit of log-odds.
        tie_band: differences smaller than this are labelled 0.5.
        batch: clips scored at once.
        reduce: what makes one score of a clip's frames: their "mean", which orders pairs as the return of a reward of
            scores does; the "last" one; or the "gain", last minus first, which is the return of a potential.

    Attributes:
        scorer: as given.
        scene: as given.
        seconds: time of the last call by part, "draw" and "score".
    """

    def __init__(
        self,
        scorer: Scorer,
        scene: Drawer,
        soft: bool = True,
        temperature: float = 1.0,
        tie_band: float = 0.0,
        batch: int = 16,
        reduce: Reduce = "mean",
    ) -> None:
        if reduce not in REDUCE:
            raise UnknownNameError.of("way to make one score of many", reduce, list(REDUCE))
        if not temperature > 0 or tie_band < 0:
            raise ValueError(
                "ScoreLabeler needs temperature > 0 and tie_band >= 0, "
                f"got {temperature} and {tie_band}"
            )
        self.name = str(getattr(scorer, "name", type(scorer).__name__))
        self.seconds: dict[str, float] = {}
        self.scorer, self.scene = scorer, scene
        self._soft, self._temperature, self._tie_band = soft, temperature, tie_band
        self._batch, self._reduce = batch, REDUCE[reduce]

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs; `extra` holds "first_score" and "second_score"."""
        score = self._scores(pairs)
        first = np.array([score[_key(pair.first, pair.task)] for pair in pairs], np.float64)
        second = np.array([score[_key(pair.second, pair.task)] for pair in pairs], np.float64)
        return labels_of(first, second, self._soft, self._temperature, self._tie_band)

    def _scores(self, pairs: list[Pair]) -> dict[tuple[int, ...], float]:
        self.seconds = {"draw": 0.0, "score": 0.0}
        asked = {
            _key(segment, pair.task): (segment, pair.task)
            for pair in pairs
            for segment in (pair.first, pair.second)
        }
        by_task: dict[int, list[tuple[int, ...]]] = {}
        for key in asked:
            by_task.setdefault(key[0], []).append(key)
        scores: dict[tuple[int, ...], float] = {}
        for keys in by_task.values():
            for at in range(0, len(keys), self._batch):
                block = keys[at : at + self._batch]
                segments = [asked[key][0] for key in block]
                values = self._score(segments, asked[block[0]][1])
                scores.update(zip(block, values.tolist(), strict=True))
        return scores

    def _score(self, segments: list[Segment], task: Task) -> Float[np.ndarray, " clips"]:
        started = perf_counter()
        n_frames = self.scorer.n_frames
        keeps_last = getattr(self.scorer, "keeps_last", True)
        clips = np.stack([frames_of(each, self.scene, n_frames, keeps_last) for each in segments])
        drawn = perf_counter()
        scores = np.asarray(self.scorer(clips, task))
        self.seconds["draw"] += drawn - started
        self.seconds["score"] += perf_counter() - drawn
        if scores.ndim != 2 or scores.shape not in {(len(clips), 1), (len(clips), n_frames)}:
            raise FeedbackError(
                f"scorer {self.name!r} must return [clips, 1] or [clips, frames] for {len(clips)} "
                f"clips of {n_frames} frames, got shape {scores.shape}"
            )
        return np.asarray(self._reduce(scores.astype(np.float64)))


def labels_of(
    first: Float[np.ndarray, " pairs"],
    second: Float[np.ndarray, " pairs"],
    soft: bool = True,
    temperature: float = 1.0,
    tie_band: float = 0.0,
) -> Labels:
    """Return the labels of pairs with these scores; arguments as in `ScoreLabeler`.

    >>> labels_of(np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, np.nan]), soft=False).value
    array([1. , 0.5, nan], dtype=float32)
    """
    is_finite = np.isfinite(first) & np.isfinite(second)
    gap = np.subtract(second, first, out=np.zeros_like(first), where=is_finite)
    gap[np.abs(gap) < tie_band] = 0.0
    # (1 + tanh(x / 2)) / 2 is the sigmoid of x, and does not overflow.
    value = (1 + (np.tanh(gap / (2 * temperature)) if soft else np.sign(gap))) / 2
    return Labels(
        np.where(is_finite, value, np.nan).astype(np.float32),
        np.where(is_finite, Status.LABELLED, Status.FAILED).astype(np.int8),
        {"first_score": first, "second_score": second},
    )


def _key(segment: Segment, task: Task) -> tuple[int, ...]:
    # By identity: a task may hold pictures, which neither hash nor compare.
    return (id(task), id(segment.episode), segment.start, segment.length)
