"""What the preference model costs: loading and scoring the compact one, and training on a frozen ViT-B/16.

`python -m benchmarks.scoring` writes `results/scoring.json` and `results/feature_cache.json`. Speed does not depend on
what weights were learned: the compact model of eight frames and the ViT-B/16 have random ones.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.models.checkpoint import BUNDLED, Checkpoint
from vlp_gym.models.encoders import ClipEncoders
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.scorers.vlp import VLPScorer
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.training.batches import BatchConfig
from vlp_gym.training.collect import collect_task
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameArray, FrameGrid, cached_frames
from vlp_gym.training.run import TrainingRun
from vlp_gym.types import Task, View

PAPER = VLPConfig(
    clip="ViT-B-16",
    stages=(11,),
    image_size_px=224,
    n_frames=8,
    width=512,
    heads=16,
    mlp_ratio=4,
    head=(512, 256),
    match_width=0,
)
"""The paper's sizes."""


@dataclass(frozen=True)
class Config:
    """How much to measure; the defaults take some minutes on two cores."""

    clips: int = 64
    """Clips scored in one call."""
    repeats: int = 7
    train_tasks: tuple[str, ...] = ("DoorOpen", "PlateSlide")
    """Tasks that a batch of training is made of."""
    windows: int = 3
    """Windows of a task in that batch; three whole trajectories come beside them."""
    train_repeats: int = 3
    paper: VLPConfig = field(default_factory=lambda: PAPER)
    """The model with a frozen encoder that is trained with and without the cache."""
    seed: int = 0
    results: Path = RESULTS


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Return the seconds of every call after a first that warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def measure_scoring(config: Config) -> list[Record]:
    """Return what the bundled model, and one of eight frames, cost to load and to ask."""
    checkpoint = Checkpoint.from_pretrained(None, "cpu")
    eight = VLP(replace(checkpoint.model.config, n_frames=8)).eval()
    megabytes = sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) / 1e6
    loading = timed(lambda: VLPScorer.load(None, "cpu"), config.repeats)
    more = {"MB": megabytes, "seconds to load": median(loading)}
    return [
        _scoring_record("bundled", checkpoint, more, config),
        _scoring_record("the same with 8 frames", replace(checkpoint, model=eight), {}, config),
    ]


def _scoring_record(
    method: str, checkpoint: Checkpoint, more: dict[str, float], config: Config
) -> Record:
    scorer = VLPScorer(checkpoint)
    side = scorer.image_size_px
    rng = np.random.default_rng(config.seed)
    shape = (config.clips, scorer.n_frames, side, side, 3)
    clips = rng.integers(0, 256, shape, dtype=np.uint8)
    seconds = timed(lambda: scorer(clips, Task("close the door")), config.repeats)
    return Record.now(
        task="-",
        method=method,
        metrics={
            "segments/s": config.clips / median(seconds),
            "slowest": config.clips / max(seconds),
            "fastest": config.clips / min(seconds),
            **more,
        },
        scale=(
            f"{config.clips} segments of {side} x {side} pixels a call, {torch.get_num_threads()} threads, drawing "
            f"apart; median of {config.repeats} repeats"
        ),
        seconds=sum(seconds),
    )


@dataclass(frozen=True)
class EncodesEveryTime(TaskClips):
    """Clips whose frames are encoded whenever they are asked for, as if no features were cached."""

    frames: FrameArray
    encoders: ClipEncoders

    @torch.no_grad()
    def gather(self, rows: np.ndarray) -> torch.Tensor:
        """Return the features of the clips `rows`, float32 [clips, frames, patches, channels]."""
        frames = self.frames[self.clips.episode[rows, None], self.clips.frame[rows]]
        features = self.encoders.frames(torch.from_numpy(frames).flatten(0, 1))
        return features.view(*frames.shape[:2], *features.shape[1:])


def measure_cache(config: Config, folder: Path) -> list[Record]:
    """Return what a gradient step on a frozen encoder costs with cached features and without."""
    torch.manual_seed(config.seed)
    model = VLP(config.paper)
    view, grid = View(DEFAULT_CAMERA, size_px=config.paper.image_size_px), FrameGrid(stride=7)
    episodes = {"expert": 1, "medium": 1, "random": 1}
    cached: list[list[TaskClips]] = []
    encoding: list[list[TaskClips]] = []
    for name in config.train_tasks:
        data = collect_task(name, episodes, n_steps=150, seed=config.seed)
        clips = task_clips(data, model.encoders, view, grid, config.paper.n_frames, folder)
        frames = cached_frames(data, view, grid, folder / "frames")
        cached.append([clips])
        encoding.append([EncodesEveryTime(**vars(clips), frames=frames, encoders=model.encoders)])
    train = TrainConfig(
        model=config.paper,
        batch=BatchConfig(tasks=len(config.train_tasks), windows=config.windows),
        steps=2 * (config.train_repeats + 1),
        out=folder,
    )
    sentences = {name: instructions(name) for name in config.train_tasks}
    run = TrainingRun(train, model, Accelerator(cpu=True), sentences, "")
    seconds = {
        name: timed(lambda pool=pool: run.advance(pool), config.train_repeats)  # type: ignore[misc]
        for name, pool in (("features from the cache", cached), ("encoding every time", encoding))
    }
    slow = median(seconds["encoding every time"])
    n_clips = len(config.train_tasks) * (config.windows + 3)
    return [
        Record.now(
            task="-",
            method=name,
            metrics={"seconds a step": median(values), "times faster": slow / median(values)},
            scale=(
                f"{config.paper.clip} at {config.paper.image_size_px} px, {n_clips} clips of {config.paper.n_frames} "
                f"frames a step, {torch.get_num_threads()} threads; median of {config.train_repeats} repeats"
            ),
            seed=config.seed,
            seconds=sum(values),
        )
        for name, values in seconds.items()
    ]


def main(config: Config) -> None:
    """Measure and write the records."""
    write_records("scoring", measure_scoring(config), config.results)
    with TemporaryDirectory() as folder:
        write_records("feature_cache", measure_cache(config, Path(folder)), config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
