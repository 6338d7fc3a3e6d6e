"""PEBBLE on the paper's five unseen tasks, from VLP's labels, the oracle's and the simulator's own reward.

`python -m benchmarks.online` writes `results/online.json` and `results/online.png` from all runs that are finished.
With `--tasks ButtonPress --seeds 0` it does a part; parts may run side by side and in any order. A stopped run goes on.
`--scorers "vlmrm checkpoint=clip.safetensors alpha=0.5" "roboclip checkpoint=s3d.pth"` adds agents that a scorer pays,
with files that you bring.
"""

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import tyro

from agents import pebble
from benchmarks import scored_runs
from benchmarks.pebble_runs import (
    NAMES,
    draw_success,
    finished,
    record_of,
    settings,
)
from benchmarks.schema import RESULTS, Record, write_records
from benchmarks.scorer_words import ScorerWords, check_scorers
from vlp_gym.atomic import atomic_path
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.tasks.splits import find_split

FIVE = find_split("paper").test
SCHEDULE = FeedbackConfig(1_000, queries_per_session=50, session_every=1_500)
BASE = replace(pebble.DEMO, steps=30_000, feedback=SCHEDULE, evaluate_every=3_000)


@dataclass(frozen=True)
class Config:
    """Which runs to do; what is written is made of all that are on disk."""

    base: pebble.Config = field(default_factory=lambda: BASE)
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

    def __post_init__(self) -> None:
        """Refuse tasks that the bundled model was trained on."""
        if not set(self.tasks) <= set(FIVE):
            raise ValueError(f"tasks must be of {', '.join(FIVE)}; got {', '.join(self.tasks)}")
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
    records: list[Record] = []
    for each in runs_of(config):
        finished(each.config, each.folder)
        records = write(config)
    for seed, task, scorer in product(config.seeds, config.tasks, config.scorers):
        folder = config.runs / f"{task}-{ScorerWords.read(scorer).name}-reward-seed{seed}"
        one = scored_runs.settings(config.base, task, scorer, seed, folder)
        scored_runs.finished(one, folder)
        records = write(config)
    return records


def write(config: Config) -> list[Record]:
    """Write the records and the figure of every finished run on disk and return the records."""
    seeds = sorted(
        {int(folder.name.rpartition("seed")[2]) for folder in config.runs.glob("*-seed*")}
    )
    everything = replace(config, tasks=FIVE, methods=tuple(NAMES), seeds=tuple(seeds))
    done = [each for each in runs_of(everything) if (each.folder / "result.json").exists()]
    done.sort(key=lambda each: (FIVE.index(each.task), list(NAMES).index(each.method), each.seed))
    records = [record_of(finished(each.config, each.folder)) for each in done]
    scored = map(scored_runs.record_of, scored_runs.results_in(config.runs, config.base))
    records = sorted([*records, *scored], key=lambda record: FIVE.index(record.task))
    write_records("online", records, config.results)
    draw(done, config.results / "online.png")
    return records


def draw(runs: list[Run], path: Path) -> None:
    """Write the figure: success over environment steps, a panel a task, a line a run."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    tasks = [task for task in FIVE if any(each.task == task for each in runs)]
    figure = Figure(figsize=(1 + 2.4 * len(tasks), 2.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        folders = {
            method: [each.folder for each in runs if (each.task, each.method) == (task, method)]
            for method in NAMES
        }
        draw_success(axes, folders)
        axes.set_title(task, loc="left")
    panels[0].set_ylabel("success")
    panels[0].legend(frameon=False, fontsize=7)
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=150)


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
