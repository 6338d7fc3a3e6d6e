"""What becomes of labels when the camera is not quite where it was: segments of exploring agents, drawn from elsewhere.

`python -m benchmarks.cameras` collects the test tasks' trajectories if they are missing, and writes
`results/cameras.json`. `--checkpoint FOLDER --method NAME` adds another model's rows.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import tyro
from jaxtyping import Float, UInt8
from scipy.stats import spearmanr

from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.labelers.score import frame_steps
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scenes.renderer import camera_id
from vlp_gym.scorers.vlp import VLPScorer
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.agreement import agreement, random_pairs
from vlp_gym.training.behaviours import EXPLORING
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.jitter import Jolt
from vlp_gym.types import Frames, Task

STAYS = Jolt(np.zeros(3), np.zeros(3), 1.0, np.ones(3))
AXES = np.concatenate([np.eye(3), -np.eye(3)])
LOOKS: dict[str, tuple[Jolt, ...]] = {
    "moved by 4 cm": tuple(Jolt(0.04 * axis, np.zeros(3), 1.0, np.ones(3)) for axis in AXES),
    "turned by 2 degrees": tuple(
        Jolt(np.zeros(3), np.radians(2.0) * axis, 1.0, np.ones(3)) for axis in AXES
    ),
    "zoomed by 8 %": tuple(Jolt(np.zeros(3), np.zeros(3), by, np.ones(3)) for by in (0.92, 1.08)),
    "a colour brighter or darker by 15 %": tuple(
        Jolt(np.zeros(3), np.zeros(3), 1.0, 1 + 0.15 * axis) for axis in AXES
    ),
}
"""What happens to the camera, along and about every axis of the world, and to the colours."""


@dataclass(frozen=True)
class Config:
    """Which model, and how many segments."""

    checkpoint: Path | None = None
    """None: the bundled one."""
    method: str = "bundled VLP"
    """What its rows are called."""
    tells_scenes_apart: bool = False
    """Whether the model reads its match as it is, as against what labels ask of it (`VLPScorer.of_one_scene`)."""
    data: Path = Path("data/graded-0")
    split: str = "paper"
    n_segments: int = 100
    """Of every task."""
    n_pairs: int = 4000
    segment_length: int = 50
    seed: int = 0
    device: str = "auto"
    results: Path = RESULTS


@dataclass(frozen=True)
class Segments:
    """Segments of one task: where each lies, and what it returned.

    Attributes:
        data: the episodes that they are cut from.
        row: episode of each, int64 [segments].
        start: first step of each, int64 [segments].
        env_return: the simulator's return of each, float64 [segments].
    """

    data: Trajectories
    row: np.ndarray
    start: np.ndarray
    env_return: Float[np.ndarray, " segments"]

    @classmethod
    def cut(cls, data: Trajectories, config: Config) -> "Segments":
        """Return segments of exploring behaviour, uniformly drawn."""
        rng = np.random.default_rng(config.seed)
        row = rng.choice(data.of_behaviour(*EXPLORING), config.n_segments)
        start = rng.integers(data.n_steps - config.segment_length + 1, size=len(row))
        steps = start[:, None] + np.arange(config.segment_length)
        return cls(data, row, start, data.env_reward[row[:, None], steps].sum(1, dtype=np.float64))

    def drawn(
        self, scorer: VLPScorer, jolt: Jolt, length: int
    ) -> UInt8[np.ndarray, "segments frames height width 3"]:
        """Return the frames that a scorer asks for, under one look."""
        env = make_sawyer(self.data.task_name)
        scene = metaworld_scene(env, scorer.camera, scorer.image_size_px, scorer.preset)
        camera = jolt.camera(env.model, camera_id(env.model, scorer.camera))
        steps = frame_steps(length, scorer.n_frames)
        clips: list[Frames] = []
        for row, start in zip(self.row.tolist(), self.start.tolist(), strict=True):
            episode = self.data.episode(row)
            frames = scene.draw({**episode.constants, **camera}, episode.snapshots[start + steps])
            clips.append(jolt.tinted(frames))
        scene.close()
        return np.stack(clips)


def measure(config: Config) -> list[Record]:
    """Draw, score and compare; write the records of every look, one a task and one for the mean."""
    tasks = find_split(config.split).test
    collect(CollectConfig(out=config.data, tasks=tasks))
    whole = VLPScorer.load(config.checkpoint, config.device)
    scorer = whole if config.tells_scenes_apart else whole.of_one_scene()
    records = [each for name in tasks for each in records_of(name, scorer, config)]
    looks = dict.fromkeys(each.method for each in records)
    means = [mean_of([each for each in records if each.method == look]) for look in looks]
    everything = with_earlier("cameras", [*records, *means], config.results)
    write_records("cameras", everything, config.results)
    return everything


def records_of(task_name: str, scorer: VLPScorer, config: Config) -> list[Record]:
    """Return the records of one task, one a kind of look."""
    segments = Segments.cut(Trajectories.load(config.data / f"{task_name}.npz"), config)
    task = Task(find_task(task_name).instruction)
    pairs = random_pairs(
        np.arange(config.n_segments), config.n_pairs, np.random.default_rng(config.seed)
    )

    def score(jolt: Jolt) -> Float[np.ndarray, " segments"]:
        clips = segments.drawn(scorer, jolt, config.segment_length)
        return np.asarray(scorer(clips, task), np.float64).ravel()

    started = time.perf_counter()
    still = score(STAYS)
    before = agreement(still, segments.env_return, pairs).all_pairs
    found = []
    for look, jolts in LOOKS.items():
        scores = [score(jolt) for jolt in jolts]
        kept = [agreement(each, still, pairs).all_pairs for each in scores]
        right = [agreement(each, segments.env_return, pairs).all_pairs for each in scores]
        metrics = {
            "labels as before": fmean(kept),
            "in the worst direction": min(kept),
            "rank correlation": fmean(spearmanr(each, still).statistic for each in scores),
            "agrees with return": fmean(right),
            "before": before,
        }
        found.append(
            Record.now(
                task=task_name,
                method=f"{config.method}, {look}",
                metrics={name: float(value) for name, value in metrics.items()},
                seconds=time.perf_counter() - started,
                seed=config.seed,
                scale=f"{config.n_segments} segments of {config.segment_length} steps a task, {config.n_pairs} pairs",
            )
        )
        started = time.perf_counter()
    return found


def mean_of(records: Sequence[Record]) -> Record:
    """Return the mean over tasks of one look."""
    first = records[0]
    metrics = {name: fmean(each.metrics[name] for each in records) for name in first.metrics}
    return Record.now(
        task="mean",
        method=first.method,
        metrics=metrics,
        seconds=sum(each.seconds for each in records),
        seed=first.seed,
        scale=first.scale,
    )


if __name__ == "__main__":
    measure(tyro.cli(Config, description=__doc__))
