"""Batches of clips and sentences that a preference model learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlp_gym.tasks.instructions import training_instructions
from vlp_gym.training.clips import ClipSet
from vlp_gym.training.features import TaskClips

TaskPool = Sequence[Sequence[TaskClips]]
"""Tasks, and the clips of each in every folder of data."""


@dataclass(frozen=True)
class BatchConfig:
    """What one gradient step sees."""

    tasks: int = 8
    """Tasks whose clips are compared with each other."""
    windows: int = 6
    """Windows of one task; every pair is a preference. A whole trajectory of every level comes beside them."""
    match_tasks: int = 32
    """Tasks that are told apart by what they show."""
    match_clips: int = 2
    """Clips of each of these."""
    word_dropout: float = 0.1
    """Share of words that a sentence loses on the way in, so that no single phrase is learned by heart (ours)."""
    rank_sharpness: float = 12.0
    """A label is sigmoid(sharpness * difference of rank): sure where returns differ, soft where they nearly tie."""


@dataclass(frozen=True)
class PreferenceBatch:
    """Clips of some tasks, windows first, then one whole trajectory of every level; and a sentence of each task.

    Attributes:
        features: float32 [tasks, clips, frames, patches, channels].
        state: where gripper and object are, metres, float32 [tasks, clips, frames, 6].
        label: probability that clip j is preferred to clip i, float32 [tasks, i, j].
        weight: which pairs count, 0 or 1, float32 [tasks, i, j].
        sentences: one a task.
    """

    features: Float[Tensor, "tasks clips frames patches channels"]
    state: Float[Tensor, "tasks clips frames 6"]
    label: Float[Tensor, "tasks clips clips"]
    weight: Float[Tensor, "tasks clips clips"]
    sentences: list[str]


@dataclass(frozen=True)
class MatchBatch:
    """Clips of many tasks and a sentence of each, to be told which belongs to which.

    Attributes:
        features: float32 [tasks * clips, frames, patches, channels], the clips of a task side by side.
        sentences: one a task.
    """

    features: Float[Tensor, "clips frames patches channels"]
    sentences: list[str]


def preference_batch(
    pool: TaskPool, config: BatchConfig, rng: np.random.Generator
) -> PreferenceBatch:
    """Return a random batch; tasks uniformly, then clips of any behaviour, then one of the task's sentences."""
    tasks = _draw_tasks(pool, config.tasks, rng)
    rows = [_draw_rows(task.clips, config.windows, rng) for task in tasks]
    labels = [
        _labels(task.clips, r, config.rank_sharpness) for task, r in zip(tasks, rows, strict=True)
    ]
    return PreferenceBatch(
        features=torch.stack([task.gather(r) for task, r in zip(tasks, rows, strict=True)]),
        state=torch.stack([task.gather_state(r) for task, r in zip(tasks, rows, strict=True)]),
        label=torch.stack([label for label, _ in labels]),
        weight=torch.stack([weight for _, weight in labels]),
        sentences=[_draw_sentence(task, config.word_dropout, rng) for task in tasks],
    )


def match_batch(pool: TaskPool, config: BatchConfig, rng: np.random.Generator) -> MatchBatch:
    """Return a random batch of different tasks' clips, of any behaviour, and one sentence a task."""
    tasks = _draw_tasks(pool, min(config.match_tasks, len(pool)), rng)
    rows = [rng.choice(len(task.clips), config.match_clips, replace=False) for task in tasks]
    return MatchBatch(
        features=torch.cat([task.gather(r) for task, r in zip(tasks, rows, strict=True)]),
        sentences=[_draw_sentence(task, config.word_dropout, rng) for task in tasks],
    )


def _draw_tasks(pool: TaskPool, n_tasks: int, rng: np.random.Generator) -> list[TaskClips]:
    # Different tasks, however many folders they are in: else one would be a stranger to itself.
    chosen = rng.choice(len(pool), n_tasks, replace=False)
    return [pool[i][int(rng.integers(len(pool[i])))] for i in chosen]


def _draw_rows(
    clips: ClipSet, n_windows: int, rng: np.random.Generator
) -> Int[np.ndarray, " clips"]:
    windows = rng.choice(np.flatnonzero(~clips.whole), n_windows, replace=False)
    levels = [rng.choice(np.flatnonzero(clips.level == level)) for level in range(3)]
    return np.concatenate([windows, levels])


def _labels(
    clips: ClipSet, rows: Int[np.ndarray, " clips"], sharpness: float
) -> tuple[Float[Tensor, "clips clips"], Float[Tensor, "clips clips"]]:
    whole = clips.whole[rows]
    rank, level = np.nan_to_num(clips.rank[rows]), clips.level[rows]
    by_rank = 1 / (1 + np.exp(-sharpness * (rank[None, :] - rank[:, None])))
    by_level = 0.5 + 0.5 * np.sign(level[None, :] - level[:, None])
    label = np.where(whole[:, None] & whole[None, :], by_level, by_rank)
    same_kind = whole[:, None] == whole[None, :]
    weight = np.triu(same_kind, k=1)  # every pair once, whichever way round
    return torch.tensor(label, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32)


def _draw_sentence(task: TaskClips, word_dropout: float, rng: np.random.Generator) -> str:
    sentence = str(rng.choice(training_instructions(task.clips.task_name)))
    return forget_words(sentence, word_dropout, rng)


def forget_words(sentence: str, share: float, rng: np.random.Generator) -> str:
    """Return a sentence without about `share` of its words, one word at least.

    >>> forget_words("open the door", 0.0, np.random.default_rng(0))
    'open the door'
    """
    words = sentence.split()
    kept = [word for word in words if rng.random() >= share]
    return " ".join(kept or [str(rng.choice(words))])
