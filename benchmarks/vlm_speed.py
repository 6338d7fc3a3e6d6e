"""Frames per second of a reward by a vision-language model: drawn and scored every step, or a rollout at once.

`python -m benchmarks.vlm_speed` writes `results/vlm_speed.json`. Weights are random: speed does not depend on them, and
nothing else of them is measured. All ways take turns in one process, with the same network and pictures of one size.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.models.clip import ClipTowers
from vlp_gym.models.resnet import VIPNetwork
from vlp_gym.scorers.clip import VLMRMScorer
from vlp_gym.scorers.frames import FrameScorer
from vlp_gym.scorers.vip import VIPScorer
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, find_task
from vlp_gym.wrappers.score import ScoreReward

EVERY_STEP, AT_ONCE = "env.render() and the network, every step", "vlp-gym, a rollout at once"
NETWORK, SCORER = "the network alone, as it is published", "our scorer alone"


@dataclass(frozen=True)
class Config:
    """What to measure; the defaults take some minutes on two cores."""

    task: str = "ButtonPress"
    networks: tuple[str, ...] = ("ViT-B-32", "ResNet-50")
    """An open_clip config (VLM-RM's reward), or ResNet-18, -34, -50 (VIP's)."""
    rollout: int = 50
    """Steps of a rollout."""
    slow_steps: int = 20
    """Steps of a repeat of what draws and scores every step."""
    repeats: int = 3
    threads: int | None = None
    """Threads of torch; None: its own choice, all cores."""
    results: Path = RESULTS


def published(name: str) -> tuple[Any, FrameScorer, int]:
    """Return a random network, our scorer of it, and the side of its pictures."""
    torch.manual_seed(0)
    if name.startswith("ResNet-"):
        network = VIPNetwork(int(name.removeprefix("ResNet-"))).eval()
        goal = np.zeros((224, 224, 3), np.uint8)
        return network, VIPScorer(network, goal_images=[goal], fit="none", device="cpu"), 224
    towers = ClipTowers(name).eval()
    size = towers.image_size_px
    return towers, VLMRMScorer(towers, fit="none", device="cpu"), size


def measure(name: str, config: Config) -> dict[str, list[float]]:
    """Return the frames per second of every repeat, by way."""
    network, scorer, size = published(name)
    task = find_task(config.task)
    import metaworld  # noqa: F401, PLC0415  registers Meta-World/*

    picture: dict[str, Any] = {"camera_name": DEFAULT_CAMERA, "height": size, "width": size}
    drawing = gym.make(
        "Meta-World/MT1", env_name=task.env_name, seed=0, render_mode="rgb_array", **picture
    )
    lazy = ScoreReward(
        gym.make(f"vlp/{task.name}", reward="env"), task.instruction, scorer, camera=DEFAULT_CAMERA
    )
    lazy.defers = True
    frames = np.random.default_rng(0).integers(0, 256, (1, config.rollout, size, size, 3), np.uint8)

    @torch.inference_mode()
    def see(pictures: NDArray[np.uint8]) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
        network.see((pixels - 0.45) / 0.25)

    def every_step() -> int:
        drawing.reset()
        for _ in range(config.slow_steps):
            drawing.step(drawing.action_space.sample())
            drawing.unwrapped.mujoco_renderer._get_viewer("rgb_array").make_context_current()  # type: ignore[attr-defined]
            see(np.asarray(drawing.render())[None])
        return config.slow_steps

    def at_once() -> int:
        lazy.reset()
        for _ in range(config.rollout):
            lazy.step(lazy.action_space.sample())
        return len(lazy.collect())

    def network_alone() -> int:
        see(frames[0])
        return config.rollout

    def scorer_alone() -> int:
        scorer.embed(frames)
        return config.rollout

    ways = {EVERY_STEP: every_step, AT_ONCE: at_once, NETWORK: network_alone, SCORER: scorer_alone}
    with torch.inference_mode():
        speed = in_turns(ways, config.repeats)
    drawing.close()
    lazy.close()
    return speed


def in_turns(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Return what every way does a second, in every repeat; a first one of each is not counted."""
    speed: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(-1, repeats):
        for way, run in ways.items():
            started = time.perf_counter()
            done = run()
            if repeat >= 0:
                speed[way].append(done / (time.perf_counter() - started))
    return speed


def records_of(
    name: str, speed: dict[str, list[float]], config: Config, seconds: float
) -> list[Record]:
    """Return one record a way, each compared with what it replaces."""
    base = {EVERY_STEP: EVERY_STEP, AT_ONCE: EVERY_STEP, NETWORK: NETWORK, SCORER: NETWORK}
    return [
        Record.now(
            task=name,
            method=way,
            scale=(
                f"{config.task}, {torch.get_num_threads()} threads, rollouts of {config.rollout} steps; random "
                f"weights; median of {config.repeats} repeats"
            ),
            metrics={
                "frames/s": median(values),
                "slowest": min(values),
                "fastest": max(values),
                "times": median(a / b for a, b in zip(values, speed[base[way]], strict=True)),
            },
            seconds=seconds,
        )
        for way, values in speed.items()
    ]


def main(config: Config) -> None:
    """Measure and write the records."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    records: list[Record] = []
    for name in config.networks:
        started = time.perf_counter()
        speed = measure(name, config)
        records += records_of(name, speed, config, time.perf_counter() - started)
        print(write_records("vlm_speed", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
