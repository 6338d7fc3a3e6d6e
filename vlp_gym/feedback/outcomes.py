"""What episodes come to, as the agent and as the simulator see it, and whether the two drift apart."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

RECENT = 20
"""Episodes that means are taken over; the alarm compares as many with as many before."""
RISE = 1.0
"""The learned return has risen if it grew by more than so many deviations."""
FLAT = 0.05
"""Success is flat if its share grew by no more than this."""


class Outcome(NamedTuple):
    """One finished episode."""

    learned_return: float
    """Undiscounted sum of what the agent was paid."""
    env_return: float
    """Undiscounted sum of the simulator's reward."""
    success_once: bool
    """Whether the simulator said success at any step."""
    success_at_end: bool
    """Whether it said so at the last step."""
    env: int = 0
    """Number of the env."""


class Outcomes:
    """Adds up episodes of one env or many, and sees when the agent games its reward.

    Args:
        n_envs: envs that run side by side.
    """

    def __init__(self, n_envs: int = 1) -> None:
        self._latest: deque[Outcome] = deque(maxlen=2 * RECENT)
        self._sums = np.zeros((n_envs, 2))
        self._success = np.zeros((n_envs, 2), bool)  # at any step, at the last one
        self._n_steps = np.zeros(n_envs, np.int64)
        self._n_finished = self._n_compared = 0

    def step(self, paid: float, env_reward: float, success: bool, env: int = 0) -> None:
        """Add a step of an env."""
        self._sums[env] += paid, env_reward
        self._success[env] = self._success[env, 0] or success, success
        self._n_steps[env] += 1

    def end(self, env: int = 0) -> bool:
        """End the episode of an env and return whether there was one."""
        if not self._n_steps[env]:
            return False
        learned, simulated = self._sums[env].tolist()
        once, at_end = self._success[env].tolist()
        self._latest.append(Outcome(learned, simulated, once, at_end, env))
        self._n_finished += 1
        self._sums[env], self._success[env], self._n_steps[env] = 0.0, False, 0
        return True

    def __len__(self) -> int:
        """Return the number of finished episodes."""
        return self._n_finished

    def means(self) -> dict[str, float]:
        """Return the means of the latest episodes by name; nothing before the first has finished."""
        if not self._latest:
            return {}
        learned, simulated, once, at_end, _ = np.mean(list(self._latest)[-RECENT:], axis=0).tolist()
        return {
            "learned_return": learned,
            "env_return": simulated,
            "success": once,
            "success_at_end": at_end,
        }

    def hacking(self) -> str | None:
        """Return what to say if the learned return rose while neither success nor the simulator's return did.

        It compares the latest 20 episodes with the 20 before, each episode once: after an answer of either kind it is
        silent for 20 episodes.
        """
        if len(self._latest) < 2 * RECENT or self._n_finished < self._n_compared + RECENT:
            return None
        self._n_compared = self._n_finished
        table = np.array(self._latest, np.float64)
        before, after = table[:RECENT], table[RECENT:]
        rise = (after.mean(0) - before.mean(0)) / np.maximum(before.std(0), 1e-6)
        once = float(after[:, 2].mean() - before[:, 2].mean())
        if rise[0] <= RISE or rise[1] > 0 or once > FLAT or after[:, 2].mean() > 1 - FLAT:
            return None
        return (
            f"the learned return rose from {before[:, 0].mean():.3g} to {after[:, 0].mean():.3g} over the latest "
            f"{2 * RECENT} episodes while success went from {before[:, 2].mean():.2f} to {after[:, 2].mean():.2f} and "
            "the simulator's return did not rise: the agent may be gaming the learned reward; look at "
            "`vlp replay` of such an episode, and at the labels"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the latest episodes and the running sums, as arrays and numbers."""
        return {
            "latest": np.array(self._latest, np.float64).reshape(-1, len(Outcome._fields)),
            "sums": self._sums.copy(),
            "success": self._success.copy(),
            "n_steps": self._n_steps.copy(),
            "n_finished": self._n_finished,
            "n_compared": self._n_compared,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._latest.clear()
        self._latest.extend(_outcome(row) for row in state["latest"])
        self._sums, self._success = np.array(state["sums"]), np.array(state["success"], bool)
        self._n_steps = np.array(state["n_steps"], np.int64)
        self._n_finished, self._n_compared = int(state["n_finished"]), int(state["n_compared"])


def _outcome(row: Float[np.ndarray, " numbers"]) -> Outcome:
    learned, simulated, once, at_end, env = row.tolist()
    return Outcome(learned, simulated, bool(once), bool(at_end), int(env))
