"""Labels pairs of recorded segments: what the preference model, or the oracle, says of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import tyro

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import DataError, UnknownNameError
from vlp_gym.feedback.queries import uniform_queries
from vlp_gym.feedback.session import label_accuracy
from vlp_gym.feedback.table import LabelTable
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.regret import RegretLabeler, ValueFunction
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scorers import load_scorer
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.training.paper_protocol import paper_queries
from vlp_gym.types import Labeler, Labels, Pair, Task


@dataclass(frozen=True)
class LabelConfig:
    """Which pairs to label, and by whom."""

    trajectories: tyro.conf.Positional[Path]
    """A `<Task>.npz` that `vlp collect` wrote."""
    out: Path | None = None
    """The label table; None: `<Task>.labels.parquet` beside the trajectories."""
    instruction: str | None = None
    """The sentence to judge by; None: the default of the task."""
    labeler: Literal["vlp", "oracle", "regret"] = "vlp"
    """Who compares: the preference model, the simulator's own return, or the regret under a value function."""
    soft: bool = True
    """Of `vlp`: labels are probabilities; `--no-soft`: 0 or 1, as in the paper."""
    value: Path | None = None
    """Of `regret`: a value function, the `value-seed0.npz` of a run of `agents.iql`."""
    pairs: Literal["uniform", "kmeans"] = "uniform"
    """`uniform`: every segment as likely as any other; `kmeans`: one segment of each of two sets of trajectories of the
    paper's three levels, as the paper draws them."""
    queries: int = 100
    """Pairs to label; VLP labels 100 a task."""
    segment_length: int = 50
    """Steps of a segment (VLP)."""
    behaviours: tuple[str, ...] = ()
    """Only cut from episodes of these behaviours; empty: from all."""
    checkpoint: Path | None = None
    """A preference model of your own; None: the bundled one."""
    device: str = "auto"
    """Where the preference model runs: auto, cpu, cuda."""
    seed: int = 0
    """Decides which pairs are cut."""


def label(config: LabelConfig) -> dict[str, Any]:
    """Label pairs of segments of a data set and return how often the labels agree with the return.

    Raises:
        CheckpointError: the trajectories or the checkpoint are missing or damaged.
        DataError: there are no two trajectories, or no value function where one is needed.
        ValueError: no two segments of that length can be cut.
    """
    data = Trajectories.load(config.trajectories)
    pairs = cut_pairs(data, config)
    labeler = make_labeler(data.task_name, config)
    started = perf_counter()
    labels = labeler(pairs)
    seconds = perf_counter() - started
    out = config.out or config.trajectories.with_suffix(".labels.parquet")
    save_table(out, pairs, with_source(labels, data), config.labeler, seconds)
    return {
        "queries": len(pairs),
        "labelled": int(labels.labelled.sum()),
        "agreement with the return": label_accuracy(pairs, labels),
        "seconds": round(seconds, 2),
        "written": str(out),
    }


def cut_pairs(data: Trajectories, config: LabelConfig) -> list[Pair]:
    """Return pairs of segments of the chosen episodes."""
    rows: Sequence[int] = range(len(data))
    for name in config.behaviours:
        if name not in data.behaviour:
            raise UnknownNameError.of("behaviour", name, sorted(set(data.behaviour)))
    if config.behaviours:
        rows = data.of_behaviour(*config.behaviours).tolist()
    if len(rows) < 2:
        raise DataError(
            f"{config.trajectories}: there is {len(rows)} trajectory to cut from, and a preference needs two to choose "
            "between; collect more with `vlp collect`"
        )
    sentence = config.instruction or find_task(data.task_name).instruction
    task = Task(check_instruction(sentence))
    if config.pairs == "kmeans":
        if config.behaviours:
            raise DataError(
                "--pairs kmeans draws from the paper's three levels; leave --behaviours out"
            )
        return paper_queries(data, config.queries, config.segment_length, task, config.seed)
    return uniform_queries(
        [data.episode(row) for row in rows],
        config.queries,
        config.segment_length,
        task,
        np.random.default_rng(config.seed),
    )


def make_labeler(task_name: str, config: LabelConfig) -> Labeler:
    """Return the labeler of a config; the preference model draws on a twin of the task."""
    if config.labeler == "oracle":
        return OracleLabeler()
    if config.labeler == "regret":
        if config.value is None:
            raise DataError("regret is judged by a value function; name one with --value")
        return RegretLabeler(ValueFunction.load(config.value))
    path = config.checkpoint and str(config.checkpoint)
    scorer = load_scorer("vlp", checkpoint=path, device=config.device)
    env = make_sawyer(task_name)
    scene = metaworld_scene(env, scorer.camera, scorer.image_size_px, scorer.preset)
    return ScoreLabeler(scorer, scene, soft=config.soft)


def with_source(labels: Labels, data: Trajectories) -> Labels:
    """Return labels with two more columns: the task, and a hash of the trajectories that their pairs were cut from."""
    about = {"task": data.task_name, "trajectories": data.fingerprint()}
    columns = {name: np.full(len(labels), value) for name, value in about.items()}
    return replace(labels, extra={**labels.extra, **columns})


def save_table(path: Path, pairs: list[Pair], labels: Labels, labeler: str, seconds: float) -> None:
    """Write pairs, labels and their provenance to one parquet file."""
    table = LabelTable()
    each = seconds / max(len(pairs), 1)
    table.append(pairs, labels, session=0, step=0, labeler=labeler, seconds=each)
    table.save(path)
