"""What the preference model costs: loading and scoring the compact one, and training on a frozen ViT-B/16.

`python -m benchmarks.scoring` writes `results/scoring.json` and `results/feature_cache.json`. Speed does not depend on
what weights were learned: the compact model of eight frames and the ViT-B/16 have random ones.

What the cache is worth is measured on whole gradient steps, reading, losses and optimiser included: one and the same
run takes them from cached features, then from frames that are encoded every time. An epoch is so many steps, so its
times are in the same proportion; the encoding that fills the cache is left out, as it is in every epoch but the first.
The encoder without a cache does no more than it must: no gradients, blocks that a processor's cache can hold. How many
times fewer operations a step with cached features has is what the cache would be worth on a machine that does all
operations equally fast.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.models.checkpoint import BUNDLED_FOLDER, Checkpoint
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.scorers.vlp import VLPScorer
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA
from vlp_gym.training.batches import BatchConfig
from vlp_gym.training.collect import collect_task
from vlp_gym.training.config import Tower, TrainConfig
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.objective import LossConfig
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
    dropout=0.0,
    head=(512, 256),
    aim=False,
    match_width=0,
)
"""The paper's sizes; what it does not say is LAPP's."""


@dataclass(frozen=True)
class Frozen:
    """A model that learns over a frozen vision tower."""

    model: VLPConfig
    tune: tuple[Tower, ...]
    """Towers that learn."""


CACHED = {
    "the paper's sizes": Frozen(PAPER, tune=()),
    "the bundled model's": Frozen(
        replace(VLPConfig(), clip=PAPER.clip, stages=PAPER.stages, image_size_px=224, n_frames=8),
        tune=TrainConfig().tune,
    ),
}
"""ViT-B/16 under the paper's layers, both towers frozen as in LAPP, and under those of the bundled model, whose words
learn."""


@dataclass(frozen=True)
class Config:
    """How much to measure; the defaults take some minutes on two cores."""

    clips: int = 64
    """Clips scored in one call."""
    repeats: int = 7
    train_tasks: tuple[str, ...] = ("DoorOpen", "PlateSlide")
    """Tasks that a batch of training is made of."""
    windows: int = BatchConfig().windows
    """Windows of a task in that batch; three whole trajectories come beside them. Then a clip is scored under as many
    sentences as in a batch of more tasks."""
    train_repeats: int = 3
    cached: Mapping[str, Frozen] = field(default_factory=lambda: CACHED)
    """Models with a frozen encoder that are trained with and without the cache."""
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
    megabytes = (
        sum(file.stat().st_size for file in BUNDLED_FOLDER.rglob("*") if file.is_file()) / 1e6
    )
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


def measure_cache(config: Config, folder: Path) -> list[Record]:
    """Return what a gradient step on a frozen encoder costs with cached features and without."""
    return [
        record
        for name, frozen in config.cached.items()
        for record in _cache_records(name, frozen, config, folder)
    ]


def operations(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call's matrix products, convolutions and attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operations are not counted
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def _cache_records(name: str, frozen: Frozen, config: Config, folder: Path) -> list[Record]:
    torch.manual_seed(config.seed)
    sizes = frozen.model
    model = VLP(sizes)
    view, grid = View(DEFAULT_CAMERA, size_px=sizes.image_size_px), FrameGrid(stride=7)
    episodes = {"expert": 1, "medium": 1, "random": 1}
    data = [
        collect_task(task, episodes, n_steps=150, seed=config.seed) for task in config.train_tasks
    ]

    def pool(*, encoded: bool) -> list[list[TaskClips]]:
        settings = (model.encoders, view, grid, sizes.n_frames, folder)
        return [[task_clips(each, *settings, encoded=encoded)] for each in data]

    train = TrainConfig(
        model=sizes,
        view=view,
        batch=BatchConfig(tasks=len(config.train_tasks), windows=config.windows),
        loss=LossConfig(strangers=len(config.train_tasks) - 1),
        steps=2 * (config.train_repeats + 2),
        tune=frozen.tune,
        out=folder,
    )
    sentences = {task: instructions(task) for task in config.train_tasks}
    run = TrainingRun(train, model, Accelerator(cpu=True), sentences, "")
    pools = {
        "features from the cache": pool(encoded=True),
        "encoding every time": pool(encoded=False),
    }
    n_operations = {
        method: operations(lambda pool=pool: run.advance(pool))  # type: ignore[misc]
        for method, pool in pools.items()
    }
    seconds = {
        method: timed(lambda pool=pool: run.advance(pool), config.train_repeats)  # type: ignore[misc]
        for method, pool in pools.items()
    }
    slow, most = median(seconds["encoding every time"]), n_operations["encoding every time"]
    n_clips = len(config.train_tasks) * (config.windows + 3)
    return [
        Record.now(
            task="-",
            method=f"{name}: {method}",
            metrics={
                "seconds a step": median(values),
                "times faster": slow / median(values),
                "GFLOP a step": n_operations[method] / 1e9,
                "times fewer operations": most / n_operations[method],
            },
            scale=(
                f"{sizes.clip} at {sizes.image_size_px} px, {n_clips} clips of {sizes.n_frames} frames a step, "
                f"{torch.get_num_threads()} threads; median of {config.train_repeats} repeats"
            ),
            seed=config.seed,
            seconds=sum(values),
        )
        for method, values in seconds.items()
    ]


def main(config: Config) -> None:
    """Measure and write the records."""
    write_records("scoring", measure_scoring(config), config.results)
    with TemporaryDirectory() as folder:
        write_records("feature_cache", measure_cache(config, Path(folder)), config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
