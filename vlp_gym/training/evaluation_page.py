"""One page of pictures of a model's figures."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_gym.atomic import atomic_path
from vlp_gym.training.evaluation_report import Evaluation

BARS = {
    "pairs of trajectories": ("expert_random", "medium_random", "expert_medium", "ivp"),
    "pairs of segments, against the return": ("windows", "exploring", "within_level"),
    "the paper's protocol": ("paper_accuracy", "paper_constant", "paper_balanced"),
}
COLOURS = ("#2b6cb0", "#2f855a", "#b7791f", "#718096")


def write_page(result: Evaluation, path: Path) -> None:
    """Write bars of the shares, the calibration curves, and which tasks are taken for which, as a PNG."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    for ax, (title, names) in zip(axes.flat, BARS.items(), strict=False):
        _bars(ax, result, title, names)
    _calibration(axes[1, 0], result)
    _confusion(axes[1, 1], result)
    _text(axes[1, 2], result)
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=130)


def _bars(ax: Axes, result: Evaluation, title: str, figures: tuple[str, ...]) -> None:
    place, width = np.arange(len(result.tasks)), 1 / (len(figures) + 1)
    for i, name in enumerate(figures):
        heights = [
            getattr(task, name) or 0.0 for task in result.tasks
        ]  # no bar of what has no pairs
        label = name.replace("_", " ")
        ax.bar(place + i * width, heights, width, label=label, color=COLOURS[i])
    ax.axhline(0.5, color="black", linewidth=0.6, linestyle=":")
    ax.set_xticks(
        place + 0.3, [task.task_name for task in result.tasks], rotation=25, ha="right", fontsize=7
    )
    ax.set_ylim(0, 1.02)
    ax.set_title(title, loc="left", fontsize=9)
    ax.legend(fontsize=6, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)


def _calibration(ax: Axes, result: Evaluation) -> None:
    for task, curve in zip(result.tasks, result.calibration, strict=True):
        ax.plot(curve.predicted, curve.observed, marker=".", label=task.task_name)
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
    ax.set_xlabel("predicted probability", fontsize=8)
    ax.set_ylabel("share that was better", fontsize=8)
    ax.set_title("calibration, pairs of trajectories", loc="left", fontsize=9)
    ax.legend(fontsize=6)


def _confusion(ax: Axes, result: Evaluation) -> None:
    names = [task.task_name for task in result.tasks]
    heat_map(ax, result.beats, names, names, "row's sentence: column beats row")


def heat_map(
    ax: Axes,
    shares: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
) -> None:
    """Draw a matrix of shares, each with its number; empty where there is none."""
    ax.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (i, j), share in np.ndenumerate(shares):
        colour = "white" if share > 0.6 else "black"
        text = "" if np.isnan(share) else f"{share:.2f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    ax.set_xticks(range(len(columns)), columns, rotation=25, ha="right", fontsize=7)
    ax.set_yticks(range(len(rows)), rows, fontsize=7)
    ax.set_title(title, loc="left", fontsize=9)


def _text(ax: Axes, result: Evaluation) -> None:
    ax.axis("off")
    lines = [f"{name.replace('_', ' '):<18} {value:6.3f}" for name, value in result.mean.items()]
    said = "" if result.disclosure is None else "\n" + fill(result.disclosure, 46)
    ax.text(
        0, 1, "\n".join(["mean over tasks", *lines, said]), va="top", family="monospace", fontsize=7
    )
