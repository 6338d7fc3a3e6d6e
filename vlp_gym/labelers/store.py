"""The score store: every score that a model ever gave, by what was looked at, so that nothing is scored twice."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_path
from vlp_gym.errors import CheckpointError
from vlp_gym.types import Task

WAIT_S = 60.0
"""How long a write waits for another process that shares the store."""

_SCHEMA = """
create table if not exists scores (
  address blob primary key,
  score real not null,
  scorer text not null,
  instruction text not null,
  scene text not null,
  frames text not null,
  content text not null,
  seconds real not null,
  time real not null
) without rowid
"""
COLUMNS = (
    "address",
    "score",
    "scorer",
    "instruction",
    "scene",
    "frames",
    "content",
    "seconds",
    "time",
)
"""Columns of a score. `scorer` names model and weights, `scene` the world, camera, size and quality of the frames,
`frames` which steps of a segment they are of; `content` is the hash of the states that they were drawn from; `seconds`
is the share of the time that drawing and scoring took, `time` when (seconds since 1970)."""


class Question(NamedTuple):
    """What a score is the answer to; equal questions have one answer."""

    scorer: str
    instruction: str
    scene: str
    frames: str
    content: str

    @property
    def address(self) -> bytes:
        """The hash of it all, 16 bytes."""
        return blake2b(json.dumps(self).encode(), digest_size=16).digest()


def question_of(
    scorer: str,
    task: Task,
    scene: str,
    frames: str,
    constants: Mapping[str, NDArray[Any]],
    snapshots: NDArray[Any],
) -> Question:
    """Return what is asked about frames that are drawn from these states; arguments as in `COLUMNS`."""
    content = blake2b(digest_size=16)
    for name in sorted(constants):
        _add(content, name, constants[name])
    _add(content, "snapshots", snapshots)
    pictures = {"goal": task.goal_image, "first": task.first_frame}
    for name, picture in pictures.items():
        if picture is not None:
            _add(content, name, picture)
    said = task.instruction if task.baseline is None else f"{task.instruction}\n{task.baseline}"
    return Question(scorer, said, scene, frames, content.hexdigest())


def _add(content: Any, name: str, array: NDArray[Any]) -> None:
    content.update(f"{name} {array.dtype.str} {array.shape};".encode())
    content.update(np.ascontiguousarray(array).tobytes())


class ScoreStore:
    """Keeps scores in one file (SQLite), which processes may share; a kill loses at most what was not added yet.

    Args:
        path: the file; it is made where it is missing.

    Attributes:
        n_found: scores that were asked for and there.
        n_missing: scores that were asked for and not there.

    Raises:
        CheckpointError: at the first use, if the file is something else.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.n_found = self.n_missing = 0
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        # Late, so that a process that is forked before inherits nothing.
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = normal")
                connection.execute(_SCHEMA)
            except sqlite3.Error as error:
                raise CheckpointError(
                    f"{self.path} cannot be used as a score store ({error}); name another file, or remove this one"
                ) from error
            self._connection = connection
        return self._connection

    def __len__(self) -> int:
        """Return the number of scores."""
        return int(self._open().execute("select count(*) from scores").fetchone()[0])

    def find(self, questions: Sequence[Question]) -> list[float | None]:
        """Return the score of each question, None where there is none."""
        ask = self._open().execute
        found: list[float | None] = []
        for question in questions:
            row = ask("select score from scores where address = ?", [question.address]).fetchone()
            found.append(None if row is None else float(row[0]))
        n_found = sum(score is not None for score in found)
        self.n_found, self.n_missing = self.n_found + n_found, self.n_missing + len(found) - n_found
        return found

    def add(self, questions: Sequence[Question], scores: Sequence[float], seconds: float) -> None:
        """Keep scores, all or none of them; one that is there already stays.

        Args:
            questions: what was asked.
            scores: the answers, one each; those that are not finite are left out.
            seconds: what they took together.
        """
        each, now = seconds / max(1, len(questions)), time.time()
        rows = [
            (question.address, float(score), *question, each, now)
            for question, score in zip(questions, scores, strict=True)
            if np.isfinite(score)
        ]
        marks = ", ".join("?" * len(COLUMNS))
        connection = self._open()
        connection.execute("begin immediate")
        try:
            connection.executemany(f"insert or ignore into scores values ({marks})", rows)  # noqa: S608
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def export(self, path: Path) -> int:
        """Write all scores with their provenance to a parquet file and return how many there are."""
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        rows = self._open().execute("select * from scores order by time, address").fetchall()
        columns = dict(zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * 9, strict=True))
        columns["address"] = tuple(address.hex() for address in columns["address"])
        texts = set(COLUMNS) - {"score", "seconds", "time"}
        table = pa.table(
            {
                name: pa.array(values, pa.string() if name in texts else pa.float64())
                for name, values in columns.items()
            }
        )
        with atomic_path(path) as draft:
            pq.write_table(table, draft, compression="zstd")
        return len(rows)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class ScoresConfig:
    """Which store is exported, and where to."""

    store: tyro.conf.Positional[Path]
    """A score store, such as scores.sqlite of a run."""
    out: Path | None = None
    """The parquet file; None: beside the store."""


def export_scores(config: ScoresConfig) -> dict[str, Any]:
    """Write a score store as a parquet file: every score with model, sentence, camera, frames and states.

    Raises:
        FileNotFoundError: there is no such store.
        CheckpointError: the file is something else.
    """
    if not config.store.exists():
        raise FileNotFoundError(f"there is no score store at {config.store}")
    out = config.out or config.store.with_suffix(".parquet")
    store = ScoreStore(config.store)
    n_scores = store.export(out)
    store.close()
    return {"scores": n_scores, "written": str(out)}
