"""How good a preference model is on tasks, and in words, that it was not trained on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, DataError, SettingError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import LANGUAGES, instructions
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.agreement import (
    Calibration,
    Pairs,
    agreement,
    calibration,
    label_quality,
    pairs_across,
    random_pairs,
)
from vlp_gym.training.behaviours import EXPLORING, LEVELS
from vlp_gym.training.clips import ClipSet
from vlp_gym.training.evaluation_report import Evaluation, LanguageReport, TaskReport
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.labeler_report import LabelerReport, ReportConfig, report
from vlp_gym.training.paper_protocol import PAPER_PAIRS, paper_pairs
from vlp_gym.training.scoring import score_clips

MODEL_PAIRS = 4000
"""Pairs of every figure of a preference model, unless asked otherwise."""
MIN_PAIRS = 10
"""Fewest pairs of a figure."""


def evaluate_task(
    model: VLP,
    data: Trajectories,
    task: TaskClips,
    strangers: Sequence[TaskClips],
    sentences: Sequence[str],
    n_pairs: int,
    seed: int,
) -> tuple[TaskReport, Float[np.ndarray, " strangers"], Calibration]:
    """Return the figures of one task, how often each other task's trajectories beat its own, and its calibration.

    Args:
        model: the preference model.
        data: trajectories of the task.
        task: their clips.
        strangers: clips of other tasks, for IVP and ILP.
        sentences: instructions of the task.
        n_pairs: pairs drawn for every figure but those of the paper's protocol, which has its own number.
        seed: decides the pairs.
    """
    rng = np.random.default_rng(seed)
    clips = task.clips
    own = score_clips(model, task, np.arange(len(clips)), sentences)
    counterpart = find_task(clips.task_name).counterpart
    undoing = instructions(counterpart, "unseen") if counterpart else ()
    whole, window = np.flatnonzero(clips.whole), np.flatnonzero(~clips.whole)
    exploring = window[np.isin(clips.behaviour[window], EXPLORING)]
    level, env_return = clips.level.astype(float), clips.env_return

    by_level = random_pairs(whole, n_pairs, rng)
    of_level = [whole[clips.level[whole] == number] for number in range(len(LEVELS))]
    between = {
        f"{LEVELS[high]}_{LEVELS[low]}": _ordered(
            own, level, pairs_across(of_level[low], of_level[high], n_pairs, rng)
        )[0]
        for low, high in combinations(range(len(LEVELS)), 2)
    }
    windows, windows_clear = _ordered_if_any(own, env_return, random_pairs(window, n_pairs, rng))
    explored, explored_clear = _ordered_if_any(
        own, env_return, random_pairs(exploring, n_pairs, rng)
    )
    within = [
        random_pairs(window[clips.behaviour[window] == name], n_pairs // 3, rng) for name in LEVELS
    ]
    curves = calibration(own, level, by_level)
    by_kmeans = paper_pairs(data, clips, PAPER_PAIRS, seed)
    quality = [label_quality(score, env_return, by_kmeans) for score in own]
    balanced = [q.balanced for q in quality if q.balanced is not None]

    turned = turned_moved = None
    if undoing:
        unsaid = score_clips(model, task, whole, undoing)
        turned = _turned(own, unsaid, whole, by_level, level)
        with_expert = by_level[(level[by_level] == LEVELS.index("expert")).any(1)]
        turned_moved = _turned(own, unsaid, whole, with_expert, level)

    mine = own[:, whole]
    foreign = _foreign_scores(model, strangers, sentences)
    beaten = np.array([_beats(theirs, mine) for theirs in foreign])
    sizes = np.array([theirs.shape[1] for theirs in foreign])
    foreign_gaps = [_gaps(theirs) for theirs in foreign]
    ilp_gap = fmean(float(gaps.mean()) for gaps in foreign_gaps)
    report = TaskReport(
        task_name=clips.task_name,
        itp=_ordered(own, level, by_level)[0],
        itp_of_return=agreement(env_return, level, by_level).all_pairs,
        **between,
        ivp=float(1 - np.average(beaten, weights=sizes)),
        ilp_gap=ilp_gap,
        ilp_delta=ilp_gap / max(float(_gaps(mine).mean()), 1e-9),
        ilp_loss=fmean(float(_loss_of_gaps(gaps).mean()) for gaps in foreign_gaps),
        windows=windows,
        windows_clear=windows_clear,
        exploring=explored,
        exploring_clear=explored_clear,
        within_level=_ordered_if_any(own, env_return, np.concatenate(within))[0],
        succeeding=_succeeding(own, clips, n_pairs, rng),
        rank_correlation=float(
            np.mean([spearmanr(s[window], env_return[window]).statistic for s in own])
        ),
        opposite=turned,
        opposite_moved=turned_moved,
        calibration_error=curves.error,
        paper_accuracy=fmean(q.accuracy for q in quality),
        paper_constant=fmean(q.constant for q in quality),
        # The truth is one-sided under every sentence or under none.
        paper_balanced=fmean(balanced) if balanced else None,
        paper_phi=fmean(q.phi for q in quality),
        languages={
            language: _language(
                model, task, strangers, instructions(clips.task_name, language), by_level
            )
            for language in LANGUAGES
        },
    )
    return report, beaten, curves


def _ordered(
    own: Float[np.ndarray, "sentences clips"], truth: Float[np.ndarray, " clips"], pairs: Pairs
) -> tuple[float, float]:
    """Return how often pairs are ordered as the truth does, all of them and the half that differs more."""
    found = [agreement(score, truth, pairs) for score in own]
    return fmean(each.all_pairs for each in found), fmean(each.clear_half for each in found)


def _ordered_if_any(
    own: Float[np.ndarray, "sentences clips"], truth: Float[np.ndarray, " clips"], pairs: Pairs
) -> tuple[float, float] | tuple[None, None]:
    """Return the same, None where no pair differs."""
    return _ordered(own, truth, pairs) if np.diff(truth[pairs]).any() else (None, None)


def _succeeding(
    own: Float[np.ndarray, "sentences clips"],
    clips: ClipSet,
    n_pairs: int,
    rng: np.random.Generator,
) -> float | None:
    """Return how windows in success at some step are ordered by how long they are; None where no pair differs."""
    good = np.flatnonzero(~clips.whole & (clips.success > 0))
    return _ordered_if_any(own, clips.success, random_pairs(good, n_pairs, rng))[0]


def _foreign_scores(
    model: VLP, strangers: Sequence[TaskClips], sentences: Sequence[str]
) -> list[Float[np.ndarray, "sentences others"]]:
    """Return the scores of each other task's trajectories."""
    return [
        score_clips(model, other, np.flatnonzero(other.clips.whole), sentences)
        for other in strangers
    ]


def _language(
    model: VLP,
    task: TaskClips,
    strangers: Sequence[TaskClips],
    sentences: Sequence[str],
    by_level: Pairs,
) -> LanguageReport:
    clips = task.clips
    whole = np.flatnonzero(clips.whole)
    mine = score_clips(model, task, whole, sentences)
    place = np.searchsorted(whole, by_level)
    level = clips.level[whole].astype(float)
    theirs = _foreign_scores(model, strangers, sentences)
    beaten = _beats(np.concatenate(theirs, axis=1), mine)
    itp = float(np.mean([agreement(score, level, place).all_pairs for score in mine]))
    return LanguageReport(itp=itp, ivp=1 - beaten)


def _turned(
    own: Float[np.ndarray, "sentences clips"],
    undoing: Float[np.ndarray, "others whole"],
    whole: Int[np.ndarray, " whole"],
    pairs: Int[np.ndarray, "pairs 2"],
    level: Float[np.ndarray, " clips"],
) -> float:
    """Return how often a pair of different level gets opposite labels under the two kinds of sentence."""
    pairs = pairs[level[pairs[:, 0]] != level[pairs[:, 1]]]
    place = np.searchsorted(whole, pairs)
    said = np.sign(own[:, pairs[:, 1]] - own[:, pairs[:, 0]])
    unsaid = np.sign(undoing[:, place[:, 1]] - undoing[:, place[:, 0]])
    return float((said[:, None] * unsaid[None] < 0).mean())


def _beats(
    theirs: Float[np.ndarray, "sentences others"], mine: Float[np.ndarray, "sentences clips"]
) -> float:
    """Return how often `theirs` is not below `mine`: a score that says nothing about IVP fails it."""
    return float((theirs[:, None, :] >= mine[:, :, None]).mean())


def _gaps(scores: Float[np.ndarray, "sentences clips"]) -> Float[np.ndarray, "sentences pairs"]:
    """Return |difference of score| of every two clips."""
    first, second = np.triu_indices(scores.shape[1], 1)
    gaps: Float[np.ndarray, "sentences pairs"] = np.abs(scores[:, first] - scores[:, second])
    return gaps


def _loss_of_gaps(gaps: Float[np.ndarray, "*pairs"]) -> Float[np.ndarray, "*pairs"]:
    """Return the cross-entropy of each pair against one half: VLP eq. 5, whose floor is ln 2."""
    return np.logaddexp(gaps / 2, -gaps / 2)


@dataclass(frozen=True)
class EvaluateConfig:
    """What to judge a preference model by."""

    checkpoint: Path | None = None
    """Folder of the checkpoint; None is the bundled one. Of another scorer its official file, or "bundled"."""
    data: Path = Path("data/graded-0")
    """Folder that `vlp collect` wrote; tasks of the split that are missing are named."""
    cache: Path = Path("data/cache")
    """Drawn frames and encoder features."""
    split: str = "paper"
    """Whose test tasks: paper, paper-dev or ml45, see `vlp_gym.tasks.splits`."""
    n_pairs: int | None = None
    """Pairs of every figure and task, but for those of the paper's protocol, which has 100; None: 4000 for a
    preference model, 100 for a labeler."""
    seed: int = 0
    """Decides the pairs."""
    device: str = "auto"
    """`auto`, the GPU if there is one; or as torch names it."""
    out: Path | None = None
    """JSON file for the figures, and beside it a page of pictures (.png); None prints only."""
    labeler: str | None = None
    """Judge any labeler instead of a preference model in full: a scorer by its name (vlp, clip, vlmrm, r3m, vip, liv,
    roboclip), or oracle; see `vlp_gym.training.labeler_report`."""
    settings: tuple[str, ...] = ()
    """Settings of a labeler's scorer, NAME=VALUE each, such as alpha=0.5."""

    def __post_init__(self) -> None:
        """Refuse so few pairs that a figure may have none to compare."""
        if self.n_pairs is not None and self.n_pairs < MIN_PAIRS:
            raise SettingError(
                f"n_pairs must be {MIN_PAIRS} or more, got {self.n_pairs}: of fewer pairs a figure says nothing"
            )


def evaluate_command(config: EvaluateConfig) -> Evaluation | LabelerReport:
    """Return the figures of a preference model on the test tasks of a split, under held-out sentences.

    With `labeler`, those of any labeler instead, under the default sentence of each task.

    Raises:
        CheckpointError: the checkpoint or the data are missing or damaged, or the model was trained on a test task.
        UnknownNameError: no such labeler, setting or split.
    """
    return evaluate(config) if config.labeler is None else report(ReportConfig.of(config))


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Return the figures of a model on the test tasks of a split, each task under its held-out sentences.

    Raises:
        CheckpointError: the checkpoint or the data are missing or damaged, or the model was trained on a test task.
        DataError: a task has no episodes of one of the levels that are compared.
    """
    n_pairs = config.n_pairs or MODEL_PAIRS
    checkpoint = Checkpoint.from_pretrained(config.checkpoint, str(resolve_device(config.device)))
    names = find_split(config.split).test
    if leaked := set(names) & set(checkpoint.training.get("train_tasks", ())):
        raise CheckpointError(
            f"this model was trained on test tasks of split {config.split!r}: {sorted(leaked)}"
        )
    model, grid = checkpoint.model, FrameGrid(checkpoint.frame_stride)
    data = [_with_levels(Trajectories.load(config.data / f"{name}.npz")) for name in names]
    tasks = [
        task_clips(each, model.encoders, checkpoint.view, grid, model.config.n_frames, config.cache)
        for each in data
    ]
    beats = np.full((len(tasks), len(tasks)), 0.5)
    reports, curves = [], []
    for i, task in enumerate(tasks):
        others = [j for j in range(len(tasks)) if j != i]
        report, beats[i, others], curve = evaluate_task(
            model,
            data[i],
            task,
            [tasks[j] for j in others],
            instructions(task.clips.task_name, "unseen"),
            n_pairs,
            config.seed,
        )
        reports.append(report)
        curves.append(curve)
    about = {
        "fingerprint": checkpoint.training.get("fingerprint"),
        "split": config.split,
        "n_pairs": n_pairs,
        "paper_pairs": PAPER_PAIRS,
        "seed": config.seed,
        "twins": _twins(names, checkpoint.training.get("undoing", ())),
    }
    result = Evaluation(tuple(reports), beats, tuple(curves), about)
    if config.out is not None:
        from vlp_gym.training.evaluation_page import write_page  # noqa: PLC0415

        atomic_write_text(config.out, json.dumps(result.as_json(), indent=1) + "\n")
        write_page(result, config.out.with_suffix(".png"))
    return result


def _with_levels(data: Trajectories) -> Trajectories:
    if missing := [name for name in LEVELS if name not in data.behaviour]:
        raise DataError(
            f"{data.task_name} has no episodes of {', '.join(missing)}; the figures compare {', '.join(LEVELS)} ones: "
            "collect them (`vlp collect`), or judge labels of these episodes with --labeler"
        )
    return data


def _twins(names: Sequence[str], undoing: Sequence[str]) -> dict[str, str]:
    """Return the test tasks whose sentences were trained on, with the training task of ours that asks for the same."""
    asked = {find_task(name).said_like: name for name in undoing}
    return {name: asked[name] for name in names if name in asked}
