"""Vectors of envs that share one sentence, or have one each, and one feedback loop."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from vlp_gym.envs.metaworld import MetaworldEnv
from vlp_gym.errors import UnknownNameError
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.wrappers.seeded import SeededEpisodes
from vlp_gym.wrappers.vector import (
    EnvFunction,
    FeedbackOptions,
    Fleet,
    PreferenceVector,
    build_fleet,
)

STRATEGIES = ("sync", "async")
"""Where the envs of a vector run: in this process, or in one of its own each."""


def make_metaworld_vector(
    num_envs: int,
    task: str | Sequence[str],
    max_episode_steps: int,
    instruction: str | Sequence[str] | None = None,
    vector_strategy: str = "sync",
    autoreset_mode: str = AutoresetMode.NEXT_STEP.value,
    context: str | None = None,
    **options: Unpack[FeedbackOptions],
) -> PreferenceVector:
    """Return a vector of Meta-World envs whose reward is a sentence; the vector entry point of all `vlp/*` ids.

    `gym.make_vec("vlp/ButtonPress", num_envs=8, vector_strategy="async")` calls this. With `gym.make_vec(...,
    vectorization_mode="sync")` Gymnasium itself would make independent envs instead, with a feedback loop and a
    budget each.

    Args:
        num_envs: envs side by side.
        task: name of the task, or one for each env.
        max_episode_steps: time limit of an episode.
        instruction: the sentence, or one for each env; None takes the tasks' own.
        vector_strategy: "sync" or "async", see `STRATEGIES`.
        autoreset_mode: "NextStep" or "SameStep", see `gymnasium.vector.AutoresetMode`; "Disabled" to reset by hand.
        context: how processes start, as in `multiprocessing`; None: the platform's way.
        options: of the feedback, see `FeedbackOptions`.

    Raises:
        UnknownNameError: no such task, strategy, labeler, camera or preset.
        ValueError: not one task or sentence for each env.
    """
    fleet = metaworld_fleet(
        num_envs,
        task,
        max_episode_steps,
        instruction,
        **options,
    )
    return vector_of(fleet, vector_strategy, autoreset_mode, context)


def metaworld_fleet(
    num_envs: int,
    task: str | Sequence[str],
    max_episode_steps: int,
    instruction: str | Sequence[str] | None = None,
    **options: Unpack[FeedbackOptions],
) -> Fleet:
    """Return what a vector of Meta-World envs needs; arguments and errors as in `make_metaworld_vector`."""
    tasks = [find_task(each) for each in one_each(task, num_envs, "task")]
    own = [each.instruction for each in tasks]
    sentences = own if instruction is None else one_each(instruction, num_envs, "instruction")
    makers: list[EnvFunction] = [
        partial(make_worker, each.name, max_episode_steps) for each in tasks
    ]
    names = [each.name for each in tasks]
    return build_fleet(makers, sentences, names, **options)


def make_worker(task: str, max_episode_steps: int) -> gym.Env[Any, Any]:
    """Return the env that a worker runs: Meta-World with episodes of its own seeds and a time limit."""
    return TimeLimit(SeededEpisodes(MetaworldEnv(task)), max_episode_steps)


def wrap_vector(
    env_fns: Sequence[EnvFunction],
    instruction: str | Sequence[str],
    *,
    vector_strategy: str = "sync",
    autoreset_mode: str = AutoresetMode.NEXT_STEP.value,
    context: str | None = None,
    **options: Unpack[FeedbackOptions],
) -> PreferenceVector:
    """Return any Gymnasium envs as a vector with a sentence, or one each, as the reward.

    Segments of envs with the same sentence are compared with each other, so envs of different worlds need different
    ones. Envs without MuJoCo must draw themselves (`render_mode="rgb_array"`) if the labeler looks; their workers
    send those pictures.

    Args:
        env_fns: each makes an env, time limit included.
        instruction: the sentence, or one for each env.
        vector_strategy: the rest as in `make_metaworld_vector`; so are the errors.
        autoreset_mode: when the vector resets.
        context: how processes start.
        options: of the feedback, see `FeedbackOptions`.
    """
    fleet = fleet_of(
        env_fns,
        instruction,
        **options,
    )
    return vector_of(fleet, vector_strategy, autoreset_mode, context)


def fleet_of(
    env_fns: Sequence[EnvFunction],
    instruction: str | Sequence[str],
    **options: Unpack[FeedbackOptions],
) -> Fleet:
    """Return what a vector of any Gymnasium envs needs; arguments and errors as in `wrap_vector`."""
    makers: list[EnvFunction] = [partial(_seeded, make) for make in env_fns]
    sentences = one_each(instruction, len(makers), "instruction")
    return build_fleet(makers, sentences, **options)


def _seeded(make: EnvFunction) -> gym.Env[Any, Any]:
    return SeededEpisodes(make())


def vector_of(
    fleet: Fleet, vector_strategy: str, autoreset_mode: str, context: str | None
) -> PreferenceVector:
    """Return the vector of a fleet.

    Raises:
        UnknownNameError: no such strategy or mode.
    """
    if vector_strategy not in STRATEGIES:
        raise UnknownNameError.of("vector strategy", vector_strategy, list(STRATEGIES))
    modes = {mode.value: mode for mode in AutoresetMode}
    if autoreset_mode not in modes:
        raise UnknownNameError.of("autoreset mode", autoreset_mode, list(modes))
    mode = modes[autoreset_mode]
    vector: SyncVectorEnv | AsyncVectorEnv
    if vector_strategy == "sync":
        vector = SyncVectorEnv(fleet.workers, autoreset_mode=mode)
    else:
        vector = AsyncVectorEnv(fleet.workers, context=context, autoreset_mode=mode)
    return PreferenceVector(vector, fleet.shared, fleet.scenes)


def one_each(given: str | Sequence[str], num_envs: int, what: str) -> list[str]:
    """Return one text for each env.

    >>> one_each("push", 2, "instruction"), one_each(["push", "pull"], 2, "instruction")
    (['push', 'push'], ['push', 'pull'])

    Raises:
        ValueError: there are several, and not one for each.
    """
    if isinstance(given, str):
        return [given] * num_envs
    if len(given) != num_envs:
        raise ValueError(
            f"a vector of {num_envs} envs needs one {what}, or one for each env; got {len(given)}"
        )
    return list(given)
