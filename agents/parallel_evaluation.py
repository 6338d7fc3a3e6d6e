"""Evaluation episodes side by side: envs in one vector, one batch of observations through the policy a step."""

from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float
from numpy.typing import NDArray

import vlp_gym  # noqa: F401  registers vlp/*
from agents.evaluation import Evaluation, episode_seeds
from vlp_gym.errors import DataError

BatchPolicy = Callable[[Float[np.ndarray, "envs obs"]], Float[np.ndarray, "envs action"]]
"""Chooses an action for each of several observations."""

Parallel = Literal["sync", "async"]
"""All envs in this process, or each in one of its own."""

OBS_DIM = 39
"""Numbers of an observation of Meta-World."""
CPL_OBS_DIM = 35
"""The same without the last state of the gripper, as in the data of CPL."""
LAST_GRIPPER = slice(18, 22)


class WithoutLastGripper(gym.ObservationWrapper[Any, Any, Any]):
    """Leaves out of an observation where the gripper was one step ago (CPL's `trim_mw_obs`)."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        low, high = (self.observation(bound) for bound in (space.low, space.high))
        self.observation_space = Box(low, high, dtype=np.float32)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Return the 35 numbers that CPL keeps of 39."""
        return np.delete(observation, LAST_GRIPPER)


def fitted(env: gym.Env[Any, Any], obs_dim: int) -> gym.Env[Any, Any]:
    """Return an env of Meta-World whose observations are laid out as those of the data.

    Raises:
        DataError: there is no such layout.
    """
    check_layout(obs_dim)
    return WithoutLastGripper(env) if obs_dim == CPL_OBS_DIM else env


def check_layout(obs_dim: int) -> None:
    """Refuse observations that no env of ours gives.

    Raises:
        DataError: there is no such layout.
    """
    if obs_dim not in (OBS_DIM, CPL_OBS_DIM):
        raise DataError(
            f"the observations of the data have {obs_dim} numbers; those of Meta-World have {OBS_DIM}, or "
            f"{CPL_OBS_DIM} in the data of CPL. A policy learned from another layout cannot be evaluated here"
        )


class Judge:
    """The env that policies are evaluated in, several times over.

    Args:
        task: name of the task.
        obs_dim: numbers of an observation in the data that the policies were learned from.
        episodes: episodes of an evaluation, and envs.
        max_episode_steps: steps of an episode.
        parallel: where the envs live.
    """

    def __init__(
        self, task: str, obs_dim: int, episodes: int, max_episode_steps: int, parallel: Parallel
    ) -> None:
        check_layout(obs_dim)
        self._episodes = episodes
        self._envs = gym.make_vec(
            f"vlp/{task}",
            num_envs=episodes,
            vectorization_mode=parallel,
            wrappers=[WithoutLastGripper] if obs_dim == CPL_OBS_DIM else None,
            labeler=None,
            reward="env",
            max_episode_steps=max_episode_steps,
        )

    def __call__(self, policy: BatchPolicy, seed: int) -> Evaluation:
        """Return what a policy reaches in the episodes that `seed` decides, as `agents.evaluation.evaluate` does."""
        seeds: Any = episode_seeds(
            seed, self._episodes
        )  # Gymnasium takes one each, and says so only in its text
        obs, _ = self._envs.reset(seed=seeds)
        running = np.ones(self._episodes, bool)
        ever, final = np.zeros_like(running), np.zeros_like(running)
        env_return = np.zeros(self._episodes)
        while running.any():
            obs, reward, terminated, truncated, info = self._envs.step(policy(obs))
            success = np.asarray(info["is_success"], bool)
            env_return += np.where(running, reward, 0.0)
            ever |= running & success
            final = np.where(running, success, final)
            running &= ~(terminated | truncated)
        ever_share, final_share = float(ever.mean()), float(final.mean())
        return Evaluation(ever_share, final_share, float(env_return.mean()), self._episodes)

    def close(self) -> None:
        """Free the simulators."""
        self._envs.close()
