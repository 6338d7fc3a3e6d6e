"""The seam between the feedback loop and whatever learns the reward."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlp_gym.reward.config import FitConfig
from vlp_gym.reward.preferences import Preferences


@runtime_checkable
class RewardLearner(Protocol):
    """Predicts the reward of a step and is fitted to labels; ours is `RewardEnsemble`."""

    def __call__(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, " steps"]:
        """Return the reward of each step, float32."""
        ...

    def per_member(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, "members steps"]:
        """Return what each member says, float32."""
        ...

    def deviation(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, " steps"]:
        """Return how far apart the members are about each step, float32, in the unit of the reward."""
        ...

    def fit(
        self, preferences: Preferences, config: FitConfig, unlabelled: Preferences | None = None
    ) -> dict[str, float]:
        """Fit to all labels so far and return how it went; labels of `unlabelled` mean nothing."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next prediction and fit depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        ...
