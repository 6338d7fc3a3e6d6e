"""What a run has measured so far: rows of curve.csv, the tables beside them, the picture."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.curves import draw_curves
from agents.evaluation import Evaluation
from agents.run import write_csv
from vlp_gym.feedback.loop import FeedbackLoop


@dataclass
class Journal:
    """Measurements of a run, in order; every checkpoint holds a copy."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row an evaluation."""
    seconds: float = 0.0
    """Wall-clock time so far."""

    def add(self, step: int, evaluation: Evaluation, loop: FeedbackLoop | None) -> dict[str, Any]:
        """Add and return the row of an evaluation after `step` environment steps."""
        row = {"step": step, **asdict(evaluation), "seconds": round(self.seconds, 1)}
        self.rows.append(row | ({} if loop is None else feedback_so_far(loop)))
        return self.rows[-1]

    def write(self, folder: Path, title: str, loop: FeedbackLoop | None) -> None:
        """Write curve.csv and curve.png; with feedback sessions.csv and labels.parquet too."""
        sessions = [] if loop is None else loop.history
        write_csv(folder / "curve.csv", self.rows)
        if loop is not None:
            write_csv(folder / "sessions.csv", sessions)
            loop.table.save(folder / "labels.parquet")
        draw_curves(folder / "curve.png", self.rows, sessions, title)


def feedback_so_far(loop: FeedbackLoop) -> dict[str, Any]:
    """Return queries asked, how often labels agree with the simulator's return, and fits."""
    table = loop.table
    return {
        "queries": len(table),
        "label_accuracy": table.accuracy,
        "reward_fits": loop.version,
    }
