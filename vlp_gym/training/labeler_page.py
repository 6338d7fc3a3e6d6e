"""One page of pictures of what labelers say: accuracy by task, sentences, and how far labelers agree."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_gym.atomic import atomic_path
from vlp_gym.training.evaluation_page import heat_map
from vlp_gym.training.labeler_report import LabelerReport, agreement_of


def write_labeler_page(reports: Sequence[LabelerReport], path: Path) -> None:
    """Write the accuracies of labelers on every task, their sentences, and their agreement, as a PNG."""
    n_maps = len(reports) + (len(reports) > 1)
    columns = 2
    rows = -(-n_maps // columns)
    figure = Figure(figsize=(5 * columns, 3 + 4.2 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[3] + [4.2] * rows)
    _accuracies(figure.add_subplot(grid[0, :]), reports)
    axes = [figure.add_subplot(grid[1 + i // columns, i % columns]) for i in range(n_maps)]
    for ax, each in zip(axes, reports, strict=False):
        names = [task.task_name for task in each.tasks]
        title = f"{short(each.labeler)}:\nrow's pairs, column's sentence"
        heat_map(ax, each.sentences, names, names, title)
    if len(reports) > 1:
        names = [short(each.labeler) for each in reports]
        heat_map(
            axes[-1], agreement_of(reports), names, names, "same label, uniform and paper's pairs"
        )
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=130)


def short(labeler: str) -> str:
    """Return the name of a labeler with the beginning of its fingerprint.

    >>> short("vlp:f96c1784d62860767a93bd685c43e127")
    'vlp:f96c1784'
    """
    return re.sub(r"[0-9a-f]{12,}", lambda found: found[0][:8], labeler)


def _accuracies(ax: Axes, reports: Sequence[LabelerReport]) -> None:
    names = [task.task_name for task in reports[0].tasks]
    place, width = np.arange(len(names)), 1 / (len(reports) + 1)
    for i, each in enumerate(reports):
        ax.bar(place + i * width, _values(each, "accuracy"), width, label=short(each.labeler))
    constant = _values(reports[0], "constant")
    left = place - width / 2
    ax.hlines(
        constant, left, left + len(reports) * width, "black", linewidth=0.8, label="constant answer"
    )
    ax.axhline(0.5, color="black", linewidth=0.6, linestyle=":")
    ax.set_xticks(place + (len(reports) - 1) * width / 2, names, fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.set_title("labels that agree with the return, uniform pairs", loc="left", fontsize=9)
    ax.legend(fontsize=6, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.12), frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def _values(report: LabelerReport, figure: str) -> Float[np.ndarray, " tasks"]:
    values = [getattr(task.uniform, figure) for task in report.tasks]
    return np.array([np.nan if value is None else value for value in values], float)
