"""Batches of clips and sentences that a preference model learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vlp_gym.errors import SettingError
from vlp_gym.tasks.metaworld import UNDO, family, find_task
from vlp_gym.training.behaviours import LEVELS
from vlp_gym.training.features import TaskClips

LEAST_UNDONE = 0.1
"""Pairs in which the object was moved less differently than this share of the way say nothing about undoing it."""

TURNING = frozenset({"not", "no", "never", "without"})
"""Words that a sentence without them says the opposite of."""

TaskPool = Sequence[Sequence[TaskClips]]
"""Tasks, and the clips of each in every folder of data that has it; at least one of them has levels."""
Seen = (
    Float[Tensor, "*clips frames patches channels"] | UInt8[Tensor, "*clips frames height width 3"]
)
"""Features of clips, or their frames."""
Sentences = Mapping[str, Sequence[str]]
"""What every task of a pool may be asked for with, by its name."""


@dataclass(frozen=True)
class BatchConfig:
    """What one gradient step sees."""

    tasks: int = 8
    """Tasks whose clips are compared with each other."""
    windows: int = 6
    """Windows of one task; every pair is a preference. A whole trajectory of every level comes beside them."""
    mixed: float = 0.5
    """How often half of a task's windows are of another folder than the rest: what an agent did wrongly is compared
    with what others did right, which its own replay may never show."""
    match_tasks: int = 32
    """Tasks that are told apart by what they show."""
    match_clips: int = 2
    """Clips of each of these."""
    word_dropout: float = 0.1
    """Share of words that a sentence loses on the way in, so that no single phrase is learned by heart (ours)."""
    undo_sharpness: float = 8.0
    """Under the sentence of the task that undoes this one a label is sigmoid(sharpness * difference), of how far the
    object was moved the wrong way."""
    rank_sharpness: float = 12.0
    """A label is sigmoid(sharpness * difference of rank), in their folder, or of all if they are of two: sure where
    returns differ, soft where they nearly tie."""

    def __post_init__(self) -> None:
        """Refuse shares that are none, and so few tasks or clips that nothing can be compared."""
        for name in ("mixed", "word_dropout"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise SettingError(f"{name} is a share and must be in [0, 1], got {share}")
        for name, least in (("tasks", 1), ("windows", 1), ("match_tasks", 2), ("match_clips", 1)):
            check_least(f"batch.{name}", getattr(self, name), least)


def check_least(name: str, value: float | int, least: float | int) -> None:
    """Refuse a number that is below the least one, or none.

    Raises:
        SettingError: it is.
    """
    if not value >= least:
        raise SettingError(f"{name} must be {least:g} or more, got {value:g}")


@dataclass(frozen=True)
class PreferenceBatch:
    """Clips of some tasks, windows first, then one whole trajectory of every level; and a sentence of each task.

    Attributes:
        clips: what `VLP.see` reads: float16 features [tasks, clips, frames, patches, channels], or uint8 frames [tasks,
            clips, frames, height, width, 3].
        state: where gripper and object are, metres, float32 [tasks, clips, frames, 6].
        label: probability that clip j is preferred to clip i, float32 [tasks, i, j].
        weight: which pairs count, 0 or 1, float32 [tasks, i, j].
        sentences: one a task.
        undoing: a sentence of the training task that undoes each, None where there is no such.
        undone_label: like `label`, under that sentence, float32 [tasks, i, j].
        undone_weight: like `weight`, of pairs in which the object was moved differently far.
        still: whether the clips are drawn as the view says; else every episode has a look of its own.
    """

    clips: Seen
    state: Float[Tensor, "tasks clips frames 6"]
    label: Float[Tensor, "tasks clips clips"]
    weight: Float[Tensor, "tasks clips clips"]
    sentences: list[str]
    undoing: list[str | None]
    undone_label: Float[Tensor, "tasks clips clips"]
    undone_weight: Float[Tensor, "tasks clips clips"]
    still: bool = True


@dataclass(frozen=True)
class MatchBatch:
    """Clips of many tasks and a sentence of each, to be told which belongs to which.

    Attributes:
        clips: as in `PreferenceBatch`, but [tasks * clips, ...], the clips of a task side by side.
        sentences: one a task.
        way: where experts of each task move its object, as in `ClipSet.way`, float32 [tasks, 3].
    """

    clips: Seen
    sentences: list[str]
    way: Float[Tensor, "tasks 3"]


def preference_batch(
    pool: TaskPool, sentences: Sentences, config: BatchConfig, rng: np.random.Generator
) -> PreferenceBatch:
    """Return a random batch; tasks uniformly, then clips of any behaviour, then one of the task's sentences.

    Where there are episodes with looks of their own, every other batch is of these.
    """
    still = all(clips.still for folders in pool for clips in folders) or bool(rng.random() < 0.5)
    pool = _of_look(pool, still)
    drawn = [
        _draw_clips(folders, config.windows, config.mixed, rng)
        for folders in _draw_tasks(pool, config.tasks, rng)
    ]
    labels = [_labels(each, config.rank_sharpness) for each in drawn]
    undone = [
        _undone_labels(each, label, config.undo_sharpness)
        for each, (label, _) in zip(drawn, labels, strict=True)
    ]

    def sentence(task_name: str) -> str:
        return _draw_sentence(sentences[task_name], config.word_dropout, rng)

    return PreferenceBatch(
        clips=torch.stack([each.clips for each in drawn]),
        state=torch.stack([each.state for each in drawn]),
        label=torch.stack([label for label, _ in labels]),
        weight=torch.stack([weight for _, weight in labels]),
        sentences=[sentence(each.task_name) for each in drawn],
        undoing=[
            None if undoing is None else sentence(undoing)
            for undoing in (_undoing(each.task_name, sentences) for each in drawn)
        ],
        undone_label=torch.stack([label for label, _ in undone]),
        undone_weight=torch.stack([weight for _, weight in undone]),
        still=still,
    )


def match_batch(
    pool: TaskPool, sentences: Sentences, config: BatchConfig, rng: np.random.Generator
) -> MatchBatch:
    """Return a random batch of different tasks' still clips, of any behaviour, and one sentence a task."""
    drawn = _draw_tasks(_of_look(pool, True), min(config.match_tasks, len(pool)), rng)
    tasks = [_one(folders, rng) for folders in drawn]
    rows = [rng.choice(len(task.clips), config.match_clips, replace=False) for task in tasks]
    return MatchBatch(
        clips=torch.cat([task.gather(r) for task, r in zip(tasks, rows, strict=True)]),
        sentences=[
            _draw_sentence(sentences[task.clips.task_name], config.word_dropout, rng)
            for task in tasks
        ],
        way=torch.tensor(
            np.stack([folders[0].clips.way for folders in drawn]), dtype=torch.float32
        ),
    )


def _of_look(pool: TaskPool, still: bool) -> TaskPool:
    return [[clips for clips in folders if clips.still == still] for folders in pool]


def _draw_tasks(
    pool: TaskPool, n_tasks: int, rng: np.random.Generator
) -> list[Sequence[TaskClips]]:
    # Different tasks, however many folders they are in: else one would be a stranger to itself. A task and the one
    # that undoes it are no strangers either; they come together only where there are too few others.
    order = [pool[int(i)] for i in rng.permutation(len(pool))]
    first: dict[str, Sequence[TaskClips]] = {}
    for folders in order:
        first.setdefault(family(_name(folders)), folders)
    late = [folders for folders in order if first[family(_name(folders))] is not folders]
    return [*first.values(), *late][:n_tasks]


def _undoing(task_name: str, sentences: Sentences) -> str | None:
    """Return the name of a training task that undoes this one, if there is any.

    Of no other: a sentence that is only ever read beside what it does not ask for is learned as what nobody wants.
    """
    candidates = (UNDO + task_name, find_task(task_name).counterpart)
    return next((name for name in candidates if name is not None and name in sentences), None)


def _name(folders: Sequence[TaskClips]) -> str:
    return folders[0].clips.task_name


class _Drawn(NamedTuple):
    """Clips of one task: windows of one folder or two, then a whole trajectory of every level."""

    task_name: str
    clips: Seen
    state: Float[Tensor, "clips frames 6"]
    folder: Int[np.ndarray, " clips"]
    whole: Bool[np.ndarray, " clips"]
    rank: Float[np.ndarray, " clips"]
    rank_of_all: Float[np.ndarray, " clips"]
    level: Int[np.ndarray, " clips"]
    moved: Float[np.ndarray, " clips"]


def _draw_clips(
    folders: Sequence[TaskClips], n_windows: int, mixed: float, rng: np.random.Generator
) -> _Drawn:
    halves, sizes = [_one(folders, rng)], [n_windows]
    if len(folders) > 1 and rng.random() < mixed:
        others = [folder for folder in folders if folder is not halves[0]]
        halves, sizes = [*halves, _one(others, rng)], [n_windows - n_windows // 2, n_windows // 2]
    parts = [
        (half, rng.choice(np.flatnonzero(~half.clips.whole), size, replace=False))
        for half, size in zip(halves, sizes, strict=True)
    ]
    # The replay of an agent has no levels; another folder has.
    levelled = halves[0] if halves[0].clips.whole.any() else _levelled(folders, rng)
    levels = [
        rng.choice(np.flatnonzero(levelled.clips.level == level)) for level in range(len(LEVELS))
    ]
    parts.append((levelled, np.array(levels)))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(task.clips, name)[rows] for task, rows in parts])

    return _Drawn(
        _name(folders),
        torch.cat([task.gather(rows) for task, rows in parts]),
        torch.cat([task.gather_state(rows) for task, rows in parts]),
        np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts]),
        joined("whole"),
        joined("rank"),
        joined("rank_of_all"),
        joined("level"),
        joined("moved"),
    )


def _one(folders: Sequence[TaskClips], rng: np.random.Generator) -> TaskClips:
    return folders[int(rng.integers(len(folders)))]


def _levelled(folders: Sequence[TaskClips], rng: np.random.Generator) -> TaskClips:
    """Return the clips of one of the folders that have levels, and with them experts."""
    with_levels = [folder for folder in folders if folder.clips.whole.any()]
    return _one(with_levels, rng)


def _labels(
    drawn: _Drawn, sharpness: float
) -> tuple[Float[Tensor, "clips clips"], Float[Tensor, "clips clips"]]:
    whole, folder, level = drawn.whole, drawn.folder, drawn.level

    def gap(rank: Float[np.ndarray, " clips"]) -> Float[np.ndarray, "clips clips"]:
        gaps: Float[np.ndarray, "clips clips"] = np.nan_to_num(rank[None, :] - rank[:, None])
        return gaps

    # Among one agent's own windows a small difference of return says as much as a large one among all.
    same = folder[:, None] == folder[None, :]
    by_rank = 1 / (1 + np.exp(-sharpness * np.where(same, gap(drawn.rank), gap(drawn.rank_of_all))))
    by_level = 0.5 + 0.5 * np.sign(level[None, :] - level[:, None])
    label = np.where(whole[:, None] & whole[None, :], by_level, by_rank)
    weight = np.triu(_same_kind(drawn), k=1)  # every pair once, whichever way round
    return torch.tensor(label, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32)


def _undone_labels(
    drawn: _Drawn, label: Float[Tensor, "clips clips"], sharpness: float
) -> tuple[Float[Tensor, "clips clips"], Float[Tensor, "clips clips"]]:
    # Who moves a thing one way gets further from the end of the other. Whoever has not moved it yet has to come near it
    # first, whichever way it is wanted.
    gap = drawn.moved[:, None] - drawn.moved[None, :]
    still = np.abs(drawn.moved) < LEAST_UNDONE / 2
    both_still = still[:, None] & still[None, :]
    undone = np.where(both_still, label.numpy(), 1 / (1 + np.exp(-sharpness * gap)))
    weight = np.triu(_same_kind(drawn) & (both_still | (np.abs(gap) > LEAST_UNDONE)), k=1)
    return torch.tensor(undone, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32)


def _same_kind(drawn: _Drawn) -> Bool[np.ndarray, "clips clips"]:
    same: np.ndarray = drawn.whole[:, None] == drawn.whole[None, :]
    return same


def _draw_sentence(sentences: Sequence[str], word_dropout: float, rng: np.random.Generator) -> str:
    return forget_words(str(rng.choice(sentences)), word_dropout, rng)


def forget_words(sentence: str, share: float, rng: np.random.Generator) -> str:
    """Return a sentence without about `share` of its words, one word at least, and with all that turn it round.

    >>> forget_words("open the door", 0.0, np.random.default_rng(0))
    'open the door'
    """
    words = sentence.split()
    kept = [word for word in words if rng.random() >= share or word in TURNING]
    return " ".join(kept or [str(rng.choice(words))])
