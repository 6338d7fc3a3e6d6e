"""What a file of trajectories leaves out: the state before the first action, the observation after the last."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.scenes.metaworld import make_sawyer, seed_sawyer
from vlp_gym.scenes.mujoco import MujocoScene

TOLERANCE_M = 1e-4
"""How far a repeated observation may be from the recorded one, in every number of it; metres for most."""

MakeEnv = Callable[[str], Any]
"""Makes the bare simulator that episodes of a task were recorded in, from the name of the task."""


class Replay:
    """Repeats episodes from their seeds and actions, and checks them against what was recorded.

    Args:
        data: episodes of one task.
        make_env: makes the simulator.
    """

    def __init__(self, data: Trajectories, make_env: MakeEnv = make_sawyer) -> None:
        self._data = data
        self._env = make_env(data.task_name)
        self._scene = MujocoScene(self._env.unwrapped.model)

    def first_snapshot(self, row: int) -> Float[np.ndarray, " state"]:
        """Return the state before the first action of an episode, float64 [state].

        Raises:
            CheckpointError: the episode begins differently here.
        """
        self._reset(row)
        return self._scene.snapshot(self._env)

    def last_obs(self, row: int) -> Float[np.ndarray, " obs"]:
        """Return the observation after the last action of an episode, float32 [obs].

        Raises:
            CheckpointError: the episode goes differently here.
        """
        obs = self._reset(row)
        for step, action in enumerate(self._data.action[row]):
            self._check(row, step, obs)
            obs, *_ = self._env.step(action)
        return np.asarray(obs, np.float32)

    def _reset(self, row: int) -> Float[np.ndarray, " obs"]:
        seed_sawyer(self._env, int(self._data.seed[row]))
        obs, _ = self._env.reset()
        self._check(row, 0, obs)
        return np.asarray(obs)

    def _check(self, row: int, step: int, obs: Float[np.ndarray, " obs"]) -> None:
        off = float(np.abs(obs - self._data.obs[row, step]).max())
        if not off <= TOLERANCE_M:
            raise CheckpointError(
                f"episode {row} of {self._data.task_name} does not repeat: at step {step} an observation is {off:.2g} "
                "off; it was collected with other versions of metaworld or mujoco, so collect it again, or export "
                "it where it was collected"
            )
