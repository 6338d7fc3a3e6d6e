"""What a model in training is worth on episodes and sentences that it is not trained on."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from vlp_gym.models.vlp import VLP
from vlp_gym.tasks.instructions import instructions
from vlp_gym.training.agreement import agreement, random_pairs
from vlp_gym.training.features import TaskClips
from vlp_gym.training.scoring import score_clips

WINDOWS = 100
"""Windows of a task that are scored."""
N_PAIRS = 400
"""Pairs of a figure and task."""


def validation_figures(model: VLP, tasks: Sequence[TaskClips], seed: int) -> dict[str, float]:
    """Return the mean over tasks of how often pairs are ordered right, each under one unseen sentence.

    Returns:
        "itp" of whole trajectories of different level, "windows" of segments by return, and their mean "validation".
    """
    rng = np.random.default_rng(seed)
    itp, windows = [], []
    for task in tasks:
        clips = task.clips
        unseen = instructions(clips.task_name, "unseen")
        sentence = unseen[int(rng.integers(len(unseen)))]
        whole = np.flatnonzero(clips.whole)
        window = np.flatnonzero(~clips.whole)
        window = rng.choice(window, min(WINDOWS, len(window)), replace=False)
        rows = np.concatenate([whole, window])
        score = score_clips(model, task, rows, [sentence])[0]
        by_level = random_pairs(np.arange(len(whole)), N_PAIRS, rng)
        by_return = random_pairs(np.arange(len(whole), len(rows)), N_PAIRS, rng)
        itp.append(agreement(score, clips.level[rows].astype(float), by_level).all_pairs)
        windows.append(agreement(score, clips.env_return[rows], by_return).all_pairs)
    figures = {"itp": fmean(itp), "windows": fmean(windows)}
    return {**figures, "validation": fmean(figures.values())}
