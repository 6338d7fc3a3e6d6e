"""Labelled pairs of segments whose better side is known, and an ensemble small enough to be fitted in a test."""

import numpy as np

from vlp_gym.reward.config import EnsembleConfig
from vlp_gym.reward.preferences import Preferences

SMALL = EnsembleConfig(members=3, width=16, depth=2)


def preferences_of(n_pairs: int = 60, steps: int = 12, seed: int = 0) -> Preferences:
    """Pairs labelled by the sum of the first number of the observation."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(n_pairs, 2, steps, 4)).astype(np.float32)
    obs += rng.normal(size=(n_pairs, 2, 1, 4)).astype(np.float32)
    action = rng.uniform(-1, 1, (n_pairs, 2, steps, 2)).astype(np.float32)
    returns = obs[..., 0].sum(-1)
    return Preferences(obs, action, (returns[:, 1] > returns[:, 0]).astype(np.float32))


def rows_of(preferences: Preferences) -> tuple[np.ndarray, np.ndarray]:
    return preferences.obs.reshape(-1, 4), preferences.action.reshape(-1, 2)
