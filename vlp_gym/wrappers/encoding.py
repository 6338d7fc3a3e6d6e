"""Observations and actions of an env as the vectors that the reward is learned from."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space
from jaxtyping import Float32
from numpy.typing import NDArray

Vector = Float32[np.ndarray, " numbers"]
Vectors = Float32[np.ndarray, "rows numbers"]


class Encoding:
    """Flattens boxes, scales actions to [-1, 1], and writes discrete values as one-hot vectors.

    Args:
        observation_space: a `Box`, a `Discrete`, or a `Dict` of these, whose parts follow each other in its order.
        action_space: a bounded `Box`, or `Discrete`.

    Raises:
        TypeError: another kind of space.
        ValueError: an action space without bounds.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        parts = list(_parts(observation_space))
        self.obs_dim = sum(_size(part, "observation") for part in parts)
        self.action_dim = _size(action_space, "action")
        self.observation_space, self._action_space = observation_space, action_space
        if isinstance(action_space, Box):
            if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
                raise ValueError(
                    f"the reward learner sees actions in [-1, 1], but {action_space} has no bounds; "
                    "wrap the env in gymnasium.wrappers.RescaleAction or give it bounds"
                )
            self._low = action_space.low.ravel().astype(np.float64)
            self._scale = 2 / (action_space.high.ravel().astype(np.float64) - self._low)

    def obs(self, obs: Any) -> Vector:
        """Return an observation as a new vector."""
        if isinstance(obs, Mapping):
            one: Any = {name: np.asarray(value)[None] for name, value in obs.items()}
        else:
            one = np.asarray(obs)[None]
        vector: Vector = self.obs_rows(one)[0]
        return vector

    def action(self, action: Any) -> Vector:
        """Return an action as the env takes it as a vector, a box's scaled to [-1, 1] and clipped."""
        if isinstance(self._action_space, Discrete):
            one_hot: Vector = self.stored_action_rows(np.asarray(action)[None])[0]
            return one_hot
        scaled = (np.asarray(action).ravel() - self._low) * self._scale - 1
        vector: Vector = scaled.clip(-1, 1).astype(np.float32)
        return vector

    def obs_rows(self, obs: Any) -> Vectors:
        """Return observations [rows, ...], or a dict of such, as new vectors."""
        if not isinstance(self.observation_space, Dict):
            return _rows(self.observation_space, obs)
        parts = [_rows(space, obs[name]) for name, space in self.observation_space.spaces.items()]
        return np.concatenate(parts, axis=1)

    def stored_action_rows(self, actions: NDArray[Any]) -> Vectors:
        """Return actions [rows, ...] of a Stable-Baselines3 replay buffer, in [-1, 1] already."""
        rows = _rows(self._action_space, actions)
        return rows.clip(-1, 1)


def _parts(space: Space[Any]) -> Iterable[Space[Any]]:
    return space.spaces.values() if isinstance(space, Dict) else [space]


def _size(space: Space[Any], what: str) -> int:
    if isinstance(space, Discrete):
        return int(space.n)
    if not isinstance(space, Box):
        raise TypeError(
            f"the reward learner takes a Box or Discrete {what} space (observations: or a Dict of these), got "
            f"{type(space).__name__}; flatten it first, such as with gymnasium.wrappers.FlattenObservation"
        )
    return math.prod(space.shape)


def _rows(space: Space[Any], values: NDArray[Any]) -> Vectors:
    if isinstance(space, Discrete):
        one_hot = np.eye(int(space.n), dtype=np.float32)
        return one_hot[values.reshape(-1).astype(np.int64) - int(space.start)]
    return np.array(values.reshape(len(values), -1), np.float32)
