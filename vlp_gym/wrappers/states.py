"""The worker's side of a feedback loop in another process: states travel in `info`, frames never do."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from vlp_gym.scenes import scene_of
from vlp_gym.scenes.mujoco import is_mujoco
from vlp_gym.types import Scene
from vlp_gym.wrappers.seeded import SeededEpisodes, find_layer, resume_episode

MOMENT = "vlp_moment"
"""Key of `info` under which a worker sends a `Moment`; whoever reads it takes it out."""
NOTHING = np.zeros(0)
"""The snapshot of an env that nobody draws."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a feedback loop needs of one reset or step, beside observation and action.

    Attributes:
        constants: what the simulator fixed at a reset (`Scene.constants`); None after a step.
        snapshot: simulator state after a step (`Scene.snapshot`), [state]; empty after a reset.
        env_reward: the simulator's reward of the step.
        success: whether the simulator says success after it.
        is_over: whether the episode ended with it.
    """

    constants: dict[str, NDArray[Any]] | None = None
    snapshot: NDArray[Any] = field(default_factory=lambda: NOTHING)
    env_reward: float = 0.0
    success: bool = False
    is_over: bool = False


class SendsStates(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Sends a `Moment` with every reset and step; the outermost wrapper of an env in a vector.

    It loads neither torch nor a renderer. The reward stays the simulator's; `info["env_reward"]` and
    `info["is_success"]` are those of `PreferenceReward`.

    Args:
        env: the env, time limit included.
        number: which one of its vector it is.
        is_looked_at: whether snapshots are taken of an env without MuJoCo too, which are pictures or what its own
            scene needs. With False nobody looks, and nothing is drawn.
        picture_px: side of these pictures, or height and width; None: as the env draws itself.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        number: int = 0,
        is_looked_at: bool = False,
        picture_px: int | tuple[int, int] | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, number=number, is_looked_at=is_looked_at, picture_px=picture_px
        )
        gym.Wrapper.__init__(self, env)
        self._number = number
        self._scene: Scene | None = None
        if is_mujoco(env):
            self._scene = scene_of(env)
        elif is_looked_at:
            self._scene = scene_of(env, size_px=picture_px)
        self._is_over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._is_over = False
        constants = {} if self._scene is None else self._scene.constants(self.env)
        return obs, {**info, MOMENT: Moment(constants)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply an action; after the end of an episode, start the next one instead, as a vector's autoreset does.

        A vector resets by itself, but a new one that goes on with a run does not know that it should.
        """
        if self._is_over:
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._is_over = bool(terminated or truncated)
        snapshot = NOTHING if self._scene is None else self._scene.snapshot(self.env)
        success = bool(info.get("success", False))
        moment = Moment(None, snapshot, float(reward), success, self._is_over)
        info = {**info, "env_reward": float(reward), "is_success": success, MOMENT: moment}
        return obs, reward, terminated, truncated, info

    def episode_state(self) -> dict[str, Any]:
        """Return where the env stands, for `resume_states`.

        Raises:
            ValueError: there is no `SeededEpisodes` below.
        """
        seeded = find_layer(self, SeededEpisodes)
        if seeded is None:
            raise ValueError(
                f"{self} has no SeededEpisodes wrapper; make it with vlp_gym or wrap it"
            )
        return {"episode": dict(seeded.state_dict()), "is_over": self._is_over}

    def resume_states(self, states: list[Any]) -> Any:
        """Put this env where its `episode_state` found it, and return the observation there.

        Args:
            states: `episode_state` of every env of the vector.
        """
        state = states[self._number]
        obs = resume_episode(self, state["episode"])
        self._is_over = bool(state["is_over"])
        return obs
