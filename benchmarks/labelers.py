"""Labelers beside each other, before any learning: accuracy, balance, correlation, words, agreement, time.

`python -m benchmarks.labelers` writes `results/labelers.json` and `results/labelers.png`. A labeler is its name and
then settings of its scorer: `--labelers oracle "vlmrm alpha=1.0 checkpoint=clip.safetensors model=ViT-B-16-quickgelu"`.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.paper import CORRELATION, LABEL_ACCURACY
from benchmarks.schema import RESULTS, Record, write_records
from benchmarks.scorer_words import STAND_IN, ScorerWords
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.labeler_page import write_labeler_page
from vlp_gym.training.labeler_report import LabeledTask, LabelerReport, ReportConfig, report


@dataclass(frozen=True)
class Config:
    """Which labelers, and by which pairs."""

    labelers: tuple[str, ...] = ("oracle", "vlp", "clip checkpoint=bundled n_frames=4")
    """Each a name and settings of its scorer, NAME=VALUE."""
    data: Path = Path("data/graded-0")
    """Folder that `vlp collect` wrote."""
    split: str = "paper"
    n_pairs: int = 100
    """Pairs of every kind and task (VLP)."""
    n_sentence_pairs: int = 20
    segment_length: int = 50
    seed: int = 0
    device: str = "auto"
    results: Path = RESULTS


def config_of(labeler: str, config: Config) -> ReportConfig:
    """Return the config of one labeler's report."""
    asked = ScorerWords.read(labeler)
    return ReportConfig(
        labeler=asked.name,
        checkpoint=asked.checkpoint,
        settings=asked.settings,
        data=config.data,
        split=config.split,
        n_pairs=config.n_pairs,
        n_sentence_pairs=config.n_sentence_pairs,
        segment_length=config.segment_length,
        seed=config.seed,
        device=config.device,
    )


def compare(config: Config) -> list[LabelerReport]:
    """Report on all labelers and write the records and the figure."""
    reports, records = [], []
    for labeler in config.labelers:
        started = time.perf_counter()
        found = report(config_of(labeler, config))
        reports.append(found)
        seconds = time.perf_counter() - started
        records += [record_of(task, found, labeler, config, seconds) for task in found.tasks]
        write_records("labelers", records, config.results)
    write_labeler_page(reports, config.results / "labelers.png")
    return reports


def record_of(
    task: LabeledTask, found: LabelerReport, labeler: str, config: Config, seconds: float
) -> Record:
    """Return the record of one labeler on one task."""
    metrics = {
        "labels": task.uniform.accuracy,
        "constant answer": task.uniform.constant,
        "above 0.5": task.uniform.balance,
        "k-means labels": task.paper.accuracy,
        "k-means, constant": task.paper.constant,
        "rank correlation": task.rank_correlation,
        "seconds a clip": task.seconds_per_clip,
    }
    return Record.now(
        task=task.task_name,
        method=found.labeler.partition(":")[0] if STAND_IN not in found.labeler else found.labeler,
        metrics={name: value for name, value in metrics.items() if value is not None},
        paper=paper_of(task.task_name, labeler, found, config),
        seed=config.seed,
        scale=f"{config.n_pairs} pairs of each kind, segments of {config.segment_length} steps",
        seconds=seconds / len(found.tasks),
    )


def paper_of(
    task_name: str, labeler: str, found: LabelerReport, config: Config
) -> dict[str, float]:
    """Return what the paper prints for a labeler on a task; nothing for a stand-in."""
    name = ScorerWords.read(labeler).printed
    if config.split != "paper" or STAND_IN in found.labeler:
        return {}
    place = find_split("paper").test.index(task_name)
    printed: dict[str, float] = {}
    if name in LABEL_ACCURACY:
        printed["k-means labels"] = LABEL_ACCURACY[name][place] / 100
    if name in CORRELATION:
        printed["rank correlation"] = CORRELATION[name][place]
    return printed


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
