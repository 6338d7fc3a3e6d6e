"""The picture of a run: success and label accuracy over environment steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlp_gym.atomic import atomic_path

BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#a0aec0"


def draw_curves(
    path: Path,
    evaluations: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
    title: str,
) -> None:
    """Write a PNG: success of the policy above, accuracy of the labels below.

    Args:
        path: where to.
        evaluations: rows with `step` and `success`.
        sessions: rows with `step` and `label_accuracy`; none without feedback.
        title: what the run was.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6, 4 if sessions else 2.6), layout="constrained")
    rows = figure.subplots(2 if sessions else 1, 1, sharex=True, squeeze=False)[:, 0]
    _plot(rows[0], evaluations, "success", BLUE)
    rows[0].set_title(title, loc="left", fontsize=10)
    if sessions:
        _plot(rows[1], sessions, "label_accuracy", ORANGE)
        rows[1].axhline(0.5, color=GREY, linewidth=1, linestyle=":")
    rows[-1].set_xlabel("environment steps")
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=150)


def _plot(axes: Any, rows: Sequence[Mapping[str, Any]], column: str, colour: str) -> None:
    points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
    axes.plot(
        *zip(*points, strict=True), color=colour, marker="o", markersize=3
    ) if points else None
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(column.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)
