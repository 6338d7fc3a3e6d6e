"""The label table: every question that was asked, its answer, and what it was about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_path
from vlp_gym.errors import CheckpointError, FeedbackError
from vlp_gym.feedback.growing import GrowingArray
from vlp_gym.reward.preferences import Preferences
from vlp_gym.types import Labels, Pair, Status

KINDS: dict[str, type] = {
    "session": np.int64,
    "step": np.int64,
    "first_episode": np.int64,
    "first_start": np.int64,
    "second_episode": np.int64,
    "second_start": np.int64,
    "length": np.int64,
    "label": np.float32,
    "status": np.int8,
    "first_return": np.float64,
    "second_return": np.float64,
    "seconds": np.float64,
    "instruction": str,
    "labeler": str,
}
"""Columns of a label's provenance. `label` is NaN unless `status` is LABELLED; returns are the
simulator's; `seconds` is the labeler's time for a query. A labeler's extra columns come after."""

SEGMENTS = ("obs", "action")
"""Columns with the steps of both segments, float32 [queries, 2, steps, ...]: what a fit needs, kept
because the recorder forgets episodes."""

VERSION = "vlp-gym label table 1"


def agreement_with_return(
    label: Float[np.ndarray, " pairs"], gap: Float[np.ndarray, " pairs"]
) -> float | None:
    """Return the share of labels that prefer the segment of higher return, None if none can tell.

    Left out are pairs without a label, labels of exactly 0.5, and segments of equal return.

    Args:
        label: probability that the second segment is preferred, NaN where there is none.
        gap: return of the second segment minus that of the first.

    >>> agreement_with_return(np.array([0.9, 0.2, 0.5, np.nan]), np.array([1.0, 1.0, 1.0, 1.0]))
    0.5
    """
    told = np.isfinite(label) & (label != 0.5) & (gap != 0)
    return float(((label > 0.5) == (gap > 0))[told].mean()) if told.any() else None


class LabelTable:
    """All queries so far with their labels, where the labels are from, and the segments' steps."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._segments: dict[str, GrowingArray] = {}

    def __len__(self) -> int:
        """Return the number of queries that were asked, answered or not."""
        return len(self._rows)

    @property
    def n_labelled(self) -> int:
        """Queries that got a label."""
        return sum(int(row["status"]) == Status.LABELLED for row in self._rows)

    @property
    def accuracy(self) -> float | None:
        """Share of labels that agree with the simulator's return, as `agreement_with_return` counts them."""
        gap = self.column("second_return") - self.column("first_return")
        return agreement_with_return(self.column("label"), gap)

    def append(
        self,
        pairs: Sequence[Pair],
        labels: Labels,
        *,
        session: int,
        step: int,
        labeler: str,
        seconds: float,
    ) -> None:
        """Add one batch of queries with its answer.

        Args:
            pairs: what was asked.
            labels: the answer, one row a pair.
            session: number of the feedback session.
            step: env step of the session.
            labeler: name of the labeler.
            seconds: time the labeler took for a query, on average.

        Raises:
            FeedbackError: the answer does not fit the question; nothing was added.
        """
        _check_answer(pairs, labels)
        if pairs and not self._segments:
            self._segments = _segments_for(pairs[0])
        shared = {"session": session, "step": step, "labeler": labeler, "seconds": seconds}
        for index, pair in enumerate(pairs):
            for name in SEGMENTS:
                sides = [getattr(pair.first, name), getattr(pair.second, name)]
                self._segments[name].append(np.stack(sides))
            answer = {"label": labels.value[index], "status": labels.status[index]}
            extra = {name: column[index] for name, column in labels.extra.items()}
            self._rows.append({**_question(pair), **answer, **shared, **extra})

    def column(self, name: str) -> NDArray[Any]:
        """Return a column [queries]; rows that lack an extra column hold NaN, or "" among texts."""
        if name in KINDS:
            return np.array([row[name] for row in self._rows], KINDS[name])
        present = [row[name] for row in self._rows if name in row]
        if not present:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.names)}")
        blank = "" if isinstance(present[0], str) else np.nan
        return np.array([row.get(name, blank) for row in self._rows])

    @property
    def names(self) -> list[str]:
        """Names of the columns, those of the labeler last."""
        return list(dict.fromkeys([*KINDS, *(name for row in self._rows for name in row)]))

    def segments(self, name: str) -> NDArray[Any]:
        """Return a column of `SEGMENTS`, a view [queries, 2, steps, ...]; there must be a query."""
        return self._segments[name].rows

    def preferences(self) -> Preferences:
        """Return the pairs that got a label, as arrays to fit to."""
        if not self.n_labelled:
            raise ValueError("no query has a label yet; there is nothing to fit to")
        labelled = self.column("status") == Status.LABELLED
        picked = slice(None) if labelled.all() else labelled
        obs, action = (self.segments(name)[picked] for name in SEGMENTS)
        return Preferences(obs, action, self.column("label")[picked])

    def save(self, path: Path | str) -> None:
        """Write the whole table to a parquet file, at once or not at all."""
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        columns = {name: pa.array(self.column(name)) for name in self.names}
        shapes = {}
        for name, segments in self._segments.items():
            flat = np.ascontiguousarray(segments.rows)
            shapes[name] = flat.shape[1:]
            size = int(np.prod(flat.shape[1:]))
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), size)
        table = pa.table(columns)
        table = table.replace_schema_metadata({"version": VERSION, "shapes": json.dumps(shapes)})
        with atomic_path(Path(path)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path | str) -> "LabelTable":
        """Return the table of a file that `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, or something else.
        """
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        try:
            table = pq.read_table(path)
            metadata = table.schema.metadata or {}
            if metadata.get(b"version") != VERSION.encode():
                raise ValueError("it is no label table of this version")
            shapes = json.loads(metadata[b"shapes"])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CheckpointError(
                f"{path} cannot be read as a label table ({error}); name the labels.parquet of a run"
            ) from error
        names = [name for name in table.column_names if name not in SEGMENTS]
        state: dict[str, Any] = {
            "columns": {name: table[name].to_numpy(zero_copy_only=False) for name in names}
        }
        for name, shape in shapes.items():
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            state[name] = flat.reshape(-1, *shape)
        loaded = cls()
        loaded.load_state_dict(state)
        return loaded

    def state_dict(self) -> dict[str, Any]:
        """Return all columns, as arrays and lists of texts."""
        columns = {name: self.column(name) for name in self.names}
        plain = {
            name: column.tolist() if column.dtype.kind == "U" else column
            for name, column in columns.items()
        }
        return {
            "columns": plain,
            **{name: segments.rows.copy() for name, segments in self._segments.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        columns = state["columns"]
        n_rows = len(columns["status"])
        self._rows = [{name: columns[name][row] for name in columns} for row in range(n_rows)]
        self._segments = {}
        for name in SEGMENTS:
            if name not in state:
                continue
            rows = np.asarray(state[name], np.float32)
            self._segments[name] = GrowingArray(name, rows.shape[1:], np.float32)
            self._segments[name].extend(rows)


def _check_answer(pairs: Sequence[Pair], labels: Labels) -> None:
    if len(labels) != len(pairs):
        raise FeedbackError(
            f"the labeler was asked about {len(pairs)} pairs and answered {len(labels)}; "
            "it must return one row a pair, with a status for those it cannot label"
        )
    for name, column in labels.extra.items():
        if name in KINDS or name in SEGMENTS or len(column) != len(pairs):
            raise FeedbackError(
                f"the labeler's extra column {name!r} must have a name of its own and "
                f"{len(pairs)} rows, it has {len(column)}"
            )


def _segments_for(pair: Pair) -> dict[str, GrowingArray]:
    return {
        name: GrowingArray(
            f"segment's {name}", (2, *getattr(pair.first, name).shape), np.float32, capacity=256
        )
        for name in SEGMENTS
    }


def _question(pair: Pair) -> dict[str, Any]:
    return {
        "first_episode": pair.first.episode.number,
        "first_start": pair.first.start,
        "second_episode": pair.second.episode.number,
        "second_start": pair.second.start,
        "length": pair.first.length,
        "first_return": pair.first.env_return,
        "second_return": pair.second.env_return,
        "instruction": pair.task.instruction,
    }
