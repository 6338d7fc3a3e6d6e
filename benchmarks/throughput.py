"""Steps per second of SAC: with VLP's feedback, on bare Meta-World, and with a picture every step.

`python -m benchmarks.throughput` writes `results/throughput.json`. The three agents live in one process and take turns,
so that a busy minute of the machine hits all of them.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

import vlp_gym  # noqa: F401  registers vlp/*
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.sb3 import RelabelReplay
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, find_task

PICTURE_PX = 224
BARE, FEEDBACK, PICTURES = "bare Meta-World", "vlp-gym", "env.render() every step"


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


def make_envs(config: Config) -> dict[str, gym.Env[Any, Any]]:
    """Return the three envs that are compared."""
    task = find_task(config.task)
    n_sessions = config.repeats + 1 + config.warm_up // config.session_every
    feedback = {
        "queries_per_session": config.queries,
        "session_every": config.session_every,
        "budget": config.queries * n_sessions,
    }
    bare: dict[str, Any] = {"id": "Meta-World/MT1", "env_name": task.env_name, "seed": config.seed}
    picture: dict[str, Any] = {
        "render_mode": "rgb_array",
        "camera_name": DEFAULT_CAMERA,
        "height": PICTURE_PX,
        "width": PICTURE_PX,
    }
    learned = gym.make(f"vlp/{task.name}", labeler=config.labeler, feedback=feedback)
    import metaworld  # noqa: F401, PLC0415  registers Meta-World/*

    return {
        BARE: gym.make(**bare),
        FEEDBACK: learned,
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


def measure(config: Config) -> dict[str, list[float]]:
    """Return the steps per second of every repeat, by method."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    agents = {name: make_agent(env, config.seed) for name, env in make_envs(config).items()}
    callbacks: dict[str, list[BaseCallback]] = {FEEDBACK: [RelabelReplay()]}
    speed: dict[str, list[float]] = {name: [] for name in agents}
    for repeat in range(-1, config.repeats):
        for name, agent in agents.items():
            steps = config.picture_steps if name == PICTURES else config.session_every
            started = time.perf_counter()
            agent.learn(
                config.warm_up if repeat < 0 else steps,
                callbacks.get(name),
                reset_num_timesteps=False,
            )
            if repeat >= 0:
                speed[name].append(steps / (time.perf_counter() - started))
    return speed


def records_of(config: Config, speed: dict[str, list[float]]) -> list[Record]:
    """Return one record a method: median and range, and its share of the bare env's speed."""
    return [
        Record.now(
            task=find_task(config.task).name,
            method=name,
            seed=config.seed,
            scale=(
                f"SAC 2 x 256, batch 256, fused Adam, {torch.get_num_threads()} threads; "
                f"{config.queries} queries every {config.session_every:,} steps; median of {config.repeats} repeats"
            ),
            metrics={
                "steps/s": median(values),
                "slowest": min(values),
                "fastest": max(values),
                "share of bare": median(a / b for a, b in zip(values, speed[BARE], strict=True)),
                "times env.render()": median(
                    a / b for a, b in zip(values, speed[PICTURES], strict=True)
                ),
            },
            seconds=0.0,
        )
        for name, values in speed.items()
    ]


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    speed = measure(config)
    seconds = time.perf_counter() - started
    records = [replace(record, seconds=seconds) for record in records_of(config, speed)]
    print(write_records("throughput", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
