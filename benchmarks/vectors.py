"""Steps per second of SAC on several envs: with feedback through one loop, and on bare Meta-World.

`python -m benchmarks.vectors` writes `results/vectors.json`. Both agents live in one process and take turns; each of
their envs has a process of its own.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import gymnasium as gym
import torch
import tyro
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.schema import Record, write_records
from benchmarks.throughput import BARE, FEEDBACK, Sessions, make_agent
from vlp_gym.sb3 import PreferenceVecEnv, RelabelReplay, make_vec_env
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.wrappers.vector import EnvFunction


@dataclass(frozen=True)
class Config(Sessions):
    """How long to measure; the defaults take some ten minutes on two cores."""

    n_envs: int = 4


def bare_env(env_name: str, seed: int) -> gym.Env[Any, Any]:
    """Return Meta-World's own env."""
    import metaworld  # noqa: F401, PLC0415  registers Meta-World/*

    return gym.make("Meta-World/MT1", env_name=env_name, seed=seed)


def measure(config: Config) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the steps per second of every repeat by method, and the seconds of each part of the feedback."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    task = find_task(config.task)
    feedback = {
        "queries_per_session": config.queries,
        "session_every": config.session_every,
        "budget": config.queries * (config.repeats + 1),
    }
    learned: PreferenceVecEnv = make_vec_env(
        task.name,
        config.n_envs,
        vec_env_cls=SubprocVecEnv,
        labeler=config.labeler,
        feedback=feedback,
    )
    seeds = range(config.seed, config.seed + config.n_envs)
    makers: list[EnvFunction] = [partial(bare_env, task.env_name, seed) for seed in seeds]
    agents = {
        # As many updates as env steps, as with one env.
        BARE: make_agent(SubprocVecEnv(makers), config.seed, gradient_steps=-1),
        FEEDBACK: make_agent(learned, config.seed, gradient_steps=-1),
    }
    speed: dict[str, list[float]] = {name: [] for name in agents}
    for repeat in range(-1, config.repeats):
        for name, agent in agents.items():
            steps = config.warm_up if repeat < 0 else config.session_every
            callback = RelabelReplay() if name == FEEDBACK else None
            started = time.perf_counter()
            agent.learn(steps, callback, reset_num_timesteps=False)
            if repeat >= 0:
                speed[name].append(steps / (time.perf_counter() - started))
    parts: dict[str, float] = {}
    for record in learned.loop.history:
        for part, seconds in record["seconds"].items():
            parts[part] = parts.get(part, 0.0) + seconds / len(learned.loop.history)
    for agent in agents.values():
        assert agent.env is not None
        agent.env.close()
    return speed, parts


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    speed, parts = measure(config)
    task = find_task(config.task).name
    records = [
        Record.now(
            task=task,
            method=name,
            seed=config.seed,
            scale=(
                f"SAC 2 x 256, batch 256, {config.n_envs} envs in processes of their own, {torch.get_num_threads()} "
                f"threads; {config.queries} queries every {config.session_every:,} steps; median of {config.repeats} "
                "repeats"
            ),
            metrics={
                "steps/s": median(values),
                "slowest": min(values),
                "fastest": max(values),
                "share of bare": median(a / b for a, b in zip(values, speed[BARE], strict=True)),
                **(
                    {f"s a session: {part}": value for part, value in parts.items()}
                    if name == FEEDBACK
                    else {}
                ),
            },
            seconds=0.0,
        )
        for name, values in speed.items()
    ]
    seconds = time.perf_counter() - started
    print(
        write_records(
            "vectors", [replace(each, seconds=seconds) for each in records], config.results
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
