"""Runs of `agents.pebble` that benchmarks compare: kept in folders, gone on with, never run twice, never mixed up."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agents import pebble
from agents.statistics import bootstrap_interval, interquartile_mean
from benchmarks import kept_runs
from benchmarks.schema import Record

COLOURS = {"vlp": "#2b6cb0", "oracle": "#2f855a", "env": "#718096"}
NAMES = {"vlp": "labels of VLP", "oracle": "labels of the oracle", "env": "the simulator's reward"}


def settings(base: pebble.Config, method: str, seed: int, folder: Path) -> pebble.Config:
    """Return the run of one method and seed."""
    if method == "env":
        return replace(base, reward="env", seed=seed, out=folder)
    if method not in ("vlp", "oracle"):
        raise ValueError(f"methods are vlp, oracle and env, got {method!r}")
    labeler: Any = method
    return replace(base, labeler=labeler, reward="learned", seed=seed, out=folder)


def finished(config: pebble.Config, folder: Path) -> dict[str, Any]:
    """Return the result of a run: of the one on disk, of one that goes on, or of a new one."""
    return kept_runs.finished(config, folder, pebble.learn, pebble.go_on, deciding)


def deciding(config: pebble.Config) -> pebble.Config:
    """Return a config less what decides none of a run's numbers; an agent that the simulator pays asks nobody."""
    config = replace(config, quiet=False)
    return replace(config, feedback=pebble.DEMO.feedback) if config.reward == "env" else config


def scale_of(config: pebble.Config) -> str:
    """Return how large a run is."""
    return f"{config.steps:,} steps, {config.final_episodes} evaluation episodes"


def record_of(config: pebble.Config, folder: Path) -> Record:
    """Return a run in the form of every benchmark; done, or gone on with, where it is not finished."""
    result = finished(config, folder)
    before, after, series = result["before"], result["after"], curve_in(folder)
    metrics = {
        "success before": before["success"],
        "success after": after["success"],
        "success at the last step": after["final_success"],
        "best on the way": best_on_the_way(series),
        "queries": after.get("queries"),
        "label accuracy": after.get("label_accuracy"),
        "minutes": after["seconds"] / 60,
    }
    return Record(
        task=result["task"],
        method=NAMES[result["method"]],
        seed=result["seed"],
        scale=scale_of(config),
        metrics={name: value for name, value in metrics.items() if value is not None},
        series=series,
        seconds=after["seconds"],
        **{name: result[name] for name in ("commit", "machine", "versions")},
    )


def curve_in(folder: Path) -> dict[str, list[float]]:
    """Return the success of a run's policy over environment steps."""
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in ("step", "success")}


def best_on_the_way(series: Mapping[str, Sequence[float]]) -> float | None:
    """Return the highest success of the evaluations after the first step, which flatters: chance picks it, too.

    >>> best_on_the_way({"step": [0, 1000, 2000], "success": [1.0, 0.4, 0.2]})
    0.4
    """
    learned = [
        success for step, success in zip(series["step"], series["success"], strict=True) if step > 0
    ]
    return max(learned, default=None)


def draw_success(axes: Any, records: Sequence[Record]) -> None:
    """Draw success over environment steps, one line a run, a colour a method.

    Of several runs of a method at the same steps the mean of the middle half is drawn, too, and how far chance moves
    it: the 95 % of a bootstrap over seeds, apart in every task.
    """
    for method, name in NAMES.items():
        runs = [record for record in records if record.method == name and record.series]
        curves = [np.array(record.series["success"]) for record in runs]
        for record, curve in zip(runs, curves, strict=True):
            axes.plot(record.series["step"], curve, color=COLOURS[method], alpha=0.25, linewidth=1)
        if runs:
            step = runs[0].series["step"]
            of_task = [
                [curve for record, curve in zip(runs, curves, strict=True) if record.task == task]
                for task in dict.fromkeys(record.task for record in runs)
            ]
            middle, low, high = np.transpose([
                middle_of([[curve[i] for curve in each] for each in of_task])
                for i in range(len(step))
            ])  # fmt: skip
            axes.plot(step, middle, color=COLOURS[method], label=name)
            axes.fill_between(step, low, high, color=COLOURS[method], alpha=0.15, linewidth=0)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("environment steps")
    axes.spines[["top", "right"]].set_visible(False)


def middle_of(of_task: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the mean of the middle half of what every seed reached in every task, and its 95 % interval.

    Where tasks have unlike numbers of seeds, those that all have are taken.
    """
    n_seeds = min(map(len, of_task))
    values = np.array([each[:n_seeds] for each in of_task], float)
    return interquartile_mean(values), *bootstrap_interval(values)
