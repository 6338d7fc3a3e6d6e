"""Frames per second of our presets and of `env.render()`, in one process.

`python -m benchmarks.drawing` writes `results/drawing.json`. All methods draw the same states of one episode
and take turns, so that a busy minute of the machine hits all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene, seed_sawyer
from vlp_gym.scenes.opengl import prepare_opengl
from vlp_gym.scenes.renderer import PRESETS
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, find_task

RENDER = "env.render()"


@dataclass(frozen=True)
class Config:
    """What to draw; the defaults take about two minutes on two cores."""

    task: str = "ButtonPress"
    camera: str = DEFAULT_CAMERA
    size_px: int = 224
    frames: int = 20
    """Frames of a repeat."""
    repeats: int = 7
    seed: int = 0
    results: Path = RESULTS


def record_states(env: gym.Env[Any, Any], scene: Any, n: int, seed: int) -> Any:
    """Return constants and snapshots of `n` steps of random actions."""
    rng = np.random.default_rng(seed)
    seed_sawyer(env, seed)
    env.reset()
    snapshots = []
    for _ in range(n):
        env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        snapshots.append(scene.snapshot(env))
    return scene.constants(env), np.stack(snapshots)


def drawers(config: Config) -> dict[str, Callable[[], None]]:
    """Return what draws `config.frames` frames, by method."""
    prepare_opengl()
    px = config.size_px
    env = make_sawyer(
        config.task, render_mode="rgb_array", camera_name=config.camera, height=px, width=px
    )
    scenes = {
        preset: metaworld_scene(env, config.camera, px, preset) for preset in reversed(PRESETS)
    }
    constants, snapshots = record_states(env, scenes["fast"], config.frames, config.seed)

    def render() -> None:
        # Gymnasium leaves whatever context was used last in place, and would draw into one of ours.
        env.mujoco_renderer._get_viewer("rgb_array").make_context_current()
        for _ in range(config.frames):
            env.render()

    def from_states(preset: str) -> Callable[[], None]:
        def draw() -> None:
            scenes[preset].draw(constants, snapshots)

        return draw

    return {RENDER: render} | {preset: from_states(preset) for preset in PRESETS}


def measure(config: Config) -> dict[str, list[float]]:
    """Return frames per second of every repeat, by method."""
    methods = drawers(config)
    speed: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(-1, config.repeats):
        for name, draw in methods.items():
            started = time.perf_counter()
            draw()
            if repeat >= 0:  # the first time opens the context
                speed[name].append(config.frames / (time.perf_counter() - started))
    return speed


def records_of(config: Config, speed: dict[str, list[float]], seconds: float) -> list[Record]:
    """Return one record a method: median and range, and how many times `env.render()`."""
    return [
        Record.now(
            task=find_task(config.task).name,
            method=name if name == RENDER else f"preset {name!r}",
            seed=config.seed,
            scale=(
                f"{config.size_px} x {config.size_px} pixels, camera {config.camera}; "
                f"median of {config.repeats} repeats of {config.frames} frames"
            ),
            metrics={
                "frames/s": median(values),
                "slowest": min(values),
                "fastest": max(values),
                "times env.render()": median(
                    ours / theirs for ours, theirs in zip(values, speed[RENDER], strict=True)
                ),
            },
            seconds=seconds,
        )
        for name, values in speed.items()
    ]


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    speed = measure(config)
    records = records_of(config, speed, time.perf_counter() - started)
    print(write_records("drawing", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
