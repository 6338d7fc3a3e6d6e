"""How often the preference model orders segments of learning agents as the return does, by age of the agent.

`python -m benchmarks.replay_agreement` trains SAC on the simulator's reward of the five test tasks (`agents.replay`;
what is on disk is kept), cuts pairs of 50 steps from its replay at several ages, and writes
`results/replay_agreement.json`. With `--tasks` and `--ages` it does a part: what the JSON has at the same scale stays,
and an age at which all tasks were measured has a mean.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import tyro

from agents import replay
from agents.sac import SacConfig
from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.feedback.queries import uniform_queries
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scorers import load_scorer
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.agreement import agreement
from vlp_gym.types import Task

ALL, CLEAR = "vs return", "larger gaps"


@dataclass(frozen=True)
class Config:
    """Which agents, at which ages."""

    ages: tuple[int, ...] = (10_000, 30_000, 60_000)
    """Environment steps, in order; the agents train up to the last."""
    n_pairs: int = 300
    """Pairs a task and age, each under one of the task's held-out sentences."""
    segment_length: int = 50
    max_episode_steps: int = 150
    sac: SacConfig = field(default_factory=SacConfig)
    checkpoint: str | None = None
    """A preference model of your own; None: the bundled one."""
    split: str = "paper"
    tasks: tuple[str, ...] = ()
    """Of the test tasks of the split; empty: all of them."""
    seed: int = 0
    out: Path | None = None
    """Folder of the replays; None: data/replay-SEED."""
    device: str = "auto"
    results: Path = RESULTS

    def __post_init__(self) -> None:
        """Refuse tasks that the model was trained on."""
        test = find_split(self.split).test
        if not set(self.tasks) <= set(test):
            raise ValueError(f"tasks must be of {', '.join(test)}; got {', '.join(self.tasks)}")

    @property
    def scale(self) -> str:
        """What agents and pairs are measured."""
        return (
            f"{self.n_pairs} pairs of {self.segment_length} steps, held-out sentences; "
            f"SAC {self.sac.depth} x {self.sac.width}, batch {self.sac.batch_size}, "
            f"critics {'normalised' if self.sac.critic_norm else 'as they come'}"
            + (f"; labels of {self.checkpoint}" if self.checkpoint else "")
        )


def agreement_at(age: int, data: Trajectories, config: Config) -> dict[str, float]:
    """Return how often labels of pairs of the first `age` steps agree with the return, ties left out."""
    if len(data) * data.n_steps < age:
        raise ValueError(
            f"the replay of {data.task_name} has {len(data) * data.n_steps:,} steps, an age of {age:,} was asked for; "
            "remove its file or name another --out"
        )
    scorer = load_scorer("vlp", config.checkpoint, config.device)
    env = make_sawyer(data.task_name)
    scene = metaworld_scene(env, scorer.camera, scorer.image_size_px, scorer.preset)
    labeler = ScoreLabeler(scorer, scene)
    episodes = [data.episode(i) for i in range(age // data.n_steps)]
    rng = np.random.default_rng(config.seed)
    sentences = instructions(data.task_name, "unseen")
    each = max(1, config.n_pairs // len(sentences))
    gaps, truths = [], []
    for sentence in sentences:
        pairs = uniform_queries(episodes, each, config.segment_length, Task(sentence), rng)
        scores = labeler(pairs).extra
        gaps.append(scores["second_score"] - scores["first_score"])
        truths.append([pair.second.env_return - pair.first.env_return for pair in pairs])
    gap, truth = np.concatenate(gaps), np.concatenate(truths)
    # A pair of differences against nought is a pair of returns.
    first = np.arange(len(gap))
    both = agreement(
        np.concatenate([np.zeros_like(gap), gap]),
        np.concatenate([np.zeros_like(truth), truth]),
        np.stack([first, first + len(gap)], axis=1),
    )
    scene.close()
    return {ALL: both.all_pairs, CLEAR: both.clear_half}


def measure(config: Config) -> list[Record]:
    """Measure tasks at all ages and write one record of each, and of the mean where there are all tasks."""
    everyone = find_split(config.split).test
    names = config.tasks or everyone
    agents = replay.Config(
        names,
        steps=config.ages[-1],
        max_episode_steps=config.max_episode_steps,
        sac=config.sac,
        seed=config.seed,
        out=config.out,
    )
    folder = replay.main(agents)
    found = []
    for name in names:
        data = Trajectories.load(folder / f"{name}.npz")
        for age in config.ages:
            started = time.perf_counter()
            figures = agreement_at(age, data, config)
            print(name, age, figures)
            found.append(
                Record.now(
                    task=name,
                    method=f"SAC, {age:,} steps",
                    metrics=figures,
                    seconds=time.perf_counter() - started,
                    seed=config.seed,
                    scale=config.scale,
                )
            )
    known = [
        each
        for each in with_earlier("replay_agreement", found, config.results)
        if each.scale == config.scale and each.task in everyone
    ]
    # Of numbers with commas the longer is the larger.
    known.sort(key=lambda each: (everyone.index(each.task), len(each.method), each.method))
    records = [*known, *means_of(known, len(everyone))]
    write_records("replay_agreement", records, config.results)
    return records


def means_of(records: Sequence[Record], n_tasks: int) -> list[Record]:
    """Return the mean of every seed at every age at which `n_tasks` were measured."""
    by_age: dict[tuple[str, int | None], list[Record]] = {}
    for record in records:
        by_age.setdefault((record.method, record.seed), []).append(record)
    return [
        replace(
            same[-1],
            task="mean",
            metrics={key: fmean(each.metrics[key] for each in same) for key in (ALL, CLEAR)},
            seconds=sum(each.seconds for each in same),
        )
        for same in by_age.values()
        if len(same) == n_tasks
    ]


if __name__ == "__main__":
    measure(tyro.cli(Config, description=__doc__))
