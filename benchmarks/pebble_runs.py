"""Runs of `agents.pebble` that benchmarks compare: kept in folders, gone on with, never run twice, never mixed up."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents import pebble
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


def record_of(result: Mapping[str, Any]) -> Record:
    """Return a run's result in the form of every benchmark."""
    before, after = result["before"], result["after"]
    metrics = {
        "success before": before["success"],
        "success after": after["success"],
        "success at the last step": after["final_success"],
        "queries": after.get("queries"),
        "label accuracy": after.get("label_accuracy"),
        "minutes": after["seconds"] / 60,
    }
    return Record(
        task=result["task"],
        method=NAMES[result["method"]],
        seed=result["seed"],
        scale=f"{after['step']:,} steps, {after['episodes']} evaluation episodes",
        metrics={name: value for name, value in metrics.items() if value is not None},
        seconds=after["seconds"],
        **{name: result[name] for name in ("commit", "machine", "versions")},
    )


def draw_success(axes: Any, runs: Mapping[str, Sequence[Path]]) -> None:
    """Draw success over environment steps, one line a run, a colour a method: folders of runs by method."""
    for method, folders in runs.items():
        for number, folder in enumerate(folders):
            with (folder / "curve.csv").open(encoding="utf-8") as file:
                rows = [(int(row["step"]), float(row["success"])) for row in csv.DictReader(file)]
            label = NAMES[method] if number == 0 else None
            axes.plot(*zip(*rows, strict=True), color=COLOURS[method], alpha=0.8, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("environment steps")
    axes.spines[["top", "right"]].set_visible(False)
