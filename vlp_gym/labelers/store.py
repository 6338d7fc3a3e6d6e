"""The label store: every score and every label ever given, by what was asked, so that nothing is asked twice."""

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
from vlp_gym.types import Pair, Status, Task

WAIT_S = 60.0
"""How long a write waits for another process that shares the store."""

TABLES = {
    "scores": {
        "address": "blob primary key",
        "score": "real not null",
        "scorer": "text not null",
        "instruction": "text not null",
        "scene": "text not null",
        "frames": "text not null",
        "content": "text not null",
        "seconds": "real not null",
        "time": "real not null",
    },
    "labels": {
        "address": "blob primary key",
        "value": "real",
        "status": "integer not null",
        "labeler": "text not null",
        "instruction": "text not null",
        "first_content": "text not null",
        "second_content": "text not null",
        "extra": "text not null",
        "seconds": "real not null",
        "time": "real not null",
    },
}
"""Columns of what is kept. `scorer` and `labeler` name who answered, with the hash of the weights and the settings
where there are any; `scene` the world, camera, size and quality of the frames, `frames` which steps of a segment they
are of; `content` is the hash of the states that they were drawn from, `first_content` and `second_content` those of
whole segments; `extra` is what a labeler said besides, as JSON; `seconds` is the time that an answer took, `time` when
it came (seconds since 1970). A label without a value was abstained from."""


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
        return _address(self)


class Comparison(NamedTuple):
    """What a label is the answer to."""

    labeler: str
    instruction: str
    first_content: str
    second_content: str

    @property
    def address(self) -> bytes:
        """The hash of it all, 16 bytes."""
        return _address(self)


class Answer(NamedTuple):
    """A label, or that the labeler would not decide."""

    value: float | None
    """Probability that the second segment is preferred; None: abstained."""
    extra: dict[str, Any]
    """What the labeler said besides."""


def question_of(
    scorer: str,
    task: Task,
    scene: str,
    frames: str,
    constants: Mapping[str, NDArray[Any]],
    snapshots: NDArray[Any],
) -> Question:
    """Return what is asked about frames that are drawn from these states; arguments as in `TABLES`."""
    states = {**constants, "snapshots": snapshots}
    return Question(scorer, _said(task), scene, frames, _content({**states, **_pictures(task)}))


def comparison_of(labeler: str, pair: Pair) -> Comparison:
    """Return what a labeler of this name is asked about a pair."""
    contents = []
    for segment in (pair.first, pair.second):
        steps = {name: getattr(segment, name) for name in ("obs", "action", "env_reward")}
        states = {
            "snapshots": segment.episode.snapshots[segment.steps],
            **segment.episode.constants,
        }
        contents.append(_content({**steps, **states, **_pictures(pair.task)}))
    return Comparison(labeler, _said(pair.task), *contents)


def _address(asked: tuple[str, ...]) -> bytes:
    return blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def _said(task: Task) -> str:
    return task.instruction if task.baseline is None else f"{task.instruction}\n{task.baseline}"


def _pictures(task: Task) -> dict[str, NDArray[Any]]:
    pictures = {"goal image": task.goal_image, "first frame": task.first_frame}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _content(arrays: Mapping[str, NDArray[Any]]) -> str:
    content = blake2b(digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        content.update(f"{name} {array.dtype.str} {array.shape};".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


class LabelStore:
    """Keeps answers in one file (SQLite), which processes may share; a kill loses at most what was not added yet.

    Args:
        path: the file; it is made where it is missing.

    Attributes:
        n_found: answers that were looked for and there.
        n_missing: answers that were looked for and not there.

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
                for name, columns in TABLES.items():
                    declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
                    connection.execute(
                        f"create table if not exists {name} ({declared}) without rowid"
                    )
            except sqlite3.Error as error:
                raise CheckpointError(
                    f"{self.path} cannot be used as a label store ({error}); name another file, or remove this one"
                ) from error
            self._connection = connection
        return self._connection

    def __len__(self) -> int:
        """Return the number of scores and labels."""
        ask = self._open().execute
        return sum(int(ask(f"select count(*) from {name}").fetchone()[0]) for name in TABLES)  # noqa: S608

    def scores(self, questions: Sequence[Question]) -> list[float | None]:
        """Return the score of each question, None where there is none."""
        rows = self._find("select score from scores where address = ?", questions)
        return [None if row is None else float(row[0]) for row in rows]

    def labels(self, asked: Sequence[Comparison]) -> list[Answer | None]:
        """Return the answer to each comparison, None where there is none."""
        rows = self._find("select value, extra from labels where address = ?", asked)
        return [None if row is None else Answer(row[0], json.loads(row[1])) for row in rows]

    def _find(self, query: str, asked: Sequence[Question | Comparison]) -> list[Any]:
        ask = self._open().execute
        rows = [ask(query, [each.address]).fetchone() for each in asked]
        n_found = sum(row is not None for row in rows)
        self.n_found, self.n_missing = self.n_found + n_found, self.n_missing + len(rows) - n_found
        return rows

    def add_scores(
        self, asked: Sequence[Question], scores: Sequence[float], seconds: float
    ) -> None:
        """Keep scores, all or none of them; one that is there already stays.

        Args:
            asked: what was asked.
            scores: the answers, one each; those that are not finite are left out.
            seconds: what they took together.
        """
        each, now = seconds / max(1, len(asked)), time.time()
        rows = [
            (question.address, float(score), *question, each, now)
            for question, score in zip(asked, scores, strict=True)
            if np.isfinite(score)
        ]
        self._add("scores", rows)

    def add_labels(
        self, asked: Sequence[Comparison], answers: Sequence[Answer], seconds: float
    ) -> None:
        """Keep labels, all or none of them; arguments as in `add_scores`."""
        each, now = seconds / max(1, len(asked)), time.time()
        rows = []
        for comparison, answer in zip(asked, answers, strict=True):
            status = Status.ABSTAINED if answer.value is None else Status.LABELLED
            told = (answer.value, int(status), *comparison, json.dumps(answer.extra), each, now)
            rows.append((comparison.address, *told))
        self._add("labels", rows)

    def _add(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(TABLES[table]))
        connection = self._open()
        connection.execute("begin immediate")
        try:
            connection.executemany(f"insert or ignore into {table} values ({marks})", rows)  # noqa: S608
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def export(self, table: str, path: Path) -> int:
        """Write a table of `TABLES`, all its answers with their provenance, as parquet; return how many there are."""
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        columns = TABLES[table]
        query = f"select * from {table} order by time, address"  # noqa: S608
        rows = self._open().execute(query).fetchall()
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        kinds = {
            "real": pa.float64(),
            "integer": pa.int8(),
            "text": pa.string(),
            "blob": pa.string(),
        }
        arrays = {}
        for (name, declared), column in zip(columns.items(), values, strict=True):
            plain = [each.hex() if isinstance(each, bytes) else each for each in column]
            arrays[name] = pa.array(plain, kinds[declared.split()[0]])
        with atomic_path(path) as draft:
            pq.write_table(pa.table(arrays), draft, compression="zstd")
        return len(rows)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class StoreConfig:
    """Which store is exported, and where to."""

    store: tyro.conf.Positional[Path]
    """A label store, such as labels.sqlite of a run."""
    out: Path | None = None
    """Folder of the parquet files; None: that of the store."""


def export_store(config: StoreConfig) -> dict[str, Any]:
    """Write a label store as parquet files: every score and label with who gave it, and about what.

    Raises:
        FileNotFoundError: there is no such store.
        CheckpointError: the file is something else.
    """
    if not config.store.exists():
        raise FileNotFoundError(f"there is no label store at {config.store}")
    folder = config.out or config.store.parent
    folder.mkdir(parents=True, exist_ok=True)
    store, told = LabelStore(config.store), {}
    for table in TABLES:
        path = folder / f"{config.store.stem}-{table}.parquet"
        told[str(path)] = store.export(table, path)
    store.close()
    return told
