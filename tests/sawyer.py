"""Meta-World envs for tests, without any reward of ours on top."""

from typing import Any

import numpy as np

from vlp_gym.envs.metaworld import MetaworldEnv
from vlp_gym.wrappers.seeded import SeededEpisodes

PAPER_TEST_TASKS = ("ButtonPress", "DoorClose", "DrawerClose", "FaucetClose", "WindowOpen")
"""Tasks that tests too slow for all 50 are run on."""


def make_seeded(task: str, **settings: Any) -> SeededEpisodes:
    return SeededEpisodes(MetaworldEnv(task, **settings))


def random_actions(n_steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n_steps, 4)).astype(np.float32)


def rollout(env: Any, n_steps: int, seed: int = 0) -> np.ndarray:
    """Return observations and rewards of random actions, one row a step."""
    rows = []
    for action in random_actions(n_steps, seed):
        obs, reward, *_ = env.step(action)
        rows.append(np.append(obs, reward))
    return np.array(rows)
