"""What the library costs before it does anything: time to import it, bytes to store a step.

`python -m benchmarks.imports` writes `results/imports.json`.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.tasks.metaworld import TASKS

REWARD_AND_SUCCESS = 4 + 1
"""Bytes of a float32 and a bool."""
TIMED_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


@dataclass(frozen=True)
class Config:
    """How often to import."""

    repeats: int = 11
    results: Path = RESULTS


def seconds_to_import(module: str, repeats: int) -> list[float]:
    """Return how long a fresh interpreter takes to import a module, in seconds."""
    command = [sys.executable, "-c", TIMED_IMPORT.format(module)]
    return [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats + 1)
    ][1:]  # the first one fills the file cache


def bytes_per_step() -> list[int]:
    """Return what a step of every task takes in memory beside observation and action."""
    sizes = []
    for task in TASKS:
        env = make_sawyer(task)
        sizes.append(metaworld_scene(env).snapshot(env).nbytes + REWARD_AND_SUCCESS)
    return sizes


def main(config: Config) -> None:
    """Measure and write the records."""
    records = []
    for module in ("vlp_gym", "gymnasium"):
        started = time.perf_counter()
        seconds = seconds_to_import(module, config.repeats)
        records.append(
            Record.now(
                task="-",
                method=f"import {module}",
                scale=f"median of {config.repeats} fresh interpreters",
                metrics={
                    "seconds": median(seconds),
                    "fastest": min(seconds),
                    "slowest": max(seconds),
                },
                seconds=time.perf_counter() - started,
            )
        )
    started = time.perf_counter()
    sizes = bytes_per_step()
    records.append(
        Record.now(
            task="-",
            method="a stored step",
            scale="all 50 tasks, beside observation and action",
            metrics={"bytes, median task": float(median(sizes)), "bytes, largest": max(sizes)},
            seconds=time.perf_counter() - started,
        )
    )
    print(write_records("imports", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
