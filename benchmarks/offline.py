"""Offline learning from scripted labels and from VLP's on the paper's five unseen tasks: table 2, at a smaller scale.

`python -m benchmarks.offline` writes `results/offline.json` from all trainings that are finished; all seeds of one are
trained together. With `--tasks ButtonPress --methods cpl` it does a part, in any order and on several machines: what
the JSON already has stays. A stopped training goes on.
IQL on the simulator's reward and cloning (BC), which ask nobody, stand beside them as yardsticks.
`--scorers "clip checkpoint=clip.safetensors"` adds what VLP compares itself with in tables 3 and 4: IQL on a scorer's
reward, and P-IQL on its labels.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import tyro

from agents import cpl, ipl, iql, offline, piql, run
from agents.learning import Learner
from agents.statistics import bootstrap_interval, interquartile_mean
from benchmarks import kept_runs
from benchmarks.paper import LABEL_ACCURACY, success_of
from benchmarks.schema import RESULTS, Record, with_earlier, write_records
from benchmarks.scorer_words import ScorerWords, check_scorers
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.feedback.table import LabelTable
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.collect import CollectConfig, collect
from vlp_gym.training.labelling import LabelConfig, label
from vlp_gym.training.scored_steps import ScoreConfig, score

FIVE = find_split("paper").test
LABELS = {"oracle": "scripted labels", "vlp": "labels of VLP"}
ALGORITHMS = {"piql": "P-IQL", "ipl": "IPL", "cpl": "CPL"}
YARDSTICKS = {"iql": "IQL on the simulator's reward", "bc": "BC of the segments, no labels"}
METHODS = (*ALGORITHMS, *YARDSTICKS)

MEAN = "mean of 5"
PROTOCOL = "papers' protocol"
LAST = "mean of the last"


@dataclass(frozen=True)
class Scale:
    """How large a training is; the published one is 500,000 steps of 2 x 512 and 96 pairs."""

    steps: int = 4_000
    iql_steps: int = 8_000
    """Of IQL and P-IQL."""
    iql_polyak: float = 0.05
    """Of IQL and P-IQL; ten times the published share. Values come down from a success step by step, as fast as the
    target critic moves: at the published 0.005, fifty steps of an episode need 10,000 of training."""
    piql_temperature: float = 1.0
    """Of P-IQL; three times the published one. What advantages a learned reward gives is noisy, and weights that follow
    them so closely clone a few odd actions."""
    cpl_steps: int = 20_000
    """Of CPL and BC: they clone for two fifths of their steps, which takes thousands, and a step costs them little."""
    width: int = 128
    pairs: int = 8
    """Pairs of a batch; P-IQL and IPL also learn from 256 transitions without labels."""
    learning_rate: float = 3e-4
    """Three times CPL's; that of all others."""
    evaluate_every: int = 500
    iql_evaluate_every: int = 1_000
    cpl_evaluate_every: int = 2_000
    episodes: int = 10
    """Episodes of an evaluation and seed."""
    smoothing: int = 2
    """Evaluations averaged before the maximum of the papers' protocol."""
    n_last: int = 2

    def __str__(self) -> str:
        """Return the scale as a table says it."""
        return (
            f"{self.steps:,} gradient steps (CPL and BC: {self.cpl_steps:,}, IQL and P-IQL: {self.iql_steps:,}, whose "
            f"target critics move by {self.iql_polyak:g}; temperature of P-IQL {self.piql_temperature:g}), networks of "
            f"2 x {self.width}, {self.pairs} pairs a batch (P-IQL and IPL: and 256 transitions without labels), "
            f"learning rate {self.learning_rate:g}, 100 pairs of 50 steps, {self.episodes} episodes a seed "
            f"every {self.evaluate_every:,} steps (CPL and BC: {self.cpl_evaluate_every:,}, IQL and P-IQL: "
            f"{self.iql_evaluate_every:,})"
        )


@dataclass(frozen=True)
class Config:
    """Which trainings to do; what is written is made of all that are on disk and in the JSON."""

    tasks: tuple[str, ...] = FIVE
    methods: tuple[str, ...] = METHODS
    labels: tuple[str, ...] = tuple(LABELS)
    scorers: tuple[str, ...] = ()
    """Other vision-language models, each its name and settings, NAME=VALUE; they stay in the table once named."""
    seeds: tuple[int, ...] = (0, 1, 2)
    scale: Scale = Scale()
    data: Path = Path("data/mtvlp-0")
    """Trajectories of `vlp collect --kind mtvlp`; collected where they are missing."""
    runs: Path = Path("runs/offline")
    """Where trainings and label tables are kept."""
    results: Path = RESULTS
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse what the table has no row or column for."""
        for name, known in (("tasks", FIVE), ("methods", METHODS), ("labels", tuple(LABELS))):
            if not set(getattr(self, name)) <= set(known):
                raise ValueError(f"{name} must be of {', '.join(known)}; got {getattr(self, name)}")
        check_scorers(self.scorers)


class Training(NamedTuple):
    """One training of all seeds."""

    task: str
    method: str
    judge: str | None
    """Who labels or pays: a name in `LABELS`, or a scorer as it was named; None: the simulator, or nobody."""
    folder: Path


def trainings(config: Config) -> list[Training]:
    """Return the trainings of a config, one task after the other within a method."""
    judges: list[tuple[str, str | None]] = []
    for method in config.methods:
        judges += [
            (method, labels) for labels in (config.labels if method in ALGORITHMS else (None,))
        ]
    for scorer in config.scorers:
        judges += [(method, scorer) for method in methods_of(scorer)]
    return [
        Training(task, method, judge, config.runs / "-".join([task, method, *folder_words(judge)]))
        for method, judge in judges
        for task in config.tasks
    ]


def methods_of(scorer: str) -> tuple[str, ...]:
    """Return what is done with a scorer; one of whole clips has no reward for a step."""
    return ("piql",) if ScorerWords.read(scorer).name in ("roboclip", "vlp") else ("iql", "piql")


def folder_words(judge: str | None) -> list[str]:
    """Return what the name of a folder says of a judge.

    >>> folder_words("vlmrm checkpoint=a/b.pt alpha=0.5")
    ['vlmrm', 'alpha-0-5']
    """
    if judge is None:
        return []
    asked = ScorerWords.read(judge)
    return [asked.name, *(re.sub(r"\W+", "-", each) for each in asked.settings)]


def label_table(config: Config, task: str, judge: str) -> Path:
    """Return the labelled pairs of a task, drawn as the paper draws them; made where they are missing."""
    return _said(
        config.runs / "labels" / f"{'-'.join([task, *folder_words(judge)])}.parquet",
        judge,
        lambda out, asked, checkpoint: label(
            LabelConfig(
                trajectories(config, task), out, labeler=asked.name, soft=False, pairs="kmeans",
                checkpoint=checkpoint, settings=asked.settings, device=config.device,
            )
        ),
    )  # fmt: skip


def score_file(config: Config, task: str, judge: str) -> Path:
    """Return what a scorer says of every step of a task's trajectories; made where it is missing."""
    return _said(
        config.runs / "scores" / f"{'-'.join([task, *folder_words(judge)])}.npz",
        judge,
        lambda out, asked, checkpoint: score(
            ScoreConfig(
                trajectories(config, task), asked.name, checkpoint, asked.settings, device=config.device, out=out
            )
        ),
    )  # fmt: skip


def _said(out: Path, judge: str, ask: Callable[[Path, ScorerWords, Path | None], object]) -> Path:
    """Return a file of what a judge said, after asking where it is missing."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        asked = ScorerWords.read(judge)
        ask(out, asked, None if asked.checkpoint is None else Path(asked.checkpoint))
    return out


def trajectories(config: Config, task: str) -> Path:
    """Return the trajectories of a task; collected where they are missing."""
    data = config.data / f"{task}.npz"
    if not data.exists():
        collect(CollectConfig("mtvlp", config.data, tasks=FIVE, workers=1))
    return data


def settings(config: Config, each: Training) -> tuple[Any, Callable[[Any], Learner]]:
    """Return the config of a training, and what makes its agent."""
    scale, data = config.scale, trajectories(config, each.task)
    hidden, steps, evaluate_every = (scale.width, scale.width), scale.steps, scale.evaluate_every
    if each.method in ("cpl", "bc"):
        steps, evaluate_every = scale.cpl_steps, scale.cpl_evaluate_every
    elif each.method in ("iql", "piql"):
        steps, evaluate_every = scale.iql_steps, scale.iql_evaluate_every
    shared: dict[str, Any] = {
        "seeds": config.seeds, "steps": steps, "evaluate_every": evaluate_every,
        "evaluation_episodes": scale.episodes, "checkpoint_every": evaluate_every, "smoothing": scale.smoothing,
        "n_last": scale.n_last, "video_episodes": 0, "device": config.device, "threads": config.threads,
        "quiet": True, "out": each.folder,
    }  # fmt: skip
    core = iql.IQLConfig(hidden=hidden, learning_rate=scale.learning_rate, polyak=scale.iql_polyak)
    if each.method == "iql":
        scores = None if each.judge is None else score_file(config, each.task, each.judge)
        return iql.Config(data=data, scores=scores, iql=core, **shared), iql.make
    pairs = label_table(config, each.task, each.judge or "oracle")
    of_pairs = {**shared, "pairs": pairs, "trajectories": data}
    if each.method == "piql":
        softer = replace(core, temperature=scale.piql_temperature)
        return piql.Config(
            iql=softer, reward_hidden=hidden, reward_steps=steps // 10, batch_size=scale.pairs, replay=data,
            **of_pairs,
        ), piql.make  # fmt: skip
    if each.method == "ipl":
        rate = scale.learning_rate
        return ipl.Config(
            hidden=hidden, batch_size=scale.pairs, learning_rate=rate, replay=data, **of_pairs
        ), ipl.make
    return cpl.Config(
        variant="bc" if each.method == "bc" else "cpl", hidden=hidden, batch_size=scale.pairs,
        learning_rate=scale.learning_rate, bc_steps=2 * steps // 5, warmup_steps=steps // 50, **of_pairs,
    ), cpl.make  # fmt: skip


def finished(config: Config, each: Training) -> dict[str, Any]:
    """Return the result of a training: of the one on disk, of one that goes on, or of a new one."""
    one, make = settings(config, each)
    learn = partial(offline.learn, make=make)
    go_on = partial(offline.go_on, kind=type(one), make=make)
    return kept_runs.finished(one, each.folder, learn, go_on, _deciding)


def _deciding(config: Any) -> Any:
    return replace(config, quiet=True, threads=None, device="auto")


def compare(config: Config) -> list[Record]:
    """Train what is missing and write, after every training, all that is finished."""
    records: list[Record] = []
    remember_scorers(config)
    for each in trainings(config):
        finished(config, each)
        records = write(config)
    return records


def write(config: Config) -> list[Record]:
    """Write the records of every finished training, and a mean of every method that has all tasks.

    They are of the trainings on disk, and of those that the file already has of other machines.
    """
    everything = replace(
        config, tasks=FIVE, methods=METHODS, labels=tuple(LABELS), scorers=known_scorers(config)
    )
    wanted = trainings(everything)
    found = [
        record_of(config, each, json.loads(path.read_text(encoding="utf-8")))
        for each in wanted
        if (path := each.folder / "result.json").exists()
    ]
    new = {record.method for record in found}
    rows = {
        (record.task, record.method): record
        for record in with_earlier("offline", found, config.results)
    }
    order: list[Record] = []
    for method, judge in dict.fromkeys((each.method, each.judge) for each in wanted):
        name = name_of(method, judge)
        of_tasks = [rows.pop((task, name)) for task in FIVE if (task, name) in rows]
        mean = rows.pop((MEAN, name), None)
        if name in new:
            complete = len(of_tasks) == len(FIVE) and all(each.series for each in of_tasks)
            mean = mean_of(method, judge, of_tasks) if complete else None
        order += [*of_tasks, *([] if mean is None else [mean])]
    records = [*order, *rows.values()]
    write_records("offline", records, config.results)
    return records


def known_scorers(config: Config) -> tuple[str, ...]:
    """Return the scorers of a config and those of earlier calls."""
    path = config.runs / "scorers.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return tuple(dict.fromkeys([*earlier, *config.scorers]))


def remember_scorers(config: Config) -> None:
    """Write down the scorers of a config, so that a later call has their rows."""
    if config.scorers:
        run.write_json(config.runs / "scorers.json", known_scorers(config))


def record_of(config: Config, each: Training, result: dict[str, Any]) -> Record:
    """Return a training in the form of every benchmark."""
    success = result["success"]
    metrics = {
        PROTOCOL: success["papers"],
        LAST: success["mean_of_last"],
        "at the last": success["last"],
        "untrained": result["before"]["success"],
    }
    place = FIVE.index(each.task)
    if each.judge is not None and each.method != "iql":
        pairs = label_table(config, each.task, each.judge)
        told = LabelTable.load(pairs).accuracy
        if told is not None:
            metrics["label accuracy"] = told
        metrics["expert and medium"] = share_of(
            pairs, trajectories(config, each.task), {"expert", "medium"}
        )
    printed = success_of(each.method, each.judge)
    paper = {} if printed is None else {PROTOCOL: printed[place] / 100}
    if each.judge == "vlp":
        paper["label accuracy"] = LABEL_ACCURACY["vlp"][place] / 100
    return Record(
        task=each.task, method=name_of(each.method, each.judge), metrics=metrics, seconds=result["seconds"],
        scale=scale_of(config), paper=paper, series={LAST: list(success["per_seed"])}, **provenance(result),
    )  # fmt: skip


def mean_of(method: str, judge: str | None, of_tasks: Sequence[Record]) -> Record:
    """Return the mean over tasks, and of all seeds and tasks the mean of the middle half with its interval."""
    per_seed = np.array([record.series[LAST] for record in of_tasks])
    low, high = bootstrap_interval(per_seed)
    shares = (PROTOCOL, LAST, "at the last", "untrained")
    metrics = {each: fmean(record.metrics[each] for record in of_tasks) for each in shares}
    metrics |= {"IQM": interquartile_mean(per_seed), "95 % from": low, "95 % to": high}
    printed = success_of(method, judge)
    paper = {} if printed is None else {PROTOCOL: fmean(printed) / 100}
    return replace(
        of_tasks[-1], task=MEAN, metrics=metrics, seconds=sum(each.seconds for each in of_tasks), paper=paper,
        series={},
    )  # fmt: skip


def name_of(method: str, judge: str | None) -> str:
    """Return what a method is called in the table; a stand-in is named as one."""
    if judge is None:
        return YARDSTICKS[method]
    if judge in LABELS:
        return f"{ALGORITHMS[method]}, {LABELS[judge]}"
    asked = ScorerWords.read(judge)
    who = f"{asked.printed}{' (stand-in)' if asked.is_stand_in else ''}"
    return f"IQL on the reward of {who}" if method == "iql" else f"P-IQL, labels of {who}"


def scale_of(config: Config) -> str:
    """Return how large the trainings were."""
    return f"{config.scale}; seeds {', '.join(map(str, config.seeds))} together"


def provenance(result: dict[str, Any]) -> dict[str, Any]:
    """Return where a result is from."""
    return {name: result[name] for name in ("commit", "machine", "versions")}


def share_of(path: Path, data: Path, behaviours: set[str]) -> float:
    """Return the share of pairs that set one of two behaviours against the other.

    Args:
        path: the labelled pairs.
        data: the trajectories that they are of.
        behaviours: the two.
    """
    table, names = LabelTable.load(path), np.array(Trajectories.load(data).behaviour)
    both = zip(
        *(names[table.column(f"{each}_episode")] for each in ("first", "second")), strict=True
    )
    return float(np.mean([set(pair) == behaviours for pair in both]))


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
