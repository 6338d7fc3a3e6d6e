"""One seed decides every episode that follows, and an episode can be resumed in the middle."""

from collections.abc import Iterator
from typing import Any, TypedDict, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.wrappers import TimeAwareObservation, TimeLimit
from numpy.typing import NDArray

WrapperT = TypeVar("WrapperT", bound=gym.Wrapper[Any, Any, Any, Any])

SEED_LIMIT = 2**31
"""Episode seeds lie below this: some simulators keep them in 32 bits, signed."""


class EpisodeState(TypedDict):
    """Where an env stands: its generator, and how the present episode came about.

    Attributes:
        generator: state of the bit generator that draws the seeds of the episodes to come.
        episode_seed: seed of the present episode, None before the first reset.
        options: what the present episode was reset with besides.
        actions: actions since the reset, [steps, ...].
        obs: the present observation, to see that the replay came out at the same place.
    """

    generator: dict[str, Any]
    episode_seed: int | None
    options: dict[str, Any] | None
    actions: NDArray[Any]
    obs: Any


class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Resets the env below with a seed of its own every time, drawn from one generator.

    Gymnasium seeds an env once and lets its generator run on, so that an episode depends on all episodes
    before it. Here one integer decides one whole episode, whatever happened before, and a run can be resumed
    in the middle of an episode: reset with its seed, repeat its actions.

    Args:
        env: an env that follows `reset(seed=)`.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._generator = np.random.default_rng()
        self._episode_seed: int | None = None
        self._options: dict[str, Any] | None = None
        self._actions: list[NDArray[Any]] = []
        self._obs: Any = None

    @property
    def episode_seed(self) -> int | None:
        """The integer that decides the present episode; None before the first reset."""
        return self._episode_seed

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the next episode; `seed` decides it and all that follow without a seed."""
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        return self._start(int(self._generator.integers(SEED_LIMIT)), options)

    def _start(
        self, episode_seed: int, options: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any]]:
        self._episode_seed, self._options, self._actions = episode_seed, options, []
        self._obs, info = self.env.reset(seed=episode_seed, options=options)
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply an action and remember it."""
        self._actions.append(np.array(action))
        self._obs, reward, terminated, truncated, info = self.env.step(action)
        return self._obs, reward, terminated, truncated, info

    def state_dict(self) -> EpisodeState:
        """Return where the env stands, as plain data."""
        return EpisodeState(
            generator=dict(self._generator.bit_generator.state),
            episode_seed=self._episode_seed,
            options=self._options,
            actions=np.array(self._actions),
            obs=self._obs,
        )

    def load_state_dict(self, state: EpisodeState) -> Any:
        """Put the env back to where `state_dict` found it and return the observation there.

        Raises:
            RuntimeError: the replay ended elsewhere: the env does not follow its seed, or is another one.
        """
        self._generator.bit_generator.state = state["generator"]
        if state["episode_seed"] is None:
            return None
        self._start(state["episode_seed"], state["options"])
        for action in state["actions"]:
            self.step(action)
        if not data_equivalence(self._obs, state["obs"], exact=True):
            raise RuntimeError(
                f"{self.env} repeated an episode of {len(state['actions'])} steps and ended in another state; "
                "resuming needs the same env and versions, and an env that follows reset(seed=)"
            )
        return self._obs


def resume_episode(env: gym.Env[Any, Any], state: EpisodeState) -> Any:
    """Resume the episode of a whole stack of wrappers and return its present observation.

    The stack is reset first, so that every wrapper in it has seen a reset; load the states of other wrappers
    afterwards. Then the env below repeats its episode, and whoever counts its steps is told how many there were.

    Raises:
        ValueError: the stack has no `SeededEpisodes`.
    """
    seeded = find_layer(env, SeededEpisodes)
    if seeded is None:
        raise ValueError(f"{env} has no SeededEpisodes wrapper; make it with vlp_gym or wrap it")
    if state["episode_seed"] is not None:
        env.reset()
    obs = seeded.load_state_dict(state)
    for layer in _layers(env):
        if isinstance(layer, TimeLimit):
            layer._elapsed_steps = len(state["actions"])  # type: ignore[assignment]
        if isinstance(layer, TimeAwareObservation):
            layer.timesteps = len(state["actions"])
    return obs


def find_layer(env: gym.Env[Any, Any], kind: type[WrapperT]) -> WrapperT | None:
    """Return the outermost wrapper of a kind around an env, if there is one."""
    return next((layer for layer in _layers(env) if isinstance(layer, kind)), None)


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
