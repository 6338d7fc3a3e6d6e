"""The one format of every measured number: records in `benchmarks/results/<name>.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.run import provenance, write_json

RESULTS = Path(__file__).parent / "results"
"""Folder of the committed results."""


@dataclass(frozen=True)
class Record:
    """What one run of a benchmark measured, and all that one needs to run it again.

    >>> record = Record(task="Reach", method="fast preset", metrics={"frames/s": 120}, seconds=3)
    >>> record.seed is None
    True
    """

    task: str
    """CamelCase name of the task, or "-" where none is meant."""
    method: str
    """What was measured: "vlp", "oracle", "fast preset"."""
    metrics: dict[str, float]
    """Measured numbers by the names that the README shows, shares between 0 and 1."""
    seconds: float
    """Wall-clock time of the run."""
    seed: int | None = None
    scale: str = ""
    """How large the run was: "25,000 steps, 20 evaluation episodes"."""
    paper: dict[str, float] = field(default_factory=dict)
    """Numbers that the VLP paper prints for the same metrics; shown in columns of their own."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Measured numbers of which no table shows each: a curve, what every seed reached."""
    commit: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, **fields: Any) -> "Record":
        """Return a record of this commit, machine and these versions."""
        return cls(**fields, **provenance())


def write_records(name: str, records: Sequence[Record], folder: Path = RESULTS) -> Path:
    """Write `results/<name>.json` and return its path."""
    path = folder / f"{name}.json"
    write_json(path, {"name": name, "records": [asdict(record) for record in records]})
    return path


def with_earlier(name: str, records: Sequence[Record], folder: Path = RESULTS) -> list[Record]:
    """Return records, and those that `results/<name>.json` has of other tasks, methods and seeds.

    What takes days is measured in parts, on several machines; none has the runs of all others on its disk.
    """
    measured = {(record.task, record.method, record.seed) for record in records}
    earlier = read_records(name, folder)
    others = [each for each in earlier if (each.task, each.method, each.seed) not in measured]
    return [*records, *others]


def read_records(name: str, folder: Path = RESULTS) -> list[Record]:
    """Return the records of `results/<name>.json`; none where the benchmark has not been run."""
    path = folder / f"{name}.json"
    if not path.exists():
        return []
    return [Record(**record) for record in json.loads(path.read_text(encoding="utf-8"))["records"]]
