"""The clips of a task that a preference model is trained and judged on: windows, and whole trajectories by level."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.training.behaviours import LEVELS
from vlp_gym.training.frames import FrameGrid

NO_LEVEL = -1
OBJECT = slice(4, 7)
"""Where the object is in an observation of Meta-World, metres."""
Rank = Literal["return", "success"]
"""What windows are ranked by, see `clips_of`."""
LEAST_WAY_M = 0.02
"""An object that experts move less than this stays where it is."""


@dataclass(frozen=True)
class ClipSet:
    """Clips of one task, as places in its array of frames.

    Attributes:
        task_name: the task.
        episode: row of every clip's episode, int64 [clips].
        frame: which of the episode's drawn frames make the clip, int64 [clips, frames].
        env_return: mean reward a step over the clip's segment, float64 [clips].
        success: share of the segment's steps in success, float64 [clips].
        rank: where a window stands among those of its folder, 0 worst, 1 best; NaN of a whole trajectory, float64
            [clips].
        rank_of_all: the same among those of all folders of the task that are trained on.
        level: index in `LEVELS`, or `NO_LEVEL`, int64 [clips].
        gone: where the object is on the clip's frames, on average, seen from where its episode began, metres, float64
            [clips, 3].
        moved: the same as a share of the way that experts move it, 1 where they leave it; 0 throughout where experts
            move nothing, float64 [clips].
        way: how far, and in which direction, experts move the object, metres, float64 [3]; 0 where they move nothing.
        whole: whether the clip is a whole trajectory and not a window, bool [clips].
        behaviour: name of the behaviour, str [clips].
    """

    task_name: str
    episode: Int[np.ndarray, " clips"]
    frame: Int[np.ndarray, "clips frames"]
    env_return: Float[np.ndarray, " clips"]
    success: Float[np.ndarray, " clips"]
    rank: Float[np.ndarray, " clips"]
    rank_of_all: Float[np.ndarray, " clips"]
    level: Int[np.ndarray, " clips"]
    gone: Float[np.ndarray, "clips 3"]
    moved: Float[np.ndarray, " clips"]
    way: Float[np.ndarray, "3"]
    whole: Bool[np.ndarray, " clips"]
    behaviour: np.ndarray

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.episode)


def clips_of(data: Trajectories, grid: FrameGrid, n_frames: int, rank: Rank = "return") -> ClipSet:
    """Return every window of `n_frames` neighbouring frames, and every levelled trajectory as a whole.

    Args:
        data: trajectories of one task.
        grid: which steps are drawn.
        n_frames: frames of a clip.
        rank: what windows are ranked by: their return, or first by the share of their steps that are in success.
    """
    steps = grid.steps(data.n_steps, data.seed)
    n_episodes, n_drawn = steps.shape
    if n_drawn < n_frames:
        raise ValueError(
            f"episodes of {data.n_steps} steps have {n_drawn} frames at stride {grid.stride}, a clip needs {n_frames}"
        )
    starts = np.arange(n_drawn - n_frames + 1)
    episode = np.repeat(np.arange(n_episodes), len(starts))
    start = np.tile(starts, n_episodes)
    length = grid.stride * (n_frames - 1) + 2
    windows = [
        (e, slice(s, s + length)) for e, s in zip(episode, steps[episode, start], strict=True)
    ]
    level_of = {name: level for level, name in enumerate(LEVELS)}
    whole = data.of_behaviour(*LEVELS)
    spread = np.linspace(0, n_drawn - 1, n_frames).round().astype(int)
    names = np.array(data.behaviour)

    def mean(of_steps: np.ndarray) -> Float[np.ndarray, " clips"]:
        return np.concatenate(
            [[of_steps[window].mean() for window in windows], of_steps[whole].mean(1)]
        )

    of_episode = np.concatenate([episode, whole])
    frame = np.concatenate([start[:, None] + np.arange(n_frames), np.tile(spread, (len(whole), 1))])
    clips = ClipSet(
        task_name=data.task_name,
        episode=of_episode,
        frame=frame,
        env_return=mean(data.env_reward),
        success=mean(data.success),
        rank=np.full(len(of_episode), np.nan),
        rank_of_all=np.full(len(of_episode), np.nan),
        level=np.array(
            [NO_LEVEL] * len(episode) + [level_of[data.behaviour[i]] for i in whole], dtype=int
        ),
        gone=_gone(data)[of_episode[:, None], steps[of_episode[:, None], frame]].mean(1),
        moved=np.zeros(len(of_episode)),
        way=way_of(data),
        whole=np.arange(len(of_episode)) >= len(episode),
        behaviour=np.concatenate([names[episode], names[whole]]),
    )
    (alone,) = together([clips], rank)
    return replace(alone, rank=alone.rank_of_all)


def together(folders: Sequence[ClipSet], rank: Rank = "return") -> list[ClipSet]:
    """Return the clips of one task from several folders, so that those of one may be compared with another's.

    `rank_of_all` is among the windows of all of them, and `moved` is told by what the experts of any of them do: the
    replay of an agent has none of its own.
    """
    ways = [clips.way for clips in folders if clips.way.any()]
    way = np.mean(ways, 0) if ways else np.zeros(3)
    worth = np.concatenate([clips.env_return[~clips.whole] for clips in folders])
    if rank == "success":
        # A rank of return is at most the number of windows, so it decides only between equal success.
        success = np.concatenate([clips.success[~clips.whole] for clips in folders])
        worth = rankdata(success, "dense") * (len(worth) + 1) + rankdata(worth)
    ranks = (rankdata(worth) - 1) / max(len(worth) - 1, 1)
    ends = np.cumsum([np.count_nonzero(~clips.whole) for clips in folders])
    return [
        replace(clips, rank_of_all=_of_windows(clips, own), moved=moved(clips.gone, way), way=way)
        for clips, own in zip(folders, np.split(ranks, ends[:-1]), strict=True)
    ]


def _of_windows(
    clips: ClipSet, ranks: Float[np.ndarray, " windows"]
) -> Float[np.ndarray, " clips"]:
    of_all = np.full(len(clips), np.nan)
    of_all[~clips.whole] = ranks
    return of_all


def way_of(data: Trajectories) -> Float[np.ndarray, "3"]:
    """Return the mean way that experts move the object; see `ClipSet.way`."""
    experts = data.of_behaviour("expert")
    way: Float[np.ndarray, "3"] = _gone(data)[experts, -1].mean(0) if len(experts) else np.zeros(3)
    return way if np.linalg.norm(way) >= LEAST_WAY_M else np.zeros(3)


def moved(
    gone: Float[np.ndarray, "*clips 3"], way: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*clips"]:
    """Return how far the object has come on the way that experts move it; see `ClipSet.moved`."""
    share: Float[np.ndarray, "*clips"] = gone @ way / max(float(way @ way), 1e-9)
    return share


def _gone(data: Trajectories) -> Float[np.ndarray, "episodes steps 3"]:
    place = data.obs[..., OBJECT].astype(np.float64)
    # From its second observation on: the first of some scenes shows an object where it is not yet.
    gone: Float[np.ndarray, "episodes steps 3"] = place - place[:, 1:2]
    return gone
