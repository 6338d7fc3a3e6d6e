"""Our settings against B-Pref's: PEBBLE with the oracle's labels, same task, steps and number of labels.

`python -m benchmarks.reference` writes `results/reference.json` from all runs that are finished; stopped ones go on.
B-Pref's settings are those of its Meta-World scripts (three layers, batches of 512, pre-training by state entropy up to
step 10,000, ten passes over all steps of all labels, raw observations, no lasting exploration noise, no average of the
actor). Both are asked as often, as many queries at a time, ours from the start and theirs after pre-training. What
differs from its code all the same: Stable-Baselines3's SAC moves the target every step, learns the temperature at 3e-4,
and resets are Gymnasium's. Given in two processes, the command shares the work.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from agents import pebble
from agents.sac import SacConfig
from benchmarks.pebble_runs import finished, record_of, scale_of, settings
from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from vlp_gym.errors import BusyRunError
from vlp_gym.reward.config import EnsembleConfig, FitConfig

STEPS = 20_000
OURS = replace(pebble.DEMO, steps=STEPS, evaluate_every=STEPS // 10)
THEIRS = replace(
    OURS,
    feedback=replace(
        OURS.feedback,
        first_session=10_000,
        query="disagreement",
        unsupervised=True,
        ensemble=EnsembleConfig(normalize_obs=False, reward_norm="none"),
        fit=FitConfig(max_epochs=10, max_updates=None, steps_sampled=None),
    ),
    sac=SacConfig(depth=3, batch_size=512, explore_steps=0, actor_average=0.0, critic_norm=False),
)
METHODS = {"our settings": OURS, "B-Pref's settings": THEIRS}


@dataclass(frozen=True)
class Config:
    """Which runs to do; the defaults take two hours on two cores."""

    task: str = "ButtonPress"
    seeds: tuple[int, ...] = (0, 1, 2)
    ours: pebble.Config = field(default_factory=lambda: OURS)
    """A run with our settings; task, labeler, seed and folder are set here."""
    theirs: pebble.Config = field(default_factory=lambda: THEIRS)
    """The same with B-Pref's."""
    runs: Path = Path("runs/reference")
    """Where the runs are kept."""
    results: Path = RESULTS


def compare(config: Config) -> list[Record]:
    """Run what is missing, one seed of both before the next, and write after every run what is finished."""
    records: list[Record] = []
    for one, folder, _ in _runs_of(config):
        with suppress(BusyRunError):
            finished(one, folder)
        records = write(config)
    return records


def write(config: Config) -> list[Record]:
    """Write and return the records of finished runs, and those that the file already has of other machines."""
    done = [
        replace(record_of(one, folder), method=name)
        for one, folder, name in _runs_of(config)
        if (folder / "result.json").exists()
    ]
    scale = scale_of(config.ours)
    known = with_earlier("reference", done, config.results)
    records = [each for each in known if (each.task, each.scale) == (config.task, scale)]
    records.sort(key=lambda record: (list(METHODS).index(record.method), record.seed or 0))
    write_records("reference", records, config.results)
    return records


def _runs_of(config: Config) -> Iterator[tuple[pebble.Config, Path, str]]:
    for seed in config.seeds:
        for name, base in zip(METHODS, (config.ours, config.theirs), strict=True):
            folder = config.runs / f"{config.task}-{name.split()[0]}-seed{seed}"
            yield settings(replace(base, task=config.task), "oracle", seed, folder), folder, name


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
