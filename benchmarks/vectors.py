"""Steps per second of SAC on several envs: with feedback through one loop, and on bare Meta-World.

`python -m benchmarks.vectors` writes `results/vectors.json`, and where the seconds of a repeat went into
`results/vectors_parts.json`. The agents live in one process and take turns, as in `benchmarks.throughput`; each of
their envs has a process of its own.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import torch
import tyro
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.parts import records_of as parts_records
from benchmarks.schema import Record, write_records
from benchmarks.throughput import (
    BARE,
    Measured,
    Sessions,
    make_agent,
    scale_of,
    schedules,
    shares_of,
    take_turns,
)
from vlp_gym.sb3 import make_vec_env
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


def measure(config: Config) -> Measured:
    """Measure agents that take turns."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    task = find_task(config.task)
    learned = {
        name: make_vec_env(
            task.name,
            config.n_envs,
            vec_env_cls=SubprocVecEnv,
            labeler=config.labeler,
            feedback=feedback,
        )
        for name, feedback in schedules(config).items()
    }
    seeds = range(config.seed, config.seed + config.n_envs)
    makers: list[EnvFunction] = [partial(bare_env, task.env_name, seed) for seed in seeds]
    envs = {BARE: SubprocVecEnv(makers), **learned}
    # As many updates as env steps, as with one env.
    agents = {name: make_agent(env, config.seed, gradient_steps=-1) for name, env in envs.items()}
    measured = take_turns(agents, dict.fromkeys(agents, config.session_every), config)
    for agent in agents.values():
        assert agent.env is not None
        agent.env.close()
    return measured


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    measured = measure(config)
    seconds = time.perf_counter() - started
    task = find_task(config.task).name
    scale = scale_of(
        config,
        f"SAC 2 x 256, batch 256, fused Adam, {config.n_envs} envs in processes of their own",
    )
    speeds = [
        Record.now(
            task=task,
            method=name,
            seed=config.seed,
            scale=scale,
            metrics=shares_of(values, measured.speed[BARE]),
            seconds=0.0,
        )
        for name, values in measured.speed.items()
    ]
    tables = {
        "vectors": speeds,
        "vectors_parts": parts_records(measured.parts, task, config.seed, scale),
    }
    for name, records in tables.items():
        timed = [replace(record, seconds=seconds) for record in records]
        print(write_records(name, timed, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
