"""PEBBLE on the paper's five unseen tasks, from VLP's labels, the oracle's and the simulator's own reward.

`python -m benchmarks.online` writes `results/online.json` and `results/online.png` from all runs that are finished.
A run is the demo's, with another task; those of the demo itself are taken from `results/demo.json`. With
`--tasks ButtonPress --seeds 0` it does a part; parts may run side by side, in any order and on several machines: what
the JSON already has stays, and is not run again. A stopped run goes on; one that another process is at is left to it,
so that the same command in several processes shares the work.
`--scorers "vlmrm checkpoint=clip.safetensors alpha=0.5" "roboclip checkpoint=s3d.pth"` adds agents that a scorer pays,
with files that you bring.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import tyro

from agents import pebble
from benchmarks import scored_runs
from benchmarks.pebble_runs import (
    NAMES,
    draw_success,
    finished,
    middle_of,
    record_of,
    scale_of,
    settings,
)
from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from benchmarks.scorer_words import ScorerWords, check_scorers
from vlp_gym.atomic import atomic_path
from vlp_gym.errors import BusyRunError
from vlp_gym.tasks.splits import find_split

FIVE = find_split("paper").test
SHARES = ("success before", "success after", "success at the last step")


@dataclass(frozen=True)
class Config:
    """Which runs to do; what is written is made of all that are on disk and in the JSON."""

    base: pebble.Config = field(default_factory=lambda: pebble.DEMO)
    """A run; its task, labeler, reward, seed and folder are set here."""
    tasks: tuple[str, ...] = FIVE
    methods: tuple[str, ...] = tuple(NAMES)
    seeds: tuple[int, ...] = (0, 1, 2)
    runs: Path = Path("runs/online")
    """Where the runs are kept."""
    results: Path = RESULTS
    """Where the records and the figure go."""
    scorers: tuple[str, ...] = ()
    """Agents paid by a scorer, each its name and settings, NAME=VALUE, as in `benchmarks.labelers`."""
    name: str = "online"
    """What the JSON and the figure are called."""

    def __post_init__(self) -> None:
        """Refuse tasks that the bundled model was trained on, and other settings under the same name."""
        if not set(self.tasks) <= set(FIVE):
            raise ValueError(f"tasks must be of {', '.join(FIVE)}; got {', '.join(self.tasks)}")
        if (self.name, self.results) == ("online", RESULTS) and not is_demo(self.base):
            raise ValueError(
                "results/online.json is of the demo's settings, and what it has would be taken for runs of yours; give "
                "others a --name of their own, and --runs"
            )
        check_scorers(self.scorers)


class Run(NamedTuple):
    """One run and where it is kept."""

    task: str
    method: str
    seed: int
    config: pebble.Config
    folder: Path


def runs_of(config: Config) -> list[Run]:
    """Return the runs of a config, one seed of everything before the next."""
    found = []
    for seed in config.seeds:
        for task in config.tasks:
            for method in config.methods:
                folder = config.runs / f"{task}-{method}-seed{seed}"
                one = settings(replace(config.base, task=task), method, seed, folder)
                found.append(Run(task, method, seed, one, folder))
    return found


def compare(config: Config) -> list[Record]:
    """Run what is missing and write, after every run, all that is finished."""
    records = write(config)
    for each in runs_of(config):
        run = (each.task, NAMES[each.method], each.seed)
        if run in {(record.task, record.method, record.seed) for record in records}:
            continue
        with suppress(BusyRunError):
            finished(each.config, each.folder)
        records = write(config)
    for seed, task, scorer in product(config.seeds, config.tasks, config.scorers):
        folder = config.runs / f"{task}-{ScorerWords.read(scorer).name}-reward-seed{seed}"
        one = scored_runs.settings(config.base, task, scorer, seed, folder)
        with suppress(BusyRunError):
            scored_runs.finished(one, folder)
        records = write(config)
    return records


def write(config: Config) -> list[Record]:
    """Write the records and the figure and return the records.

    They are of every finished run on disk, and of those at the same scale that the file already has of other
    machines, or the demo's.
    """
    seeds = sorted(
        {int(folder.name.rpartition("seed")[2]) for folder in config.runs.glob("*-seed*")}
    )
    everything = replace(config, tasks=FIVE, methods=tuple(NAMES), seeds=tuple(seeds))
    runs = [
        record_of(each.config, each.folder)
        for each in runs_of(everything)
        if (each.folder / "result.json").exists()
    ]
    scored = map(scored_runs.record_of, scored_runs.results_in(config.runs, config.base))
    known, scale = [*runs, *scored], scale_of(config.base)
    for name in (config.name, "demo") if is_demo(config.base) else (config.name,):
        earlier = with_earlier(name, known, config.results)[len(known) :]
        known += [each for each in earlier if each.scale == scale and each.task in FIVE]
    records = sorted(known, key=_place)
    records += means_of(records)
    write_records(config.name, records, config.results)
    draw(records, config.results / f"{config.name}.png")
    return records


def is_demo(base: pebble.Config) -> bool:
    """Return whether runs are the demo's, whatever is said on the way."""
    return replace(base, quiet=False) == pebble.DEMO


def _place(record: Record) -> tuple[int, int, int]:
    names = list(NAMES.values())
    method = names.index(record.method) if record.method in names else len(names)
    return FIVE.index(record.task), method, record.seed or 0


def means_of(records: Sequence[Record]) -> list[Record]:
    """Return, for every method that has runs of all tasks, the mean of the middle half of their final success."""
    means = []
    for name in NAMES.values():
        of_method = [record for record in records if record.method == name]
        of_task = [[each for each in of_method if each.task == task] for task in FIVE]
        if not all(of_task):
            continue
        reached = [[each.metrics["success after"] for each in runs] for runs in of_task]
        middle, low, high = middle_of(reached)
        mean = {
            metric: fmean(fmean(each.metrics[metric] for each in runs) for runs in of_task)
            for metric in SHARES
        }
        means.append(
            replace(
                of_method[-1], task="all five", seed=None, series={},
                metrics={**mean, "IQM": middle, "95 % from": low, "95 % to": high},
                seconds=sum(each.seconds for each in of_method),
            )
        )  # fmt: skip
    return means


def draw(records: Sequence[Record], path: Path) -> None:
    """Write the figure: success over environment steps, a panel a task and one of all that have runs of all."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    of_task = {
        task: [each for each in records if each.task == task and each.series] for task in FIVE
    }
    panels = {task: runs for task, runs in of_task.items() if runs}
    complete = {each.method for each in records if each.task not in FIVE}
    if complete:
        panels["all five"] = [each for each in records if each.method in complete]
    if not panels:
        return
    figure = Figure(figsize=(1 + 2.4 * len(panels), 2.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for one, (title, runs) in zip(axes, panels.items(), strict=True):
        draw_success(one, runs)
        one.set_title(title, loc="left")
    axes[0].set_ylabel("success")
    # A panel need not have runs of every method.
    lines = dict(
        pair[::-1] for one in axes for pair in zip(*one.get_legend_handles_labels(), strict=True)
    )
    figure.legend(
        lines.values(), lines, frameon=False, fontsize=7, ncols=3, loc="outside lower center"
    )
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=150)


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
