"""Records what an agent does, as episodes to cut segments from."""

from collections import deque
from collections.abc import Callable, Sequence
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
    """Keeps the latest episodes of all envs and the ones that are running.

    A step costs its snapshot and 5 bytes beside observation and action (float32); an episode costs
    its constants. On Meta-World that is about 200 bytes a step.

    Args:
        recent_episodes: finished episodes that are kept, the latest ones.
        n_envs: envs that are recorded side by side.
        on_episode: called with every episode that ends.
    """

    def __init__(
        self,
        recent_episodes: int = 100,
        n_envs: int = 1,
        on_episode: Sequence[Callable[[Episode], None]] = (),
    ) -> None:
        self._finished: deque[Episode] = deque(maxlen=recent_episodes)
        self._running = [_Running(env) for env in range(n_envs)]
        self._next_number = 0
        self._n_steps = 0
        self._on_episode = on_episode

    def __len__(self) -> int:
        """Return the number of steps recorded since the start, forgotten ones included."""
        return self._n_steps

    def begin(self, constants: dict[str, NDArray[Any]] | None = None, env: int = 0) -> None:
        """Start an episode of an env; one that is running there ends here.

        Args:
            constants: what the simulator fixed at reset (`Scene.constants`).
            env: number of the env.
        """
        self.end(env)
        self._running[env].constants = dict(constants or {})

    def add(
        self,
        obs: Float[np.ndarray, " obs"],
        action: Float[np.ndarray, " action"],
        env_reward: float,
        snapshot: NDArray[Any],
        success: bool,
        env: int = 0,
    ) -> None:
        """Record a step.

        Args:
            obs: observation before the action.
            action: action scaled to [-1, 1].
            env_reward: the simulator's reward.
            snapshot: simulator state after the action (`Scene.snapshot`), [state].
            success: whether the simulator says success after the action.
            env: number of the env.

        Raises:
            FeedbackError: a number that is not finite, or a shape that changed.
        """
        if not (np.isfinite(obs).all() and np.isfinite(action).all() and np.isfinite(env_reward)):
            raise FeedbackError(
                f"step {len(self)} of the run has an observation, action or reward that is NaN or "
                "infinite; the env or the policy has diverged, nothing of this step was recorded"
            )
        running = self._running[env]
        if not len(running):
            running.number = self._next_number
        running.add((obs, action, env_reward, snapshot, success))
        if len(running) == 1:
            self._next_number += 1
        self._n_steps += 1

    def end(self, env: int = 0) -> None:
        """End the running episode of an env and keep it, unless it has no step."""
        running = self._running[env]
        if len(running):
            episode = running.episode()
            self._finished.append(episode)
            running.clear()
            for listener in self._on_episode:
                listener(episode)

    def episodes(self) -> list[Episode]:
        """Return the latest episodes, oldest first; last the running ones as far as they have come."""
        return [*self._finished, *(each.episode() for each in self._running if len(each))]

    def state_dict(self) -> dict[str, Any]:
        """Return the kept episodes and counters, as arrays and numbers."""
        return {
            "episodes": [_episode_state(episode) for episode in self._finished],
            "running": [each.state_dict() for each in self._running],
            "next_number": self._next_number,
            "n_steps": self._n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, in the middle of episodes if it was taken there."""
        self._finished.clear()
        self._finished.extend(Episode(**each) for each in state["episodes"])
        for running, each in zip(self._running, state["running"], strict=True):
            running.load_state_dict(each)
        self._next_number = int(state["next_number"])
        self._n_steps = int(state["n_steps"])


class _Running:
    """The running episode of one env."""

    def __init__(self, env: int) -> None:
        self.number, self.env = 0, env
        self.constants: dict[str, NDArray[Any]] = {}
        self._columns: dict[str, GrowingArray] = {}

    def __len__(self) -> int:
        return len(self._columns["success"]) if self._columns else 0

    def add(self, row: tuple[Any, ...]) -> None:
        if not self._columns:
            self._columns = _columns_for(row[0], row[1], row[3])
        n_complete = len(self)
        try:
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
        except FeedbackError:
            self._cut_back(n_complete)
            raise

    def _cut_back(self, n_rows: int) -> None:
        for column in self._columns.values():
            column.truncate(n_rows)

    def clear(self) -> None:
        self._cut_back(0)

    def episode(self) -> Episode:
        arrays = {name: self._columns[name].rows.copy() for name in COLUMNS}
        return Episode(number=self.number, constants=self.constants, env=self.env, **arrays)

    def state_dict(self) -> dict[str, Any]:
        return {
            "constants": dict(self.constants),
            "episode": _episode_state(self.episode()) if len(self) else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.constants, self._columns = dict(state["constants"]), {}
        if state["episode"] is None:
            return
        running = Episode(**state["episode"])
        self.number = running.number
        self._columns = _columns_for(running.obs[0], running.action[0], running.snapshots[0])
        for name, column in self._columns.items():
            column.extend(getattr(running, name))


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
    return {
        "number": episode.number,
        "constants": dict(episode.constants),
        "env": episode.env,
        **arrays,
    }
