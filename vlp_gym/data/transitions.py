"""Single transitions of recorded episodes: what offline reinforcement learning from a reward is given."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vlp_gym.data.comparisons import check_steps, hash_of
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import DataError


@dataclass(frozen=True)
class Transitions:
    """Steps of episodes, without their order.

    Attributes:
        obs: observation before each action, float32 [rows, obs].
        action: action in [-1, 1], float32 [rows, action].
        reward: what the step was paid, float32 [rows].
        next_obs: observation after the action, float32 [rows, obs].
        task_name: the task, as in `vlp/<name>`; None where the source does not say.
        about: where they are from, in words.

    Raises:
        DataError: numbers that are not finite, or actions outside of [-1, 1].
    """

    obs: Float[np.ndarray, "rows obs"]
    action: Float[np.ndarray, "rows action"]
    reward: Float[np.ndarray, " rows"]
    next_obs: Float[np.ndarray, "rows obs"]
    task_name: str | None = None
    about: str = "transitions"

    def __post_init__(self) -> None:
        """Refuse what a training would only turn into NaN."""
        check_steps(self.obs, self.action, self.about)
        if not np.isfinite(self.reward).all():
            raise DataError(
                f"{self.about}: {int((~np.isfinite(self.reward)).sum())} rewards are not finite; leave the episodes "
                "out that have them, or collect them again"
            )

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.reward)

    def fingerprint(self) -> str:
        """Return a hash of all numbers."""
        return hash_of(self.obs, self.action, self.reward, self.next_obs)

    @classmethod
    def of_trajectories(cls, data: Trajectories) -> "Transitions":
        """Return all transitions of which both ends were recorded: the last step of an episode has no successor.

        Raises:
            DataError: there is only one trajectory, or it holds what cannot be learned from.
        """
        if len(data) < 2:
            raise DataError(
                f"{data.task_name}: there is {len(data)} trajectory, and learning from data needs several to "
                "choose between; collect more with `vlp collect`"
            )
        if data.n_steps < 2:
            raise DataError(f"{data.task_name}: episodes of {data.n_steps} step have no transition")
        return cls(
            obs=data.obs[:, :-1].reshape(-1, data.obs.shape[-1]),
            action=data.action[:, :-1].reshape(-1, data.action.shape[-1]),
            reward=data.env_reward[:, :-1].reshape(-1),
            next_obs=data.obs[:, 1:].reshape(-1, data.obs.shape[-1]),
            task_name=data.task_name,
            about=f"{len(data)} trajectories of {data.task_name}",
        )
