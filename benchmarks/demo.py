"""The demo over seeds, from VLP's labels, the oracle's and the simulator's own reward.

`python -m benchmarks.demo` writes `results/demo.json` and `results/demo.png`. Finished runs are kept, a
stopped one goes on from its checkpoint, so it can be called until it is done.
"""

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from agents import pebble, run
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.atomic import atomic_path

COLOURS = {"vlp": "#2b6cb0", "oracle": "#2f855a", "env": "#718096"}
NAMES = {"vlp": "labels of VLP", "oracle": "labels of the oracle", "env": "the simulator's reward"}


@dataclass(frozen=True)
class Config:
    """Which runs the comparison is made of."""

    base: pebble.Config = field(default_factory=lambda: pebble.DEMO)
    """The run; its labeler, reward, seed and folder are set here."""
    methods: tuple[str, ...] = ("vlp", "oracle", "env")
    seeds: tuple[int, ...] = (0, 1, 2)
    runs: Path = Path("runs/demo")
    """Where the runs are kept."""
    results: Path = RESULTS
    """Where the records and the figure go."""


def compare(config: Config) -> list[Record]:
    """Run what is missing and write what has been measured, after every run."""
    records: list[Record] = []
    order = [NAMES[method] for method in config.methods]
    # Seeds outside: after the first third of the time every method has one.
    for seed in config.seeds:
        for method in config.methods:
            folder = config.runs / f"{method}-seed{seed}"
            records.append(record_of(finished(settings(config, method, seed, folder), folder)))
            records.sort(key=lambda record: order.index(record.method))
            write_records("demo", records, config.results)
    draw(config)
    return records


def settings(config: Config, method: str, seed: int, folder: Path) -> pebble.Config:
    """Return the run of one method and seed."""
    if method == "env":
        return replace(config.base, reward="env", seed=seed, out=folder)
    if method not in ("vlp", "oracle"):
        raise ValueError(f"methods are vlp, oracle and env, got {method!r}")
    labeler: Any = method
    return replace(config.base, labeler=labeler, reward="learned", seed=seed, out=folder)


def finished(config: pebble.Config, folder: Path) -> dict[str, Any]:
    """Return the result of a run: of the one on disk, of one that goes on, or of a new one."""
    if (folder / "result.json").exists():
        check_same(config, folder)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result
    if run.checkpoints(folder):
        check_same(config, folder)
        return pebble.go_on(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return pebble.learn(config)


def check_same(config: pebble.Config, folder: Path) -> None:
    """Refuse a run folder of other settings: its numbers would stand under the wrong name.

    Raises:
        ValueError: the folder holds another run.
    """
    if deciding(run.read_config(folder, pebble.Config)) != deciding(config):
        raise ValueError(
            f"{folder} holds a run with other settings; remove it or name other --runs"
        )


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


def draw(config: Config) -> None:
    """Write the figure: success over environment steps, one line a run."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for method in config.methods:
        for number, seed in enumerate(config.seeds):
            with (config.runs / f"{method}-seed{seed}" / "curve.csv").open() as file:
                rows = [(int(row["step"]), float(row["success"])) for row in csv.DictReader(file)]
            label = NAMES[method] if number == 0 else None
            axes.plot(*zip(*rows, strict=True), color=COLOURS[method], alpha=0.8, label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("success")
    axes.set_title(f'{config.base.task}: "{pebble.instruction_of(config.base)}"', loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with atomic_path(config.results / "demo.png") as draft:
        figure.savefig(draft, dpi=150)


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
