"""Scores of every step of recorded trajectories: rewards to learn from offline (VLP, table 3)."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float
from tqdm import tqdm

from vlp_gym.atomic import atomic_path
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, DataError, SettingError
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.training.labelling import looking_labeler, named_scorer, task_of
from vlp_gym.types import Task

DRAWN_AT_ONCE = 128
"""Frames that are drawn before they are scored; bounds the memory of an episode."""


@dataclass(frozen=True)
class ScoreConfig:
    """Which trajectories to score, and by whom."""

    trajectories: tyro.conf.Positional[Path]
    """A `<Task>.npz` that `vlp collect` wrote."""
    scorer: str = "clip"
    """A scorer of frames: clip, vlmrm, r3m, vip, liv."""
    checkpoint: Path | None = None
    """The scorer's official file; None looks for it (`vlp doctor`); "bundled" is a stand-in for CLIP."""
    settings: tuple[str, ...] = ()
    """Settings of the scorer, NAME=VALUE each, such as alpha=0.5."""
    instruction: str | None = None
    """The sentence to score by; None: the default of the task."""
    device: str = "auto"
    out: Path | None = None
    """The file of scores; None: `<Task>.<scorer>.npz` beside the trajectories."""


def score(config: ScoreConfig) -> dict[str, Any]:
    """Write the score of the frame after every step of a data set, and return where, and what they are like.

    The file holds `score`, float32 [episodes, steps], in the order of the trajectories; their `fingerprint`; and the
    names of scorer and sentence.

    Raises:
        CheckpointError: the trajectories or the checkpoint are missing or damaged.
        SettingError: the scorer scores whole clips, or lacks what it compares with.
        UnknownNameError: no such scorer or setting.
    """
    data = Trajectories.load(config.trajectories)
    scorer = named_scorer(config.scorer, config.checkpoint, config.device, config.settings)
    labeler = looking_labeler(data, scorer)
    task = task_of(data, config.instruction, labeler)
    scores = score_steps(data, labeler, task)
    out = config.out or config.trajectories.with_suffix(f".{config.scorer}.npz")
    arrays: dict[str, Any] = {
        "score": scores,
        "fingerprint": np.array(data.fingerprint()),
        "scorer": np.array(scorer.name),
        "instruction": np.array(task.instruction),
    }
    with atomic_path(out) as draft:
        np.savez_compressed(draft, **arrays)
    correlation = float(np.corrcoef(scores.ravel(), data.env_reward.ravel())[0, 1])
    return {
        "scorer": scorer.name,
        "steps": scores.size,
        "lowest": float(scores.min()),
        "highest": float(scores.max()),
        "correlation with the reward": correlation,
        "written": str(out),
    }


def paid_by(scores: Path, data: Trajectories) -> Trajectories:
    """Return trajectories whose every step is paid what a file of `vlp score` says of it.

    Raises:
        CheckpointError: the file is missing or damaged.
        DataError: the scores are of other trajectories.
    """
    try:
        with scores.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            score, of = stored["score"], str(stored["fingerprint"])
    except FileNotFoundError as error:
        raise CheckpointError(f"no scores at {scores}; write them with `vlp score`") from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{scores} is not a readable file of scores ({error}); write it with `vlp score`"
        ) from error
    if of != data.fingerprint():
        raise DataError(
            f"{scores} has the scores of other trajectories than these of {data.task_name}; score these: `vlp score`"
        )
    return data.with_reward(score)


def score_steps(
    data: Trajectories, labeler: ScoreLabeler, task: Task
) -> Float[np.ndarray, "episodes steps"]:
    """Return the score of the frame after every step, float32.

    A scorer that compares with a first frame gets that of each episode, after its first step: the state before it is
    not among the recorded ones.

    Raises:
        SettingError: the scorer scores whole clips.
    """
    scorer: Any = labeler.scorer
    if getattr(scorer, "unit", "frame") != "frame":
        raise SettingError(
            f"{labeler.name} gives a whole clip one score and no step one of its own; have it label pairs: vlp label"
        )
    scores = np.empty((len(data), data.n_steps), np.float32)
    for row in tqdm(range(len(data)), desc="episodes", leave=False, disable=None):
        episode = data.episode(row)
        for start in range(0, len(episode), DRAWN_AT_ONCE):
            snapshots = episode.snapshots[start : start + DRAWN_AT_ONCE]
            frames = labeler.scene.draw(episode.constants, snapshots)
            if start == 0 and getattr(scorer, "reads_first_frame", False):
                task = replace(task, first_frame=frames[0])
            scores[row, start : start + len(frames)] = scorer(frames[None], task)[0]
    return scores
