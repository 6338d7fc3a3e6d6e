"""Records what an agent does, as episodes to cut segments from."""

from collections import deque
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.growing import GrowingArray
from vlp_gym.types import Episode

COLUMNS = ("obs", "action", "env_reward", "snapshots", "success")
"""What is kept of every step, named as in `Episode`."""


class Recorder:
    """Keeps the latest episodes and the one that is running.

    A step costs its snapshot and 5 bytes beside observation and action (float32); an episode costs
    its constants. On Meta-World that is about 200 bytes a step.

    Args:
        recent_episodes: finished episodes that are kept, the latest ones.
    """

    def __init__(self, recent_episodes: int = 100) -> None:
        self._finished: deque[Episode] = deque(maxlen=recent_episodes)
        self._columns: dict[str, GrowingArray] = {}
        self._constants: dict[str, NDArray[Any]] = {}
        self._number = 0
        self._n_steps = 0

    def __len__(self) -> int:
        """Return the number of steps recorded since the start, forgotten ones included."""
        return self._n_steps

    def begin(self, constants: dict[str, NDArray[Any]] | None = None) -> None:
        """Start an episode; one that is running ends here.

        Args:
            constants: what the simulator fixed at reset (`Scene.constants`).
        """
        self.end()
        self._constants = dict(constants or {})

    def add(
        self,
        obs: Float[np.ndarray, " obs"],
        action: Float[np.ndarray, " action"],
        env_reward: float,
        snapshot: NDArray[Any],
        success: bool,
    ) -> None:
        """Record a step.

        Args:
            obs: observation before the action.
            action: action scaled to [-1, 1].
            env_reward: the simulator's reward.
            snapshot: simulator state after the action (`Scene.snapshot`), [state].
            success: whether the simulator says success after the action.

        Raises:
            FeedbackError: a number that is not finite, or a shape that changed.
        """
        if not (np.isfinite(obs).all() and np.isfinite(action).all() and np.isfinite(env_reward)):
            raise FeedbackError(
                f"step {len(self)} of the run has an observation, action or reward that is NaN or "
                "infinite; the env or the policy has diverged, nothing of this step was recorded"
            )
        row = (obs, action, env_reward, snapshot, success)
        if not self._columns:
            self._columns = _columns_for(obs, action, snapshot)
        n_complete = self.n_open
        try:
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
        except FeedbackError:
            self._cut_back(n_complete)
            raise
        self._n_steps += 1

    def _cut_back(self, n_rows: int) -> None:
        for column in self._columns.values():
            column.truncate(n_rows)

    @property
    def n_open(self) -> int:
        """Steps of the running episode."""
        return len(self._columns["success"]) if self._columns else 0

    def end(self) -> None:
        """End the running episode and keep it, unless it has no step."""
        if self.n_open:
            self._finished.append(self._open())
            self._number += 1
            self._cut_back(0)

    def episodes(self) -> list[Episode]:
        """Return the latest episodes, oldest first; last the running one as far as it has come."""
        return [*self._finished, self._open()] if self.n_open else list(self._finished)

    def _open(self) -> Episode:
        arrays = {name: self._columns[name].rows.copy() for name in COLUMNS}
        return Episode(number=self._number, constants=self._constants, **arrays)

    def state_dict(self) -> dict[str, Any]:
        """Return the kept episodes and counters, as arrays and numbers."""
        return {
            "episodes": [_episode_state(episode) for episode in self.episodes()],
            "has_open": self.n_open > 0,
            "constants": dict(self._constants),
            "number": self._number,
            "n_steps": self._n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, in the middle of an episode if it was taken there."""
        episodes = [Episode(**each) for each in state["episodes"]]
        running = episodes.pop() if state["has_open"] else None
        self._finished.clear()
        self._finished.extend(episodes)
        self._columns = {}
        self._constants = dict(state["constants"])
        self._number = int(state["number"])
        if running is not None:
            self._columns = _columns_for(running.obs[0], running.action[0], running.snapshots[0])
            for name, column in self._columns.items():
                column.extend(getattr(running, name))
        self._n_steps = int(state["n_steps"])


def _columns_for(
    obs: NDArray[Any], action: NDArray[Any], snapshot: NDArray[Any]
) -> dict[str, GrowingArray]:
    return {
        "obs": GrowingArray("observation", obs.shape, np.float32),
        "action": GrowingArray("action", action.shape, np.float32),
        "env_reward": GrowingArray("reward", (), np.float32),
        "snapshots": GrowingArray("snapshot", snapshot.shape, snapshot.dtype),
        "success": GrowingArray("success flag", (), np.bool_),
    }


def _episode_state(episode: Episode) -> dict[str, Any]:
    arrays = {name: getattr(episode, name) for name in COLUMNS}
    return {"number": episode.number, "constants": dict(episode.constants), **arrays}
