"""Reads labelled pairs from disk, whoever wrote them, and says what became of those without a label."""

from pathlib import Path
from typing import Literal

import numpy as np

from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.cpl import Mode, read_cpl
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import DataError
from vlp_gym.feedback.table import LabelTable
from vlp_gym.types import Status

Unsure = Literal["tie", "ignore", "drop"]
"""What becomes of a pair that the labeler abstained from: a label of 0.5 (CPL, IPL, RL-VLM-F); a weight of 0, so that
its segments are still cloned (PLARE, which also counts it in the mean; we do not); or nothing, it is left out. A pair
for which labelling failed is always left out."""


def read_comparisons(
    path: Path,
    unsure: Unsure = "tie",
    score: str = "rl_sum",
    mode: Mode = "comparison",
    n_segments: int | None = None,
) -> Comparisons:
    """Return the pairs of a file: a label table (`.parquet`), or a public one of CPL or IPL (`.npz`).

    Args:
        path: the file.
        unsure: what becomes of abstentions, in label tables.
        score: see `read_cpl`.
        mode: see `read_cpl`.
        n_segments: see `read_cpl`.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        DataError: nothing can be learned from it as it is.
    """
    if path.suffix == ".npz":
        return read_cpl(path, score, mode, n_segments)
    return comparisons_of(LabelTable.load(path), unsure, path.name)


def comparisons_of(
    table: LabelTable, unsure: Unsure = "tie", about: str = "label table"
) -> Comparisons:
    """Return the pairs of a label table.

    Raises:
        DataError: they are of several tasks, or nothing can be learned from them as they are.
    """
    if not len(table):
        raise DataError(f"{about} is empty; label pairs with `vlp label`")
    status, label = table.column("status"), table.column("label")
    labelled = status == Status.LABELLED
    kept = labelled | ((status == Status.ABSTAINED) & (unsure != "drop"))
    if not labelled.any():
        raise DataError(
            f"{about}: none of {len(table)} pairs has a label; look at its status column"
        )
    obs, action = (table.segments(name)[kept] for name in ("obs", "action"))
    n_pairs = len(obs)
    counts = labelled[kept] if unsure == "ignore" else np.ones(n_pairs, bool)
    return Comparisons(
        obs=np.concatenate([obs[:, 0], obs[:, 1]]),
        action=np.concatenate([action[:, 0], action[:, 1]]),
        pairs=np.stack([np.arange(n_pairs), np.arange(n_pairs) + n_pairs], axis=1),
        label=np.where(labelled[kept], label[kept], 0.5).astype(np.float32),
        weight=counts.astype(np.float32),
        task_name=_task_of(table, about),
        about=f"{n_pairs} pairs of {about}",
    )


def check_segments(table: LabelTable, data: Trajectories) -> None:
    """Refuse a table whose segments are not pieces of these trajectories.

    Raises:
        DataError: it is of another task or data set, or names episodes or steps that there are not.
    """
    task = _task_of(table, "the label table")
    if task not in (None, data.task_name):
        raise DataError(
            f"the pairs are of {task}, the trajectories of {data.task_name}; name those of one task"
        )
    obs = table.segments("obs")
    for side, name in enumerate(("first", "second")):
        episode, start = table.column(f"{name}_episode"), table.column(f"{name}_start")
        length = obs.shape[2]
        gone = (
            (episode < 0) | (episode >= len(data)) | (start < 0) | (start + length > data.n_steps)
        )
        if gone.any():
            row = int(gone.argmax())
            raise DataError(
                f"pair {row} is of steps {start[row]} to {start[row] + length} of episode {episode[row]}, but there "
                f"are {len(data)} episodes of {data.n_steps} steps; label these trajectories again with `vlp label`"
            )
        steps = start[:, None] + np.arange(length)
        differs = (data.obs[episode[:, None], steps] != obs[:, side]).any((1, 2))
        if differs.any():
            raise DataError(
                f"{int(differs.sum())} segments are not what these trajectories hold there; they were cut from "
                "another data set. Label these again with `vlp label`"
            )


def _task_of(table: LabelTable, about: str) -> str | None:
    if "task" not in table.names:
        return None
    tasks = sorted(set(table.column("task").tolist()))
    if len(tasks) > 1:
        raise DataError(f"{about} has pairs of {', '.join(tasks)}; learn one task at a time")
    return str(tasks[0])
