"""Progress bars of a run with feedback: environment steps, queries, reward fits."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from vlp_gym.feedback.loop import FeedbackLoop


class Progress(BaseCallback):
    """Shows three bars on a terminal, and one line an evaluation everywhere.

    Args:
        steps: environment steps of the whole run.
        loop: the feedback loop, if there is one.
        quiet: neither bars nor lines.
    """

    def __init__(self, steps: int, loop: FeedbackLoop | None, quiet: bool) -> None:
        super().__init__()
        self._loop, self._quiet = loop, quiet
        # None lets tqdm decide: bars on a terminal, silence in a file.
        settings: dict[str, Any] = {"disable": True if quiet else None, "dynamic_ncols": True}
        self._steps = tqdm(total=steps, desc="env steps", position=0, **settings)
        if loop is None:
            settings["disable"] = True
        budget = None if loop is None else loop.config.budget
        self._queries = tqdm(total=budget, desc="queries", position=1, **settings)
        self._fits = tqdm(desc="reward fits", position=2, **settings)

    def _on_step(self) -> bool:
        self._steps.update(self.num_timesteps - self._steps.n)
        if self._loop is not None and self._loop.version != self._fits.n:
            self._queries.update(len(self._loop.table) - self._queries.n)
            self._fits.update(self._loop.version - self._fits.n)
        return True

    def say(self, row: Mapping[str, Any]) -> None:
        """Print one row of the curve, above the bars."""
        if self._quiet:
            return
        parts = [f"step {row['step']:>7,}"]
        if row["success"] is not None:
            parts.append(f"success {row['success']:.2f}")
        parts.append(f"return {row['env_return']:,.0f}")
        if row.get("queries"):
            parts.append(f"queries {row['queries']:,}")
            if row["label_accuracy"] is not None:
                parts.append(f"label accuracy {row['label_accuracy']:.2f}")
        parts.append(f"{row['seconds']:,.0f} s")
        tqdm.write("  ".join(parts))

    def __enter__(self) -> "Progress":
        """Return itself; the bars are closed on exit."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bars as they stand."""
        for bar in (self._fits, self._queries, self._steps):
            bar.close()
