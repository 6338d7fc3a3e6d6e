"""Labels pairs of recorded segments: what a scorer, or a labeler that does not look, says of a data set."""

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
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.metaworld import make_sawyer
from vlp_gym.scorers import SCORERS, load_scorer, parse_settings
from vlp_gym.tasks.instructions import baseline_of, check_instruction
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.training.paper_protocol import paper_queries
from vlp_gym.types import Labeler, Labels, Pair, Task

ORACLE, REGRET = OracleLabeler.name, "regret"
"""Names of labelers that do not look."""


@dataclass(frozen=True)
class LabelConfig:
    """Which pairs to label, and by whom."""

    trajectories: tyro.conf.Positional[Path]
    """A `<Task>.npz` that `vlp collect` wrote."""
    out: Path | None = None
    """The label table; None: `<Task>.labels.parquet` beside the trajectories."""
    instruction: str | None = None
    """The sentence to judge by; None: the default of the task."""
    labeler: str = "vlp"
    """Who compares: a scorer (vlp, the preference model; clip, vlmrm, r3m, vip, liv, roboclip), the simulator's own
    return (oracle), or the regret under a value function (regret)."""
    soft: bool = True
    """Of `vlp`: labels are probabilities; `--no-soft`: 0 or 1, as in the paper. Those of other scorers are 0 or 1."""
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
    """A preference model of your own; None: the bundled one. Of another scorer its official file, or "bundled"."""
    settings: tuple[str, ...] = ()
    """Settings of the scorer, NAME=VALUE each, such as alpha=0.5."""
    device: str = "auto"
    """Where the scorer runs: auto, cpu, cuda."""
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
    labeler = make_labeler(data, config)
    pairs = cut_pairs(data, config, labeler)
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


def cut_pairs(data: Trajectories, config: LabelConfig, labeler: Labeler) -> list[Pair]:
    """Return pairs of segments of the chosen episodes, under the task as the labeler is told it."""
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
    task = task_of(data, config.instruction, labeler)
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


def make_labeler(data: Trajectories, config: LabelConfig) -> Labeler:
    """Return the labeler of a config; a scorer draws on a twin of the task.

    Raises:
        UnknownNameError: no such labeler or setting.
        CheckpointError: the checkpoint is missing or damaged.
        DataError: there is no value function where one is needed.
    """
    if config.labeler == ORACLE:
        return OracleLabeler()
    if config.labeler == REGRET:
        if config.value is None:
            raise DataError("regret is judged by a value function; name one with --value")
        return RegretLabeler(ValueFunction.load(config.value))
    scorer = named_scorer(config.labeler, config.checkpoint, config.device, config.settings)
    return looking_labeler(data, scorer, config.soft)


def with_source(labels: Labels, data: Trajectories) -> Labels:
    """Return labels with two more columns: the task, and a hash of the trajectories that their pairs were cut from."""
    about = {"task": data.task_name, "trajectories": data.fingerprint()}
    columns = {name: np.full(len(labels), value) for name, value in about.items()}
    return replace(labels, extra={**labels.extra, **columns})


def named_scorer(
    name: str, checkpoint: Path | str | None, device: str, settings: Sequence[str] = ()
) -> Any:
    """Return the scorer of a labeler's name; arguments and errors as of `load_scorer` and `parse_settings`."""
    if name not in SCORERS:
        raise UnknownNameError.of("labeler", name, [*SCORERS, ORACLE, REGRET])
    path = None if checkpoint is None else str(checkpoint)
    return load_scorer(name, path, device, **parse_settings(settings))


def looking_labeler(data: Trajectories, scorer: Any, soft: bool = True) -> ScoreLabeler:
    """Return a labeler that draws the task of some trajectories as a scorer wants it; `soft` as in `LabelConfig`."""
    env = make_sawyer(data.task_name)
    scene = scene_of(env, scorer.camera, scorer.image_size_px, scorer.preset)
    return ScoreLabeler(scorer, scene, soft=soft and getattr(scorer, "is_log_odds", False))


def task_of(data: Trajectories, instruction: str | None, labeler: Labeler) -> Task:
    """Return what a labeler is told of the task of some trajectories.

    To a sentence come a baseline (VLM-RM) and, for whoever looks, a picture of the goal (VIP): the last frame of the
    first expert that succeeded; which one the paper took is not said.
    """
    sentence = check_instruction(instruction or find_task(data.task_name).instruction)
    goal = None
    if isinstance(labeler, ScoreLabeler):
        experts = data.of_behaviour("expert")
        done = experts[data.success[experts, -1]]
        if len(done):
            episode = data.episode(int(done[0]))
            goal = np.asarray(labeler.scene.draw(episode.constants, episode.snapshots[-1:])[0])
    return Task(sentence, baseline=baseline_of(data.task_name), goal_image=goal)


def save_table(path: Path, pairs: list[Pair], labels: Labels, labeler: str, seconds: float) -> None:
    """Write pairs, labels and their provenance to one parquet file."""
    table = LabelTable()
    each = seconds / max(len(pairs), 1)
    table.append(pairs, labels, session=0, step=0, labeler=labeler, seconds=each)
    table.save(path)
