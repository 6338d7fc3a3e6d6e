"""Labelled pairs as arrays: what a reward is fitted to."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class Preferences:
    """Labelled pairs of segments; axis 1 is first, second.

    Attributes:
        obs: observation before each action, float32 [pairs, 2, steps, obs].
        action: actions in [-1, 1], float32 [pairs, 2, steps, action].
        label: probability that the second is preferred, float32 [pairs].
    """

    obs: Float[np.ndarray, "pairs 2 steps obs"]
    action: Float[np.ndarray, "pairs 2 steps action"]
    label: Float[np.ndarray, " pairs"]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.label)
