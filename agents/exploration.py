"""Exploration noise that lasts and fades, meant to make the first segments of a run differ."""

import numpy as np
from jaxtyping import Float
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise


class FadingNoise(ActionNoise):
    """Gaussian noise with a memory, whose size falls to zero over the first steps of a run (ours).

    White noise on velocities leaves a gripper where it is; noise that lasts carries it through the workspace, so
    that there is something to prefer. Added to the agent's actions, to those of its random start as well.

    Args:
        n_actions: dimensions of an action.
        steps: calls after which nothing is left.
        memory: steps after which the noise has forgotten itself.
        seed: decides the noise.
    """

    def __init__(self, n_actions: int, steps: int, memory: float, seed: int) -> None:
        super().__init__()
        self._keep = float(np.exp(-1 / memory))
        self._steps, self._step = steps, 0
        self._rng = np.random.default_rng(seed)
        self._level = self._rng.normal(size=n_actions)

    def __call__(self) -> Float[np.ndarray, " action"]:
        """Return the noise of the next step."""
        fresh = self._rng.normal(size=self._level.shape)
        self._level = self._keep * self._level + np.sqrt(1 - self._keep**2) * fresh
        size = max(0.0, 1 - self._step / self._steps)
        self._step += 1
        return size * self._level

    def reset(self) -> None:
        """Do nothing: SB3 calls this at every `learn`, and how often a run is measured must not change it."""

    def __repr__(self) -> str:
        """Return what noise this is."""
        return f"FadingNoise(steps={self._steps})"


def fading_noise(n_envs: int, n_actions: int, steps: int, memory: float, seed: int) -> ActionNoise:
    """Return fading noise for one env or several, each with its own; arguments as in `FadingNoise`."""
    first = FadingNoise(n_actions, steps, memory, seed)
    if n_envs == 1:
        return first
    vectorized = VectorizedActionNoise(first, n_envs)
    # Stable-Baselines3 copies the first one: all envs would be pushed the same way.
    words = np.random.SeedSequence(seed).generate_state(n_envs)
    vectorized.noises = [FadingNoise(n_actions, steps, memory, int(word)) for word in words]
    return vectorized
