"""How good a labeler is before any learning: accuracy, balance, correlation, words, time, and what to beware of."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import binomtest, spearmanr

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.feedback.queries import uniform_queries
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.agreement import LabelQuality
from vlp_gym.training.labelling import ORACLE, looking_labeler, named_scorer, task_of
from vlp_gym.training.paper_protocol import PAPER_PAIRS, two_sets
from vlp_gym.types import Labeler, Labels, Pair, Segment, Task

logger = logging.getLogger(__name__)

SURE = 0.05
"""Chance at most that a labeler without any opinion is called anti-correlated on a task."""
ONE_SIDED = 0.9
"""Share of one answer from which a labeler is called one-sided, where the truth is less so."""


@dataclass(frozen=True)
class PairQuality:
    """Labels of pairs against the simulator's return; pairs of equal return and labels of 0.5 are left out.

    Attributes:
        accuracy: share of labels that prefer the segment of higher return; None where nothing can be told.
        constant: what the better constant answer gets on the same pairs.
        balanced: mean of the accuracies on pairs whose first, and whose second, is truly better; None where all pairs
            are of one kind.
        phi: correlation of labels and truth, in [-1, 1]; 0 of a constant answer.
        balance: share of labels above 0.5.
        n_labels: how many labels were compared.
        p_below_chance: how likely so few right labels, or fewer, are by tossing a coin.
    """

    accuracy: float | None
    constant: float | None
    balanced: float | None
    phi: float | None
    balance: float | None
    n_labels: int
    p_below_chance: float | None


def pair_quality(
    label: Float[np.ndarray, " pairs"], gap: Float[np.ndarray, " pairs"]
) -> PairQuality:
    """Return the quality of labels, given the return of the second segment minus that of the first.

    >>> pair_quality(np.array([1.0, 0.0, 0.5, np.nan]), np.array([2.0, 1.0, 1.0, 1.0])).accuracy
    0.5
    """
    told = np.isfinite(label) & (label != 0.5) & (gap != 0)
    if not told.any():
        return PairQuality(None, None, None, None, None, 0, None)
    said, right = label[told] > 0.5, gap[told] > 0
    quality = LabelQuality.of(said.astype(float), right)
    n_right = int((said == right).sum())
    return PairQuality(
        accuracy=quality.accuracy,
        constant=quality.constant,
        balanced=quality.balanced,
        phi=quality.phi,
        balance=float(said.mean()),
        n_labels=len(said),
        p_below_chance=float(binomtest(n_right, len(said), alternative="less").pvalue),
    )


@dataclass(frozen=True)
class LabeledTask:
    """What a labeler said of one task.

    Attributes:
        task_name: the task.
        uniform: of pairs of segments that are cut anywhere.
        paper: of the paper's pairs: two sets of trajectories by k-means, one segment of each.
        rank_correlation: Spearman's, of scores of segments with their return, in [-1, 1]; None without scores.
        ties: share of pairs labelled exactly 0.5.
        not_labelled: share of pairs that were abstained from or failed.
        seconds_per_clip: time of a label over the segments that it took, drawing included.
        seconds_drawing: of that, drawing; None where the labeler does not tell.
        labels: of the uniform pairs and then the paper's, NaN without a label, float32 [pairs].
    """

    task_name: str
    uniform: PairQuality
    paper: PairQuality
    rank_correlation: float | None
    ties: float
    not_labelled: float
    seconds_per_clip: float
    seconds_drawing: float | None
    labels: Float[np.ndarray, " pairs"]


@dataclass(frozen=True)
class LabelerReport:
    """What a labeler said of the tasks of a split.

    Attributes:
        labeler: its name.
        tasks: one entry a task.
        sentences: `sentences[i, j]`: accuracy of labels of task i's pairs under task j's sentence; a labeler that
            reads has its largest numbers on the diagonal, one that does not has the same in a whole row. NaN where
            nothing can be told, [tasks, tasks].
        warnings: what to beware of, in plain words.
        about: which data and protocol; plain JSON.
    """

    labeler: str
    tasks: tuple[LabeledTask, ...]
    sentences: Float[np.ndarray, "tasks tasks"]
    warnings: tuple[str, ...]
    about: dict[str, Any]

    def mean(self, figure: str, kind: str = "uniform") -> float | None:
        """Return the mean of a figure over the tasks that have it."""
        values = [getattr(getattr(task, kind), figure) for task in self.tasks]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON; null where nothing was observed."""
        names = [task.task_name for task in self.tasks]
        return {
            "labeler": self.labeler,
            **self.about,
            "warnings": list(self.warnings),
            "tasks": {
                task.task_name: {**asdict(task), "labels": _nullable(task.labels)}
                for task in self.tasks
            },
            "sentences": {
                name: dict(zip(names, _nullable(row), strict=True))
                for name, row in zip(names, self.sentences, strict=True)
            },
        }

    def __rich__(self) -> Table:
        """Return the figures as a table, tasks in columns, the warnings below it."""
        table = Table(self.labeler, *[task.task_name for task in self.tasks], "mean")
        for kind in ("uniform", "paper"):
            for figure in ("accuracy", "constant", "balanced", "phi", "balance"):
                values = [getattr(getattr(task, kind), figure) for task in self.tasks]
                table.add_row(f"{kind}: {figure}", *map(_cell, [*values, self.mean(figure, kind)]))
        for figure in ("rank_correlation", "ties", "not_labelled", "seconds_per_clip"):
            values = [getattr(task, figure) for task in self.tasks]
            known = [value for value in values if value is not None]
            table.add_row(figure, *map(_cell, [*values, fmean(known) if known else None]))
        table.caption = "\n".join(self.warnings) or None
        return table


def agreement_of(reports: Sequence[LabelerReport]) -> Float[np.ndarray, "labelers labelers"]:
    """Return the share of pairs that every two labelers label alike, ties and pairs without a label left out.

    Raises:
        ValueError: they were not asked about the same pairs.
    """
    labels = [np.concatenate([task.labels for task in each.tasks]) for each in reports]
    if len({len(each) for each in labels}) > 1 or len({str(each.about) for each in reports}) > 1:
        raise ValueError(
            "these reports are of different pairs; make them with the same data, split, n_pairs and seed"
        )
    shares = np.full((len(labels), len(labels)), np.nan)
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            told = np.isfinite(first) & np.isfinite(second) & (first != 0.5) & (second != 0.5)
            if told.any():
                shares[i, j] = ((first > 0.5) == (second > 0.5))[told].mean()
    return shares


@dataclass(frozen=True)
class ReportConfig:
    """Which labeler to report on; fields as of `vlp_gym.training.evaluation.EvaluateConfig`."""

    labeler: str = "vlp"
    checkpoint: Path | str | None = None
    settings: tuple[str, ...] = ()
    data: Path = Path("data/graded-0")
    split: str = "paper"
    n_pairs: int = PAPER_PAIRS
    n_sentence_pairs: int = 20
    """Pairs a task that are labelled under the sentences of the other tasks, too."""
    segment_length: int = 50
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    @classmethod
    def of(cls, evaluate: Any) -> "ReportConfig":
        """Return the config that an `EvaluateConfig` with a labeler means."""
        same = ("labeler", "settings", "data", "split", "seed", "device", "out")
        return cls(
            checkpoint=None if evaluate.checkpoint is None else str(evaluate.checkpoint),
            n_pairs=evaluate.n_pairs or PAPER_PAIRS,
            **{name: getattr(evaluate, name) for name in same},
        )


def report(config: ReportConfig) -> LabelerReport:
    """Return what a labeler says of the test tasks of a split, each task under its default sentence.

    Raises:
        UnknownNameError: no such labeler, setting or split.
        CheckpointError: the checkpoint or the data are missing or damaged.
    """
    names = find_split(config.split).test
    scorer = None
    if config.labeler != ORACLE:
        scorer = named_scorer(config.labeler, config.checkpoint, config.device, config.settings)
    data = [Trajectories.load(config.data / f"{name}.npz") for name in names]
    sentences = [find_task(name).instruction for name in names]
    tasks, rows = [], []
    for each in data:
        labeler = OracleLabeler() if scorer is None else looking_labeler(each, scorer)
        task, row = report_task(each, labeler, sentences, config)
        tasks.append(task)
        rows.append(row)
        if isinstance(labeler, ScoreLabeler):
            labeler.scene.close()  # type: ignore[attr-defined]  # the scene of a task
    name = ORACLE if scorer is None else scorer.name
    about = {
        "split": config.split,
        "n_pairs": config.n_pairs,
        "segment_length": config.segment_length,
        "seed": config.seed,
        "fingerprints": {each.task_name: each.fingerprint() for each in data},
    }
    found = LabelerReport(name, tuple(tasks), np.stack(rows), warnings_of(name, tasks), about)
    for warning in found.warnings:
        logger.warning(warning)
    if config.out is not None:
        from vlp_gym.training.labeler_page import write_labeler_page  # noqa: PLC0415

        atomic_write_text(config.out, json.dumps(found.as_json(), indent=1) + "\n")
        write_labeler_page([found], config.out.with_suffix(".png"))
    return found


def report_task(
    data: Trajectories, labeler: Labeler, sentences: Sequence[str], config: ReportConfig
) -> tuple[LabeledTask, Float[np.ndarray, " sentences"]]:
    """Return what a labeler says of one task, and its accuracy under every sentence."""
    task = task_of(data, None, labeler)
    pairs = [*_uniform(data, task, config), *_paper(data, task, config)]
    started = perf_counter()
    labels = labeler(pairs)
    seconds = perf_counter() - started
    value = labels.value
    gap = np.array([pair.second.env_return - pair.first.env_return for pair in pairs])
    half = config.n_pairs
    segments = {
        (id(each.episode), each.start): each for pair in pairs for each in (pair.first, pair.second)
    }
    drawing = getattr(labeler, "seconds", {}).get("draw")
    found = LabeledTask(
        task_name=data.task_name,
        uniform=pair_quality(value[:half], gap[:half]),
        paper=pair_quality(value[half:], gap[half:]),
        rank_correlation=_rank_correlation(pairs, labels),
        ties=float((value == 0.5).mean()),
        not_labelled=float((~labels.labelled).mean()),
        seconds_per_clip=seconds / len(segments),
        seconds_drawing=None if drawing is None else drawing / len(segments),
        labels=value,
    )
    n = min(config.n_sentence_pairs, half)
    row = [
        pair_quality(labeler(_asked(pairs[:n], replace(task, instruction=each))).value, gap[:n])
        for each in sentences
    ]
    accuracies = [np.nan if each.accuracy is None else each.accuracy for each in row]
    return found, np.array(accuracies)


def _asked(pairs: Sequence[Pair], task: Task) -> list[Pair]:
    return [replace(pair, task=task) for pair in pairs]


def _uniform(data: Trajectories, task: Task, config: ReportConfig) -> list[Pair]:
    episodes = [data.episode(row) for row in range(len(data))]
    rng = np.random.default_rng(config.seed)
    return uniform_queries(episodes, config.n_pairs, config.segment_length, task, rng)


def _paper(data: Trajectories, task: Task, config: ReportConfig) -> list[Pair]:
    """Return pairs of segments of one set of trajectories and the other, cut anywhere."""
    sets, rng = two_sets(data, config.seed), np.random.default_rng(config.seed + 1)
    episodes = {row: data.episode(int(row)) for row in np.flatnonzero(sets >= 0)}

    def cut(which: int) -> Segment:
        row = rng.choice(np.flatnonzero(sets == which))
        start = int(rng.integers(data.n_steps - config.segment_length + 1))
        return Segment(episodes[row], start, config.segment_length)

    return [Pair(cut(0), cut(1), task) for _ in range(config.n_pairs)]


def _rank_correlation(pairs: Sequence[Pair], labels: Labels) -> float | None:
    if "first_score" not in labels.extra:
        return None
    score = np.concatenate([labels.extra["first_score"], labels.extra["second_score"]])
    segments = [*(pair.first for pair in pairs), *(pair.second for pair in pairs)]
    env_return = np.array([each.env_return for each in segments])
    told = np.isfinite(score)
    if len(set(score[told])) < 2 or len(set(env_return[told])) < 2:
        return None
    return float(spearmanr(score[told], env_return[told]).statistic)


def warnings_of(name: str, tasks: Sequence[LabeledTask]) -> tuple[str, ...]:
    """Return what to beware of: labels below chance, one-sided ones, and missing ones."""
    found = []
    for task in tasks:
        for kind, quality in (("", task.uniform), (" of the paper's protocol", task.paper)):
            if quality.p_below_chance is not None and quality.p_below_chance < SURE:
                found.append(
                    f"{name} is anti-correlated on {task.task_name}: only {quality.accuracy:.0%} of its "
                    f"{quality.n_labels} labels{kind} agree with the return, fewer than by chance; a reward made of "
                    "them teaches the opposite"
                )
        balance, constant = task.uniform.balance, task.uniform.constant
        if (
            balance is not None
            and constant is not None
            and max(balance, 1 - balance) > max(ONE_SIDED, constant)
        ):
            found.append(
                f"{name} is one-sided on {task.task_name}: {max(balance, 1 - balance):.0%} of its labels are the same "
                f"answer, which the truth is in {constant:.0%}"
            )
        if task.not_labelled > 0:
            found.append(
                f"{name} left {task.not_labelled:.0%} of the pairs of {task.task_name} without a label"
            )
    return tuple(found)


def _nullable(values: NDArray[Any]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
