"""The labeler that looks: draws both segments and compares what a scorer says of them."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError, UnknownNameError
from vlp_gym.labelers.store import LabelStore, Question, question_of
from vlp_gym.types import Frames, Labels, Pair, Scorer, Segment, Status, Task


@runtime_checkable
class Drawer(Protocol):
    """The part of a `Scene` that labels need; one with an `identity` can be remembered by a `LabelStore`."""

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
    A scorer that compares with a first frame (R3M) gets that of the episode, wherever the segment is cut.
    What is compared is of one scene: a scorer that tells scenes apart (VLP) is asked not to, by its `of_one_scene`.

    Args:
        scorer: says how well a clip follows the task.
        scene: draws the snapshots that the recorder kept; several: that of each env of a vector.
        soft: whether a label is a probability, sigmoid(difference / temperature), or 0 or 1.
        temperature: score difference that makes one unit of log-odds.
        tie_band: differences smaller than this are labelled 0.5.
        batch: clips scored at once.
        store: where scores are looked up and kept; None: nowhere.
        reduce: what makes one score of a clip's frames: their "mean", which orders pairs as the return of a reward of
            scores does; the "last" one; or the "gain", last minus first, which is the return of a potential.

    Attributes:
        scorer: as given, for one scene.
        scene: as given, the first of several.
        store: as given.
        seconds: time of the last call by part, "draw" and "score".
    """

    def __init__(
        self,
        scorer: Scorer,
        scene: Drawer | Sequence[Drawer],
        soft: bool = True,
        temperature: float = 1.0,
        tie_band: float = 0.0,
        batch: int = 16,
        store: LabelStore | None = None,
        reduce: Reduce = "mean",
    ) -> None:
        if reduce not in REDUCE:
            raise UnknownNameError.of("way to make one score of many", reduce, list(REDUCE))
        if not temperature > 0 or tie_band < 0:
            raise ValueError(
                "ScoreLabeler needs temperature > 0 and tie_band >= 0, "
                f"got {temperature} and {tie_band}"
            )
        if hasattr(scorer, "of_one_scene"):
            scorer = scorer.of_one_scene()
        self.name = str(getattr(scorer, "name", type(scorer).__name__))
        self.seconds: dict[str, float] = {}
        self._scenes = scene if isinstance(scene, Sequence) else [scene]
        self.scorer, self.scene = scorer, self._scenes[0]
        self._soft, self._temperature, self._tie_band = soft, temperature, tie_band
        self._batch, self.store = batch, store
        self._reduce: Reduce = reduce
        self._asked: str | None = None
        if store is not None and not all(hasattr(each, "identity") for each in self._scenes):
            raise ValueError(
                "a label store needs a scene that says what it draws (`identity`); leave the store out, or give the "
                "scene one"
            )

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs; `extra` holds "first_score" and "second_score", with a store also the address of each."""
        score = self._scores(pairs)
        first = np.array([score[_key(pair.first, pair.task)] for pair in pairs], np.float64)
        second = np.array([score[_key(pair.second, pair.task)] for pair in pairs], np.float64)
        labels = labels_of(first, second, self._soft, self._temperature, self._tie_band)
        if self.store is not None:
            for name in ("first", "second"):
                asked = [self._question(getattr(pair, name), pair.task) for pair in pairs]
                labels.extra[f"{name}_address"] = np.array([each.address.hex() for each in asked])
        return labels

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
                values = self._known_or_scored(segments, asked[block[0]][1])
                scores.update(zip(block, values, strict=True))
        return scores

    def _known_or_scored(self, segments: list[Segment], task: Task) -> list[float]:
        if self.store is None:
            return [float(score) for score in self._score(segments, task)]
        # Blocks do not depend on what is known, and are kept whole: a run that goes on after a kill in the middle of a
        # session scores the rest in the same batches, so with the same rounding.
        questions = [self._question(each, task) for each in segments]
        known = self.store.scores(questions)
        missing = [row for row, score in enumerate(known) if score is None]
        if missing:
            started = perf_counter()
            scored = self._score([segments[row] for row in missing], task).tolist()
            asked = [questions[row] for row in missing]
            self.store.add_scores(asked, scored, perf_counter() - started)
            for row, score in zip(missing, scored, strict=True):
                known[row] = score
        return [float("nan") if score is None else score for score in known]

    def _question(self, segment: Segment, task: Task) -> Question:
        episode, n_frames = segment.episode, self.scorer.n_frames
        keeps_last, begins = getattr(self.scorer, "keeps_last", True), self._begins(task)
        steps = segment.start + frame_steps(segment.length, n_frames, keeps_last)
        if begins:
            steps = np.append(0, steps)
        scene: Any = self._scene_of(segment)
        how = "uniform" if keeps_last else "from the first on"
        frames = f"{n_frames} {how} of {segment.length}"
        if self._reduce != "mean":
            frames += f", {self._reduce}"
        if begins:
            frames += ", after the first of the episode"
        states = (episode.constants, episode.snapshots[steps])
        return question_of(self._scorer_identity, task, scene.identity, frames, *states)

    @property
    def _scorer_identity(self) -> str:
        if self._asked is None:  # kept, since pictures are hashed for it
            self._asked = str(getattr(self.scorer, "identity", self.name))
        return self._asked

    @property
    def identity(self) -> str:
        """The scorer's settings and its own: what tells its labels from another's, for a `StoredLabeler`."""
        frames = f"{self.scorer.n_frames} frames, {self._reduce}"
        label = f"{self._soft} {self._temperature} {self._tie_band}"
        scenes = " | ".join(str(getattr(each, "identity", "")) for each in self._scenes)
        return "; ".join([self._scorer_identity, frames, label, scenes])

    def _score(self, segments: list[Segment], task: Task) -> Float[np.ndarray, " clips"]:
        started = perf_counter()
        n_frames = self.scorer.n_frames
        keeps_last = getattr(self.scorer, "keeps_last", True)
        clips = np.stack(
            [frames_of(each, self._scene_of(each), n_frames, keeps_last) for each in segments]
        )
        begins = self._begins(task)
        if begins:
            firsts = [self._first_frame(each)[None] for each in segments]
            clips = np.concatenate([np.stack(firsts), clips], axis=1)
        drawn = perf_counter()
        scores = np.asarray(self.scorer(clips, task))
        if begins and scores.shape == (len(clips), n_frames + 1):
            scores = scores[:, 1:]
        self.seconds["draw"] += drawn - started
        self.seconds["score"] += perf_counter() - drawn
        if scores.ndim != 2 or scores.shape not in {(len(clips), 1), (len(clips), n_frames)}:
            raise FeedbackError(
                f"scorer {self.name!r} must return [clips, 1] or [clips, frames] for {len(clips)} "
                f"clips of {n_frames} frames, got shape {scores.shape}"
            )
        return np.asarray(REDUCE[self._reduce](scores.astype(np.float64)))

    def _begins(self, task: Task) -> bool:
        """Return whether clips begin with the first frame of their episode, which is then no part of their score."""
        return task.first_frame is None and bool(getattr(self.scorer, "reads_first_frame", False))

    def _first_frame(self, segment: Segment) -> UInt8[np.ndarray, "height width 3"]:
        episode = segment.episode
        frame: UInt8[np.ndarray, "height width 3"] = self._scene_of(segment).draw(
            episode.constants, episode.snapshots[:1]
        )[0]
        return frame

    def _scene_of(self, segment: Segment) -> Drawer:
        return self._scenes[segment.episode.env] if len(self._scenes) > 1 else self.scene


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
