"""Ways to act that a data set is made of: the paper's three levels, and graded and exploring behaviour.

An online agent shows the preference model mostly poor segments: it hovers, wanders, half does things. So beside
expert, medium and random there are correlated noise, mixtures with the scripted policy, stops at any stage and
walks between points of the workspace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlp_gym.scenes.metaworld import WORKSPACE

Action = Float[np.ndarray, " action"]

N_ACTIONS = 4
"""Meta-World: velocity of the gripper in x, y, z, and its closing force; each in [-1, 1]."""

LATE_NEAR_OBJECT = frozenset({
    "ButtonPress", "CoffeeButton", "DoorClose", "DrawerClose", "FaucetClose", "FaucetOpen", "PlateSlide",
    "PlateSlideBack", "PlateSlideSide", "ReachWall", "Soccer", "LeverPull", "Reach", "DialTurn",
    "ButtonPressTopdownWall",
})  # fmt: skip
"""Tasks whose `near_object` flag never fires, fires too late or is a distance: there the expert's own first success,
halved, is where the medium policy stops (docs: the paper's rule alone makes another expert of it)."""


@dataclass(frozen=True)
class Now:
    """What a behaviour sees of the present step.

    Attributes:
        obs: float64 [39].
        step: number of steps since reset.
        near_object: Meta-World's flag of the last step.
        expert_success: first step at which the expert succeeds in this very episode; None if it never does.
    """

    obs: Float[np.ndarray, " obs"]
    step: int
    near_object: float
    expert_success: int | None


@runtime_checkable
class Behaviour(Protocol):
    """One episode's way to act; made anew for every episode."""

    def __call__(self, now: Now) -> Action:
        """Return the action of a step, in [-1, 1]."""
        ...


Scripted = Callable[[Float[np.ndarray, " obs"]], Action]


@dataclass
class Noisy:
    """The scripted policy with Gaussian noise; `expert` at the paper's 0.1."""

    scripted: Scripted
    rng: np.random.Generator
    std: float = 0.1

    def __call__(self, now: Now) -> Action:
        """Return the scripted action plus noise."""
        return self.scripted(now.obs) + self.rng.normal(0.0, self.std, N_ACTIONS)


@dataclass
class Medium:
    """Scripted until the task's stage predicate holds, then noise only (VLP, appendix on MTVLP)."""

    scripted: Scripted
    rng: np.random.Generator
    task_name: str
    std: float = 0.2
    stopped: bool = False

    def __call__(self, now: Now) -> Action:
        """Return a scripted action until the stage is reached, noise after it."""
        self.stopped = self.stopped or self._reached(now)
        noise = self.rng.normal(0.0, self.std, N_ACTIONS)
        return noise if self.stopped else self.scripted(now.obs) + noise

    def _reached(self, now: Now) -> bool:
        if self.task_name in LATE_NEAR_OBJECT:
            return now.step >= (now.expert_success or 60) // 2
        return now.near_object > 0.5


@dataclass
class UniformRandom:
    """Uniform random actions in the whole box."""

    rng: np.random.Generator

    def __call__(self, now: Now) -> Action:
        """Return a random action."""
        return self.rng.uniform(-1.0, 1.0, N_ACTIONS)


class CorrelatedRandom:
    """Noise with a memory of `memory` steps, so that the gripper gets somewhere."""

    def __init__(self, rng: np.random.Generator, memory: float | None = None) -> None:
        self._rng = rng
        memory = memory or float(np.exp(rng.uniform(np.log(3.0), np.log(60.0))))
        self._keep = float(np.exp(-1.0 / memory))
        self._level = rng.normal(0.0, 1.0, N_ACTIONS)
        self._gain = rng.uniform(0.5, 1.5)

    def __call__(self, now: Now) -> Action:
        """Return the next value of the noise."""
        fresh = self._rng.normal(0.0, 1.0, N_ACTIONS)
        self._level = self._keep * self._level + np.sqrt(1 - self._keep**2) * fresh
        return self._gain * self._level


class Mixture:
    """Switches in short blocks between the scripted policy (a given share) and correlated noise."""

    def __init__(self, scripted: Scripted, rng: np.random.Generator, share: float) -> None:
        self._scripted, self._rng, self._share = scripted, rng, share
        self._noise = CorrelatedRandom(rng)
        self._left, self._on_script = 0, False

    def __call__(self, now: Now) -> Action:
        """Return an action of whichever side the present block belongs to."""
        if self._left == 0:
            self._left = int(self._rng.integers(3, 20))
            self._on_script = bool(self._rng.random() < self._share)
        self._left -= 1
        noise = self._noise(now)
        return self._scripted(now.obs) + 0.2 * noise if self._on_script else noise


class StopAnywhere:
    """Scripted up to a random step, then hovering noise, or away from there."""

    def __init__(self, scripted: Scripted, rng: np.random.Generator) -> None:
        self._scripted, self._rng = scripted, rng
        self._stop = int(rng.integers(5, 100))
        self._after: Behaviour = Wander(rng) if rng.random() < 0.5 else CorrelatedRandom(rng)
        self._std = rng.uniform(0.0, 0.4)

    def __call__(self, now: Now) -> Action:
        """Return a scripted action before the stop and something else after it."""
        if now.step < self._stop:
            return self._scripted(now.obs) + self._rng.normal(0.0, self._std, N_ACTIONS)
        return self._after(now)


class Wander:
    """Walks between random points, half of them close to the object, opening and closing the gripper."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left = 0
        self._target: Float[np.ndarray, "3"] = np.zeros(3)
        self._grip = 0.0

    def __call__(self, now: Now) -> Action:
        """Return a step towards the present point."""
        if self._left == 0:
            self._left = int(self._rng.integers(15, 60))
            self._target = self._next_target(now.obs)
            self._grip = float(self._rng.uniform(-1.0, 1.0))
        self._left -= 1
        velocity = 8.0 * (self._target - now.obs[:3]) + self._rng.normal(0.0, 0.2, 3)
        return np.append(velocity, self._grip)

    def _next_target(self, obs: Float[np.ndarray, " obs"]) -> Float[np.ndarray, "3"]:
        low, high = WORKSPACE
        anywhere: Float[np.ndarray, "3"] = self._rng.uniform(low, high)
        near = obs[4:7] + self._rng.normal(0.0, self._rng.choice([0.03, 0.08, 0.15]), 3)
        return np.clip(near, low, high) if self._rng.random() < 0.5 else anywhere


Make = Callable[[Scripted, np.random.Generator, str], Behaviour]

BEHAVIOURS: dict[str, Make] = {
    "expert": lambda scripted, rng, task: Noisy(scripted, rng),
    "medium": lambda scripted, rng, task: Medium(scripted, rng, task),
    "random": lambda scripted, rng, task: UniformRandom(rng),
    "noisy": lambda scripted, rng, task: Noisy(scripted, rng, std=float(rng.uniform(0.3, 1.5))),
    "correlated": lambda scripted, rng, task: CorrelatedRandom(rng),
    "mixture": lambda scripted, rng, task: Mixture(
        scripted, rng, share=float(rng.choice([0.1, 0.3, 0.6, 0.9]))
    ),
    "stop": lambda scripted, rng, task: StopAnywhere(scripted, rng),
    "wander": lambda scripted, rng, task: Wander(rng),
}
"""Every way to act by name; the first three are the paper's levels."""

LEVELS = ("random", "medium", "expert")
"""The paper's optimality levels, worst first."""

EXPLORING = ("correlated", "mixture", "wander")
"""What an agent that has not learned yet looks like; the segments that decide an online run."""


def scripted_actions(policy: Any) -> Scripted:
    """Return the scripted policy as a function of the observation, clipped to [-1, 1]."""

    def act(obs: Float[np.ndarray, " obs"]) -> Action:
        return np.clip(np.asarray(policy.get_action(obs), np.float64), -1.0, 1.0)

    return act
