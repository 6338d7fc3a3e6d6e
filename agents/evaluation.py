"""How well a policy does a task: success and return over seeded episodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8

Policy = Callable[[Any], Any]
"""Chooses an action for one observation."""


@dataclass(frozen=True)
class Evaluation:
    """What a policy reached."""

    success: float | None
    """Share of the episodes in which the simulator said success at any step (CPL's protocol); None where it never
    speaks of success."""
    final_success: float | None
    """Share of the episodes that end in success: the stricter reading."""
    env_return: float
    """Mean undiscounted sum of the simulator's reward."""
    episodes: int


def evaluate(policy: Policy, env: gym.Env[Any, Any], episodes: int, seed: int) -> Evaluation:
    """Return what `policy` reaches in `episodes` episodes that `seed` decides.

    The same seed gives the same episodes, so evaluations before and after learning have the same
    starts and goals.
    """
    outcomes = [
        _episode(policy, env, episode_seed) for episode_seed in episode_seeds(seed, episodes)
    ]
    ever, final, env_return = (float(column) for column in np.mean(outcomes, axis=0))
    if np.isnan(ever):
        return Evaluation(None, None, env_return, episodes)
    return Evaluation(ever, final, env_return, episodes)


def _episode(policy: Policy, env: gym.Env[Any, Any], seed: int) -> tuple[float, float, float]:
    """Return whether an episode succeeded at any step and at its last one (NaN: not told), and its return."""
    obs, _ = env.reset(seed=seed)
    ever = final = 0.0
    ended = False
    env_return = 0.0
    while not ended:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        env_return += float(info.get("env_reward", reward))
        final = float(info.get("is_success", np.nan))
        ever = np.fmax(ever, final) if np.isfinite(final) else final
        ended = terminated or truncated
    return ever, final, env_return


def record_frames(
    policy: Policy, env: gym.Env[Any, Any], episodes: int, seed: int
) -> tuple[list[UInt8[np.ndarray, "height width 3"]], list[bool]]:
    """Return the frames of episodes, and for each whether success had been reached by then."""
    frames, successes = [], []
    for episode_seed in episode_seeds(seed, episodes):
        obs, _ = env.reset(seed=episode_seed)
        success = ended = False
        while not ended:
            frames.append(np.asarray(env.render(), np.uint8))
            successes.append(success)
            obs, _, terminated, truncated, info = env.step(policy(obs))
            success = success or bool(info["is_success"])
            ended = terminated or truncated
    return frames, successes


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Return one seed an episode.

    >>> episode_seeds(0, 2) == episode_seeds(0, 3)[:2]
    True
    """
    return [int(state) for state in np.random.SeedSequence([seed, 1]).generate_state(episodes)]
