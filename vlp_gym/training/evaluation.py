"""How good a preference model is on tasks, and in words, that it was not trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import load_checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import held_out_instructions
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.behaviours import EXPLORING
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid

Scores = Float[np.ndarray, " clips"]
Pairs = Int[np.ndarray, "pairs 2"]

CHUNK = 128
"""Clips scored at a time."""


@torch.inference_mode()
def score_clips(
    model: VLP, task: TaskClips, rows: Int[np.ndarray, " rows"], sentences: Sequence[str]
) -> Float[np.ndarray, "sentences rows"]:
    """Return the score of clips under several sentences."""
    model.eval()
    device = model.place.device
    words = model.read_words(
        torch.stack([model.encoders.tokenize(s) for s in sentences]).to(device)
    )
    scores = np.empty((len(sentences), len(rows)), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        video = model.read_video(task.gather(part).to(device))
        for i in range(len(sentences)):
            same = torch.full((len(part),), i, device=device)
            scores[i, start : start + CHUNK] = model.score(video, words[same]).float().cpu().numpy()
    return scores


@dataclass(frozen=True)
class Agreement:
    """Share of pairs that the scores order as the truth does, ties of the truth left out.

    Attributes:
        all_pairs: over all pairs.
        clear_half: over the half of the pairs in which the truth differs more.
        n_pairs: how many pairs were compared.
    """

    all_pairs: float
    clear_half: float
    n_pairs: int


def agreement(score: Scores, truth: Float[np.ndarray, " clips"], pairs: Pairs) -> Agreement:
    """Return how often `score` and `truth` order pairs alike; equal scores count one half.

    >>> agreement(np.array([1.0, 2.0, 3.0]), np.array([0.0, 5.0, 4.0]), np.array([[0, 1], [1, 2], [0, 2]])).all_pairs
    0.6666666666666666
    """
    gap = truth[pairs[:, 1]] - truth[pairs[:, 0]]
    pairs, gap = pairs[gap != 0], gap[gap != 0]
    if not len(pairs):
        raise ValueError("all pairs tie in the truth; there is nothing to agree with")
    said = score[pairs[:, 1]] - score[pairs[:, 0]]
    right = np.where(said == 0, 0.5, np.sign(said) == np.sign(gap))
    clear = np.abs(gap) >= np.median(np.abs(gap))
    return Agreement(float(right.mean()), float(right[clear].mean()), len(pairs))


def random_pairs(rows: Int[np.ndarray, " clips"], n_pairs: int, rng: np.random.Generator) -> Pairs:
    """Return pairs of different clips, uniformly drawn from `rows`."""
    first = rng.integers(0, len(rows), n_pairs)
    second = (first + rng.integers(1, len(rows), n_pairs)) % len(rows)
    return np.stack([rows[first], rows[second]], axis=1)


@dataclass(frozen=True)
class TaskReport:
    """Figures of one task, each a mean over its held-out sentences, in [0, 1].

    Attributes:
        itp: order of whole trajectories by level, pairs of different level uniformly drawn.
        ivp: the task's trajectories over other tasks' trajectories, under its sentence.
        windows: order of segments of any behaviour by the env's return.
        windows_clear: the same, on the half of the pairs with the larger gap of return.
        exploring: order of segments of exploring behaviour by the env's return.
        exploring_clear: the same, on the half with the larger gap.
        ilp_delta: mean |difference of score| of two trajectories of another task, over that of the task's own.
    """

    task_name: str
    itp: float
    ivp: float
    windows: float
    windows_clear: float
    exploring: float
    exploring_clear: float
    ilp_delta: float


def evaluate_task(
    model: VLP,
    task: TaskClips,
    strangers: Sequence[TaskClips],
    sentences: Sequence[str],
    n_pairs: int,
    seed: int,
) -> TaskReport:
    """Return the figures of one task.

    Args:
        model: the preference model.
        task: clips of the task.
        strangers: clips of other tasks, for IVP and ILP.
        sentences: instructions of the task.
        n_pairs: pairs drawn for every figure.
        seed: decides the pairs.
    """
    rng = np.random.default_rng(seed)
    clips = task.clips
    own = score_clips(model, task, np.arange(len(clips)), sentences)
    whole, window = np.flatnonzero(clips.whole), np.flatnonzero(~clips.whole)
    exploring = window[np.isin(clips.behaviour[window], EXPLORING)]

    def mean_over(
        rows: Int[np.ndarray, " rows"], truth: Float[np.ndarray, " clips"]
    ) -> tuple[float, float]:
        pairs = random_pairs(rows, n_pairs, rng)
        both = [agreement(score, truth, pairs) for score in own]
        return float(np.mean([a.all_pairs for a in both])), float(
            np.mean([a.clear_half for a in both])
        )

    foreign = np.concatenate(
        [
            score_clips(model, other, np.flatnonzero(other.clips.whole), sentences)
            for other in strangers
        ],
        axis=1,
    )
    itp, _ = mean_over(whole, clips.level.astype(float))
    windows, windows_clear = mean_over(window, clips.env_return)
    explored, explored_clear = mean_over(exploring, clips.env_return)
    mine = own[:, whole]
    ivp = (mine[:, :, None] > foreign[:, None, :]).mean()
    per_other = np.split(
        foreign, np.cumsum([int(o.clips.whole.sum()) for o in strangers])[:-1], axis=1
    )
    ilp_delta = np.mean([_mean_gap(scores) for scores in per_other]) / max(_mean_gap(mine), 1e-9)
    return TaskReport(
        clips.task_name,
        itp,
        float(ivp),
        windows,
        windows_clear,
        explored,
        explored_clear,
        float(ilp_delta),
    )


def _mean_gap(scores: Float[np.ndarray, "sentences clips"]) -> float:
    return float(np.abs(scores[:, :, None] - scores[:, None, :]).mean())


@dataclass(frozen=True)
class EvaluateConfig:
    """What to judge a preference model by."""

    checkpoint: Path | None = None
    """Folder of the checkpoint; None is the bundled one."""
    data: Path = Path("data/graded-0")
    """Folder that `vlp collect` wrote; tasks of the split that are missing are named."""
    cache: Path = Path("data/cache")
    """Drawn frames and encoder features."""
    split: str = "paper"
    n_pairs: int = 4000
    """Pairs of every figure and task."""
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    """JSON file for the figures; None prints only."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Return the figures of a model on the test tasks of a split, each task under its held-out sentences.

    The result maps "tasks" to one `TaskReport` a task and "mean" to the mean of each figure.

    Raises:
        CheckpointError: the checkpoint or the data are missing or damaged, or the model was trained on a test task.
    """
    checkpoint = load_checkpoint(config.checkpoint, str(resolve_device(config.device)))
    names = find_split(config.split).test
    if leaked := set(names) & set(checkpoint.training.get("train_tasks", ())):
        raise CheckpointError(
            f"this model was trained on test tasks of split {config.split!r}: {sorted(leaked)}"
        )
    model, grid = checkpoint.model, FrameGrid(checkpoint.frame_stride)
    tasks = [
        task_clips(
            Trajectories.load(config.data / f"{name}.npz"),
            model.encoders,
            checkpoint.view,
            grid,
            model.config.n_frames,
            config.cache,
        )
        for name in names
    ]
    reports = []
    for task in tasks:
        strangers = [other for other in tasks if other is not task]
        sentences = held_out_instructions(task.clips.task_name)
        reports.append(
            asdict(evaluate_task(model, task, strangers, sentences, config.n_pairs, config.seed))
        )
    figures = [name for name in reports[0] if name != "task_name"]
    result = {
        "tasks": {report["task_name"]: {k: report[k] for k in figures} for report in reports},
        "mean": {k: float(np.mean([report[k] for report in reports])) for k in figures},
        "fingerprint": checkpoint.training.get("fingerprint"),
    }
    if config.out is not None:
        atomic_write_text(config.out, json.dumps(result, indent=1) + "\n")
    return result
