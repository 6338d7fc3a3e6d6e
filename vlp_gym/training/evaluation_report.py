"""What an evaluation of a preference model found: figures by task, their means, as JSON and as a table."""

import math
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table

from vlp_gym.tasks.instructions import LANGUAGES
from vlp_gym.training.agreement import Calibration


@dataclass(frozen=True)
class TaskReport:
    """Figures of one task, each a mean over its held-out sentences; shares in [0, 1] unless said otherwise.

    None where the data have no two clips that a figure could compare.

    Attributes:
        task_name: the task.
        itp: order of whole trajectories by level, pairs of different level uniformly drawn.
        itp_of_return: how often the env's return itself orders these pairs by level: where experts are no better paid
            than others, whoever judges by what was done falls short of 1, too.
        expert_medium: as `itp`, of experts against medium ones alone.
        expert_random: of experts against random ones.
        medium_random: of medium against random ones.
        ivp: the task's trajectories over other tasks' trajectories, under its sentence.
        ilp_gap: mean |difference of score| of two trajectories of another task, in units of the score.
        ilp_delta: that, over the mean |difference| of two of the task's own.
        ilp_loss: the inter-language loss of these pairs (VLP eq. 5), ln 2 or more; a linear head sets no bound.
        windows: order of segments of any behaviour by the env's return.
        windows_clear: the same, on the half of the pairs with the larger gap of return.
        exploring: order of segments of exploring behaviour by the env's return.
        exploring_clear: the same, on the half with the larger gap.
        within_level: order of segments of one level by the env's return.
        succeeding: order of segments that are in success at some step, by how many of their steps are.
        rank_correlation: Spearman's, of the scores of segments with their return; in [-1, 1].
        opposite: of pairs of different level, those whose label turns round under a sentence of the task that
            undoes this one; None where there is no such task.
        opposite_moved: the same, of pairs of an expert with another: only there something was done that can be undone.
        calibration_error: mean |predicted probability - outcome| in ten bins, over the pairs of `itp`.
        paper_accuracy: label accuracy by the paper's protocol: k-means pairs of segments of experts, medium and
            random ones, against the env's return.
        paper_constant: what the better constant answer gets there.
        paper_balanced: mean of the accuracies of the two answers there; None where one is right of all pairs.
        paper_phi: correlation of labels and truth there; in [-1, 1].
        languages: `itp` and `ivp` under the sentences of every set, by name of the set.
    """

    task_name: str
    itp: float
    itp_of_return: float
    expert_medium: float
    expert_random: float
    medium_random: float
    ivp: float
    ilp_gap: float
    ilp_delta: float
    ilp_loss: float
    windows: float | None
    windows_clear: float | None
    exploring: float | None
    exploring_clear: float | None
    within_level: float | None
    succeeding: float | None
    rank_correlation: float
    opposite: float | None
    opposite_moved: float | None
    calibration_error: float
    paper_accuracy: float
    paper_constant: float
    paper_balanced: float | None
    paper_phi: float
    languages: dict[str, "LanguageReport"]


@dataclass(frozen=True)
class LanguageReport:
    """What is left of `itp` and `ivp` under sentences of one set of `vlp_gym.tasks.instructions.Language`."""

    itp: float
    ivp: float


FIGURES = tuple(
    field.name for field in fields(TaskReport) if field.name not in ("task_name", "languages")
)


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on the tasks of a split.

    Attributes:
        tasks: one report a task.
        beats: `beats[i, j]`: share of pairs in which a trajectory of task j has a higher score than one of task i under
            a sentence of task i; one half on the diagonal, [tasks, tasks].
        calibration: predicted probabilities against outcomes, one a task, over the pairs of `itp` and all sentences.
        about: which model, data and protocol; plain JSON. `twins` names the tasks of which the model has seen the scene
            and the sentences in training, in a task that undoes another, and those tasks.
    """

    tasks: tuple[TaskReport, ...]
    beats: Float[np.ndarray, "tasks tasks"]
    calibration: tuple[Calibration, ...]
    about: dict[str, Any]

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each figure over the tasks that have it; NaN where none has."""
        values = {name: [getattr(task, name) for task in self.tasks] for name in FIGURES}
        known = {name: [v for v in column if v is not None] for name, column in values.items()}
        return {name: fmean(column) if column else math.nan for name, column in known.items()}

    @property
    def mean_languages(self) -> dict[str, LanguageReport]:
        """Mean over the tasks of what is left under the sentences of every set."""
        return {
            language: LanguageReport(
                fmean(task.languages[language].itp for task in self.tasks),
                fmean(task.languages[language].ivp for task in self.tasks),
            )
            for language in LANGUAGES
        }

    @property
    def disclosure(self) -> str | None:
        """Which tasks the model knows in part, in plain words; None where it knows none."""
        if not (twins := self.about.get("twins")):
            return None
        said = ", ".join(f"{name} ({twin})" for name, twin in twins.items())
        return (
            f"scene and training sentences known from a training task that undoes another: {said}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON; null where nothing was observed."""
        names = [task.task_name for task in self.tasks]
        return {
            **self.about,
            "tasks": {
                task.task_name: {
                    **{name: getattr(task, name) for name in FIGURES},
                    "languages": {name: asdict(each) for name, each in task.languages.items()},
                }
                for task in self.tasks
            },
            "languages": {name: asdict(each) for name, each in self.mean_languages.items()},
            "mean": {k: None if math.isnan(v) else v for k, v in self.mean.items()},
            "beats": {
                name: dict(zip(names, row.tolist(), strict=True))
                for name, row in zip(names, self.beats, strict=True)
            },
            "calibration": {
                name: {
                    "predicted": [None if np.isnan(p) else float(p) for p in curve.predicted],
                    "observed": [None if np.isnan(p) else float(p) for p in curve.observed],
                    "count": curve.count.tolist(),
                    "error": curve.error,
                }
                for name, curve in zip(names, self.calibration, strict=True)
            },
        }

    def __rich__(self) -> Table:
        """Return the figures as a table, tasks in columns."""
        mean = self.mean
        table = Table("figure", *[task.task_name for task in self.tasks], "mean")
        for name in FIGURES:
            values = [*(getattr(task, name) for task in self.tasks), mean[name]]
            table.add_row(name, *["-" if value is None else f"{value:.3f}" for value in values])
        for language, together in self.mean_languages.items():
            for name in ("itp", "ivp"):
                each = [getattr(task.languages[language], name) for task in self.tasks]
                cells = [f"{value:.3f}" for value in [*each, getattr(together, name)]]
                table.add_row(f"{name}, {language}", *cells)
        table.caption = self.disclosure
        return table
