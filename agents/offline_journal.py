"""What an offline run has measured so far: its curve, the losses between two evaluations, the pictures of both."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.curves import BLUE
from agents.evaluation import Evaluation
from agents.run import write_csv
from agents.statistics import Curve, Summary, summarise
from vlp_gym.atomic import atomic_path


@dataclass
class Journal:
    """Measurements of a run, in order; every checkpoint holds a copy."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row an evaluation and seed."""
    seconds: float = 0.0
    """Wall-clock time so far."""
    _sums: dict[str, Float[Tensor, " seeds"]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def note(self, info: Mapping[str, Float[Tensor, " seeds"]]) -> None:
        """Add what a gradient step measured; it stays on the device until the next evaluation."""
        for name, value in info.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def add(self, step: int, seeds: Sequence[int], found: Sequence[Evaluation]) -> str:
        """Add the rows of an evaluation and return a line that says what it found."""
        means = {name: (total / self._counts[name]).tolist() for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        for i, (seed, evaluation) in enumerate(zip(seeds, found, strict=True)):
            learned = {name: value[i] for name, value in means.items()}
            row = {"step": step, "seed": seed, **asdict(evaluation), **learned}
            self.rows.append(row | {"seconds": round(self.seconds, 1)})
        success = " ".join(f"{each.success:.2f}" for each in found)
        env_return = np.mean([each.env_return for each in found])
        return (
            f"step {step:>7,}  success {success}  return {env_return:,.0f}  {self.seconds:,.0f} s"
        )

    def curve(self, column: str) -> Curve:
        """Return a column of all evaluations but the first, which is before training, [evaluations, seeds]."""
        seeds = list(dict.fromkeys(row["seed"] for row in self.rows))
        values = np.array([row[column] for row in self.rows], float)
        return values.reshape(-1, len(seeds))[1:]

    def before(self) -> dict[str, float]:
        """Return what the untrained policies reached, mean over seeds."""
        first = [row for row in self.rows if row["step"] == 0]
        names = ("success", "final_success", "env_return")
        return {name: float(np.mean([row[name] for row in first])) for name in names}

    def summary(self, column: str, window: int, n_last: int) -> Summary:
        """Return a column in numbers; see `agents.statistics.summarise`."""
        return summarise(self.curve(column), window, n_last)

    def write(self, folder: Path, title: str) -> None:
        """Write curve.csv, curve.png and the last rows of TensorBoard's log, one log a seed."""
        write_csv(folder / "curve.csv", self.rows)
        draw_curve(folder / "curve.png", self.rows, title)
        self._log(folder / "tensorboard")

    def _log(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        step = self.rows[-1]["step"]
        for row in self.rows:
            if row["step"] != step:
                continue
            with SummaryWriter(str(folder / f"seed{row['seed']}")) as writer:
                for name, value in row.items():
                    if name not in ("step", "seed", "episodes"):
                        writer.add_scalar(name, value, step)

    def state(self) -> dict[str, Any]:
        """Return everything, as arrays, numbers and texts."""
        sums = {name: total.cpu().numpy().copy() for name, total in self._sums.items()}
        return {"rows": self.rows, "seconds": self.seconds, "sums": sums, "counts": self._counts}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: torch.device) -> "Journal":
        """Return the journal that `state()` was taken of."""
        sums = {
            name: torch.from_numpy(each.copy()).to(device) for name, each in state["sums"].items()
        }
        counts = {name: int(count) for name, count in state["counts"].items()}
        return cls(list(state["rows"]), state["seconds"], sums, counts)


def draw_curve(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Write a PNG: success over gradient steps, a thin line a seed and their mean."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    steps = list(dict.fromkeys(row["step"] for row in rows))
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    success = np.array([row["success"] for row in rows]).reshape(len(steps), len(seeds))
    axes.plot(steps, success, color=BLUE, alpha=0.3, linewidth=1)
    axes.plot(steps, success.mean(1), color=BLUE, marker="o", markersize=3)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("success")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=150)
