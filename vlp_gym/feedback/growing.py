"""An array that rows are appended to, without a copy a row."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vlp_gym.errors import FeedbackError


class GrowingArray:
    """Rows of one shape and kind in one array, which doubles when it is full.

    Args:
        name: what a row is, for the error of a row that does not fit.
        row_shape: shape of a row.
        dtype: kind of its numbers.
        capacity: rows to make room for at first.
    """

    def __init__(
        self, name: str, row_shape: tuple[int, ...], dtype: DTypeLike, capacity: int = 64
    ) -> None:
        self._name = name
        self._rows: NDArray[Any] = np.empty((capacity, *row_shape), dtype)
        self._n_rows = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n_rows

    def append(self, row: Any) -> None:
        """Add a row.

        Raises:
            FeedbackError: its shape is not that of the others.
        """
        if np.shape(row) != self._rows.shape[1:]:
            raise FeedbackError(
                f"every {self._name} of a run must have the shape {self._rows.shape[1:]} of the "
                f"first, got {np.shape(row)}; flatten the env's spaces to one fixed size"
            )
        self._make_room(self._n_rows + 1)
        self._rows[self._n_rows] = row
        self._n_rows += 1

    def extend(self, rows: NDArray[Any]) -> None:
        """Add many rows [rows, ...] of the right shape."""
        n_rows = self._n_rows + len(rows)
        self._make_room(n_rows)
        self._rows[self._n_rows : n_rows] = rows
        self._n_rows = n_rows

    def _make_room(self, n_rows: int) -> None:
        if n_rows > len(self._rows):
            capacity = max(n_rows, 2 * len(self._rows))
            grown = np.empty((capacity, *self._rows.shape[1:]), self._rows.dtype)
            grown[: self._n_rows] = self.rows
            self._rows = grown

    def truncate(self, n_rows: int) -> None:
        """Forget all rows but the first `n_rows`; the room stays."""
        self._n_rows = min(n_rows, self._n_rows)

    @property
    def rows(self) -> NDArray[Any]:
        """The rows so far, a view [rows, ...]: copy it before the next change."""
        return self._rows[: self._n_rows]
