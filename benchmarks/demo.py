"""The demo over seeds, from VLP's labels, the oracle's and the simulator's own reward.

`python -m benchmarks.demo` writes `results/demo.json` and `results/demo.png`. Finished runs are kept, a
stopped one goes on from its checkpoint, so it can be called until it is done; `--methods vlp --seeds 0` does a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from agents import pebble
from benchmarks.pebble_runs import NAMES, draw_success, record_of, scale_of, settings
from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from vlp_gym.atomic import atomic_path


@dataclass(frozen=True)
class Config:
    """Which runs the comparison is made of."""

    base: pebble.Config = field(default_factory=lambda: pebble.DEMO)
    """The run; its labeler, reward, seed and folder are set here."""
    methods: tuple[str, ...] = tuple(NAMES)
    seeds: tuple[int, ...] = (0, 1, 2)
    runs: Path = Path("runs/demo")
    """Where the runs are kept."""
    results: Path = RESULTS
    """Where the records and the figure go."""


def compare(config: Config) -> list[Record]:
    """Run what is missing; write, after every run, what there is, and what the file already has of other runs."""
    done: list[Record] = []
    records: list[Record] = []
    order, scale = list(NAMES.values()), scale_of(config.base)
    # Seeds outside: after the first third of the time every method has one.
    for seed in config.seeds:
        for method in config.methods:
            folder = config.runs / f"{method}-seed{seed}"
            done.append(record_of(settings(config.base, method, seed, folder), folder))
            known = with_earlier("demo", done, config.results)
            records = [
                each for each in known if (each.task, each.scale) == (config.base.task, scale)
            ]
            records.sort(key=lambda record: (order.index(record.method), record.seed or 0))
            write_records("demo", records, config.results)
    draw(config, records)
    return records


def draw(config: Config, records: Sequence[Record]) -> None:
    """Write the figure: success over environment steps."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    draw_success(axes, records)
    axes.set_ylabel("success")
    axes.set_title(f'{config.base.task}: "{pebble.instruction_of(config.base)}"', loc="left")
    axes.legend(frameon=False, fontsize=8)
    with atomic_path(config.results / "demo.png") as draft:
        figure.savefig(draft, dpi=150)


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
