"""How new a state is: the reward of unsupervised pre-training."""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

ROWS = 256
"""States whose neighbours are looked for at once; bounds the memory of their distances."""


class StateEntropy:
    """Pays a state by the distance to its k-th nearest neighbour among all states so far (PEBBLE 4.1).

    That distance is a particle estimate of the entropy of the states, without the paper's logarithm: BPref's code has
    none. It is divided by its running deviation, measured as it should be (BPref's running mean is biased).

    Args:
        neighbours: k; a state is no neighbour of itself.
        capacity: states that are kept, the latest ones.
    """

    def __init__(self, neighbours: int = 5, capacity: int = 20_000) -> None:
        self._neighbours, self._capacity = neighbours, capacity
        self._states: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._n_seen = 0
        self._n_measured, self._mean, self._squares = 0, 0.0, 0.0

    def __len__(self) -> int:
        """Return the number of states that are kept."""
        return min(self._n_seen, self._capacity)

    def add(self, obs: Float[np.ndarray, " obs"]) -> None:
        """Keep a state, and let its distance count in the scale of all rewards."""
        row = self._n_seen % self._capacity
        if row >= len(self._states):
            grown = np.zeros((min(self._capacity, max(64, 2 * row)), len(obs)), np.float32)
            grown[:row] = self._states.reshape(-1, len(obs))[:row]
            self._states = grown
        self._states[row] = obs
        self._n_seen += 1
        self._measure(float(self._distances(obs[None])[0]))

    def __call__(self, obs: Float[np.ndarray, "steps obs"]) -> Float[np.ndarray, " steps"]:
        """Return how new each state is, float32, 0 or more; states must have been added before."""
        reward: NDArray[np.float32] = (self._distances(obs) / self._scale).astype(np.float32)
        return reward

    def _distances(self, obs: Float[np.ndarray, "steps obs"]) -> Float[np.ndarray, " steps"]:
        states = self._states[: len(self)].astype(np.float64)
        # The nearest of all is the state itself, at 0.
        rank = min(self._neighbours, len(states) - 1)
        lengths = (states * states).sum(-1)
        found = np.empty(len(obs))
        for start in range(0, len(obs), ROWS):
            block = obs[start : start + ROWS].astype(np.float64)
            squares = (block * block).sum(-1)[:, None] + lengths - 2 * block @ states.T
            found[start : start + ROWS] = np.partition(squares, rank, axis=-1)[:, rank]
        return np.asarray(np.sqrt(found.clip(min=0.0)))

    def _measure(self, distance: float) -> None:
        # Welford's running mean and sum of squared deviations.
        self._n_measured += 1
        gap = distance - self._mean
        self._mean += gap / self._n_measured
        self._squares += gap * (distance - self._mean)

    @property
    def _scale(self) -> float:
        spread = float(np.sqrt(self._squares / self._n_measured)) if self._n_measured else 0.0
        return spread if spread > 1e-6 else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the states and the scale, as arrays and numbers."""
        return {
            "states": self._states[: len(self)].copy(),
            "n_seen": self._n_seen,
            "n_measured": self._n_measured,
            "mean": self._mean,
            "squares": self._squares,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._states = np.array(state["states"], np.float32)
        self._n_seen, self._n_measured = int(state["n_seen"]), int(state["n_measured"])
        self._mean, self._squares = float(state["mean"]), float(state["squares"])
