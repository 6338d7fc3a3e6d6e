"""The words of the library as types: task, clip, segment, pair, label, and the three seams.

A **label** is the probability that the SECOND segment of a pair is preferred: 0, 0.5 or 1, soft values
allowed. "Abstained" and "failed" are not labels; they travel apart from them, in `Labels.status`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

Frames = UInt8[np.ndarray, "frames height width 3"]
"""Upright RGB pictures, first axis is time."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of the robot.

    Attributes:
        instruction: the sentence that becomes the reward.
        baseline: a sentence that describes the scene without the goal (VLM-RM), if any.
        goal_image: a picture of the goal (VIP), uint8 [height, width, 3], if any.
        first_frame: the scene before the robot moved (R3M), uint8 [height, width, 3], if any.
    """

    instruction: str
    baseline: str | None = None
    goal_image: UInt8[np.ndarray, "height width 3"] | None = None
    first_frame: UInt8[np.ndarray, "height width 3"] | None = None


@dataclass(frozen=True)
class View:
    """How the frames of a model are drawn; a checkpoint names it, because a model reads what it was trained on.

    Attributes:
        camera: name of the camera.
        size_px: height and width of a frame.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
    """

    camera: str
    size_px: int
    preset: str = "fast"


@dataclass(frozen=True, slots=True)
class Episode:
    """What is stored of one episode: transitions, and the states from which frames are drawn.

    Attributes:
        number: running number of the episode in its recorder (or row in its data set).
        obs: observation BEFORE each action, float32 [steps, obs].
        action: action scaled to [-1, 1], float32 [steps, action].
        env_reward: the simulator's reward of each step, float32 [steps].
        snapshots: simulator state AFTER each action, float64 [steps, state] (see `Scene.snapshot`).
        constants: what the simulator fixed for this episode at reset (see `Scene.constants`).
        success: whether the simulator said success after each action, bool [steps].
        env: number of the env within its vector; 0 where there is one.
    """

    number: int
    obs: Float[np.ndarray, "steps obs"]
    action: Float[np.ndarray, "steps action"]
    env_reward: Float[np.ndarray, " steps"]
    snapshots: NDArray[Any]
    constants: dict[str, NDArray[Any]]
    success: NDArray[np.bool_]
    env: int = 0

    def __len__(self) -> int:
        """Return the number of recorded steps."""
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of one episode: steps `start` to `start + length`, cut once, as a whole."""

    episode: Episode
    start: int
    length: int

    def __post_init__(self) -> None:
        """Refuse a cut that leaves its episode."""
        if self.length < 1 or self.start < 0 or self.start + self.length > len(self.episode):
            raise ValueError(
                f"segment [{self.start}, {self.start + self.length}) does not lie inside its episode "
                f"of {len(self.episode)} steps; cut a shorter one or start earlier"
            )

    @property
    def steps(self) -> slice:
        """The steps of the episode that this segment covers."""
        return slice(self.start, self.start + self.length)

    @property
    def obs(self) -> Float[np.ndarray, "steps obs"]:
        """Observations before each action, float32 [steps, obs]."""
        return self.episode.obs[self.steps]

    @property
    def action(self) -> Float[np.ndarray, "steps action"]:
        """Actions in [-1, 1], float32 [steps, action]."""
        return self.episode.action[self.steps]

    @property
    def env_reward(self) -> Float[np.ndarray, " steps"]:
        """The simulator's reward of each step, float32 [steps]."""
        return self.episode.env_reward[self.steps]

    @property
    def env_return(self) -> float:
        """Undiscounted sum of the simulator's reward over the segment."""
        return float(self.env_reward.sum(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two segments of equal length and the task they are judged by."""

    first: Segment
    second: Segment
    task: Task

    def __post_init__(self) -> None:
        """Refuse segments of unequal length."""
        if self.first.length != self.second.length:
            raise ValueError(
                f"a pair needs segments of equal length, got {self.first.length} and {self.second.length} steps"
            )


class Status(IntEnum):
    """What became of a query."""

    LABELLED = 0
    ABSTAINED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Labels:
    """The answer to a batch of pairs.

    Attributes:
        value: probability that the second segment is preferred, float32 [pairs], in [0, 1] where
            `status` is LABELLED and NaN elsewhere.
        status: `Status` of each pair, int8 [pairs].
        extra: named columns kept beside the labels, each [pairs] (scores, reasons), for the label table.
    """

    value: Float[np.ndarray, " pairs"]
    status: NDArray[np.int8]
    extra: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that are not probabilities, so that no other code has to check again."""
        value, labelled = self.value, self.status == Status.LABELLED
        if value.shape != self.status.shape or value.ndim != 1:
            raise ValueError(
                f"value and status must be [pairs], got {value.shape} and {self.status.shape}"
            )
        if not np.isnan(value[~labelled]).all():
            raise ValueError("the value of a pair without a label must be NaN")
        if not ((value[labelled] >= 0) & (value[labelled] <= 1)).all():
            raise ValueError(
                "a label is the probability of the second segment: it must lie in [0, 1]"
            )

    def __len__(self) -> int:
        """Return the number of pairs that were asked."""
        return len(self.value)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which pairs have a label, bool [pairs]."""
        return np.asarray(self.status == Status.LABELLED)

    @classmethod
    def of(cls, value: NDArray[Any], **extra: NDArray[Any]) -> "Labels":
        """Return labels for pairs that were all answered."""
        value = np.asarray(value, np.float32)
        return cls(value, np.full(value.shape, Status.LABELLED, np.int8), extra)


@runtime_checkable
class Scene(Protocol):
    """Turns the state of an env into a small snapshot, and snapshots back into frames."""

    def constants(self, env: Any) -> dict[str, NDArray[Any]]:
        """Return what the simulator fixed at this reset and drawing needs."""
        ...

    def snapshot(self, env: Any) -> NDArray[Any]:
        """Return the present state of the env as one flat array [state]."""
        ...

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[Any]) -> Frames:
        """Draw snapshots [frames, state] of one episode, upright, uint8 [frames, height, width, 3]."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """The pivot: says how well clips follow a task. Higher is better; only differences mean anything."""

    n_frames: int
    """Frames that the scorer wants of every segment."""

    def __call__(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[np.ndarray, "clips scores"]:
        """Return one score per frame [clips, frames], or exactly one per clip [clips, 1]."""
        ...


@runtime_checkable
class Labeler(Protocol):
    """Says which of two segments follows the task better."""

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs; `Labels` has one row a pair, in order."""
        ...
