"""Steps per second of SAC: with VLP's feedback, on bare Meta-World, and with a picture every step.

Feedback is measured as it comes and with segments that are in two queries each (`FeedbackConfig.pairs_per_segment`).

`python -m benchmarks.throughput` writes `results/throughput.json`, and where the seconds of a repeat went into
`results/throughput_parts.json`. The agents live in one process and take turns, so that a busy minute of the machine
hits all of them: short ones, since the same updates take a tenth longer in some turns than in others. Plain
Stable-Baselines3 computes with numbers below 1e-38, which feedback's callback takes for 0.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv

import vlp_gym  # noqa: F401  registers vlp/*
from benchmarks.parts import Parts
from benchmarks.parts import records_of as parts_records
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.denormals import flush_denormals
from vlp_gym.sb3 import RelabelReplay
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, find_task

PICTURE_PX = 224
BARE, PICTURES = "bare Meta-World", "env.render() every step"
FEEDBACK, SHARED = "vlp-gym", "vlp-gym, a segment in two queries"
TURNS = 10
"""Turns of an agent in a repeat."""


@dataclass(frozen=True)
class Sessions:
    """What is measured: agents with a feedback session in every repeat."""

    task: str = "ButtonPress"
    labeler: str = "vlp"
    queries: int = 50
    """Queries of a feedback session."""
    session_every: int = 5_000
    """Steps between sessions, of all envs; also what one repeat measures, so that each has one session."""
    repeats: int = 3
    warm_up: int = 1_200
    """Steps before the first repeat; the first thousand are random and train nothing."""
    threads: int | None = None
    """Threads of torch; None: its own choice, all cores. Software OpenGL takes all cores, too."""
    seed: int = 0
    results: Path = RESULTS


@dataclass(frozen=True)
class Config(Sessions):
    """How long to measure; the defaults take about a quarter of an hour on two cores."""

    picture_steps: int = 200
    """Steps of a repeat with a picture every step, which is slow."""


class DrawsEveryStep(gym.Wrapper[Any, Any, Any, Any]):
    """Draws the env after every step, as a reward on pictures would need."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, then draw."""
        outcome = self.env.step(action)
        # Gymnasium draws into whatever context was used last, be it another env's.
        self.env.unwrapped.mujoco_renderer._get_viewer("rgb_array").make_context_current()  # type: ignore[attr-defined]
        self.env.render()
        return outcome


def schedules(config: Sessions) -> dict[str, dict[str, int]]:
    """Return the feedback of each way to ask."""
    n_sessions = config.repeats + 1 + config.warm_up // config.session_every
    as_it_comes = {
        "queries_per_session": config.queries,
        "session_every": config.session_every,
        "budget": config.queries * n_sessions,
    }
    return {FEEDBACK: as_it_comes, SHARED: {**as_it_comes, "pairs_per_segment": 2}}


def make_envs(config: Config) -> dict[str, gym.Env[Any, Any]]:
    """Return the envs that are compared."""
    task = find_task(config.task)
    bare: dict[str, Any] = {"id": "Meta-World/MT1", "env_name": task.env_name, "seed": config.seed}
    picture: dict[str, Any] = {
        "render_mode": "rgb_array",
        "camera_name": DEFAULT_CAMERA,
        "height": PICTURE_PX,
        "width": PICTURE_PX,
    }
    learned = {
        name: gym.make(f"vlp/{task.name}", labeler=config.labeler, feedback=feedback)
        for name, feedback in schedules(config).items()
    }
    import metaworld  # noqa: F401, PLC0415  registers Meta-World/*

    return {
        BARE: gym.make(**bare),
        **learned,
        PICTURES: DrawsEveryStep(gym.make(**bare, **picture)),
    }


def make_agent(env: gym.Env[Any, Any] | VecEnv, seed: int, gradient_steps: int = 1) -> SAC:
    """Return SAC of the size that the numbers are about, with PyTorch's fastest Adam for a CPU."""
    return SAC(
        "MlpPolicy",
        env,
        learning_starts=1_000,
        batch_size=256,
        gradient_steps=gradient_steps,
        policy_kwargs={"net_arch": [256, 256], "optimizer_kwargs": {"fused": True}},
        seed=seed,
        device="cpu",
    )


class Measured(NamedTuple):
    """What every repeat of every method came to."""

    speed: dict[str, list[float]]
    """Steps per second."""
    parts: dict[str, list[dict[str, float]]]
    """Seconds of each part, see `benchmarks.parts`."""


def measure(config: Config) -> Measured:
    """Measure agents that take turns."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    agents = {name: make_agent(env, config.seed) for name, env in make_envs(config).items()}
    steps = dict.fromkeys(agents, config.session_every) | {PICTURES: config.picture_steps}
    return take_turns(agents, steps, config)


def take_turns(agents: Mapping[str, SAC], steps: Mapping[str, int], config: Sessions) -> Measured:
    """Let agents learn so many steps each, `TURNS` turns of each in turn, as often as `config.repeats` says."""
    callbacks = {name: RelabelReplay() for name in (FEEDBACK, SHARED)}
    clocks = {name: Parts(agent, callbacks.get(name)) for name, agent in agents.items()}
    names = list(agents)
    measured = Measured({name: [] for name in agents}, {name: [] for name in agents})
    for repeat in range(-1, config.repeats):
        n_steps = dict.fromkeys(agents, config.warm_up) if repeat < 0 else steps
        seconds = dict.fromkeys(agents, 0.0)
        for turn, place in product(range(TURNS), range(len(agents))):
            name = names[(place + turn) % len(names)]  # nobody always comes after the same one
            flush_denormals(False)
            started = time.perf_counter()
            n = n_steps[name] * (turn + 1) // TURNS - n_steps[name] * turn // TURNS
            agents[name].learn(n, callbacks.get(name), reset_num_timesteps=False)
            seconds[name] += time.perf_counter() - started
        for name, clock in clocks.items():
            parts = clock.split(seconds[name])
            if repeat >= 0:
                measured.speed[name].append(steps[name] / seconds[name])
                measured.parts[name].append(parts)
    return measured


def records_of(config: Config, speed: Mapping[str, Sequence[float]]) -> list[Record]:
    """Return one record a method: median and range, and its share of the bare env's speed."""
    return [
        Record.now(
            task=find_task(config.task).name,
            method=name,
            seed=config.seed,
            scale=scale_of(config),
            metrics={
                **shares_of(values, speed[BARE]),
                "times env.render()": median(
                    a / b for a, b in zip(values, speed[PICTURES], strict=True)
                ),
            },
            seconds=0.0,
        )
        for name, values in speed.items()
    ]


def shares_of(speed: Sequence[float], bare: Sequence[float]) -> dict[str, float]:
    """Return median and range of steps per second, and their share of the bare env's in the same repeats."""
    return {
        "steps/s": median(speed),
        "slowest": min(speed),
        "fastest": max(speed),
        "share of bare": median(a / b for a, b in zip(speed, bare, strict=True)),
    }


def scale_of(config: Sessions, agent: str = "SAC 2 x 256, batch 256, fused Adam") -> str:
    """Return what was measured, in words."""
    return (
        f"{agent}, {torch.get_num_threads()} threads; {config.queries} queries every "
        f"{config.session_every:,} steps; median of {config.repeats} repeats"
    )


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    measured = measure(config)
    seconds = time.perf_counter() - started
    parts = {name: measured.parts[name] for name in (BARE, FEEDBACK, SHARED)}
    task = find_task(config.task).name
    tables = {
        "throughput": records_of(config, measured.speed),
        "throughput_parts": parts_records(parts, task, config.seed, scale_of(config)),
    }
    for name, records in tables.items():
        timed = [replace(record, seconds=seconds) for record in records]
        print(write_records(name, timed, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
