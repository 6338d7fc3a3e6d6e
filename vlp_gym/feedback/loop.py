"""The feedback loop: records, asks, fits, and says what a step is worth."""

import logging
import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.queries import disagreement_queries, uniform_queries
from vlp_gym.feedback.recorder import Recorder
from vlp_gym.feedback.session import SessionRecord, counts, label_accuracy, label_share
from vlp_gym.feedback.table import LabelTable
from vlp_gym.reward.learner import RewardLearner
from vlp_gym.types import Labeler, Labels, Pair, Status, Task

logger = logging.getLogger(__name__)


class FeedbackLoop:
    """Turns a labeler's comparisons of what the agent did into a reward (PEBBLE).

    Call `begin_episode` at a reset, `observe` after every step, `session` when `session_due`, and
    `reward` for what to pay.

    Args:
        config: when to ask, and how to fit.
        task: what the labeler is asked about.
        labeler: who answers. If it has `seconds`, a mapping of part to time of its last call,
            sessions report it; if it has `state_dict` and `load_state_dict`, they are called too.
        ensemble: what learns the reward.
        seed_sequence: decides the queries.

    Attributes:
        recorder: the latest episodes.
        table: all labels.
        version: fits so far; the reward function changed when it did.
        history: `SessionRecord.to_dict()` of every session.
        on_session: called with the record of each session after it.
    """

    def __init__(
        self,
        config: FeedbackConfig,
        task: Task,
        labeler: Labeler,
        ensemble: RewardLearner,
        seed_sequence: np.random.SeedSequence,
    ) -> None:
        self.config, self.task, self.labeler = config, task, labeler
        self.on_session: list[Callable[[SessionRecord], None]] = []
        self.restart(ensemble, seed_sequence)

    def restart(self, ensemble: RewardLearner, seed_sequence: np.random.SeedSequence) -> None:
        """Forget all and begin again with another learner and other queries; listeners stay."""
        self.ensemble = ensemble
        self.recorder = Recorder(self.config.recent_episodes)
        self.table = LabelTable()
        self.version = 0
        self.history: list[dict[str, Any]] = []
        self._rng = np.random.default_rng(seed_sequence)

    @property
    def steps(self) -> int:
        """Env steps observed so far."""
        return len(self.recorder)

    @property
    def n_queries(self) -> int:
        """Queries asked so far, answered or not."""
        return len(self.table)

    @property
    def budget_left(self) -> int:
        """Queries that may still be asked."""
        return self.config.budget - self.n_queries

    def begin_episode(self, constants: dict[str, NDArray[Any]] | None = None) -> None:
        """Start an episode; `constants` as in `Scene.constants`."""
        self.recorder.begin(constants)

    def observe(
        self,
        obs: Float[np.ndarray, " obs"],
        action: Float[np.ndarray, " action"],
        env_reward: float,
        snapshot: NDArray[Any],
        success: bool,
    ) -> None:
        """Record a step; arguments as in `Recorder.add`."""
        self.recorder.add(obs, action, env_reward, snapshot, success)

    def end_episode(self) -> None:
        """End the episode; also done by the next `begin_episode`."""
        self.recorder.end()

    def session_due(self, step: int | None = None) -> bool:
        """Return whether a session belongs after env step `step`, by default the latest one."""
        return self.budget_left > 0 and self.config.is_due(self.steps if step is None else step)

    def reward(self, obs: Float[np.ndarray, " obs"], action: Float[np.ndarray, " action"]) -> float:
        """Return what a step is worth; 0 before the first fit."""
        if not self.version:
            return 0.0
        return float(self.ensemble(obs[None], action[None])[0])

    def session(self) -> SessionRecord:
        """Ask about the next pairs, fit the reward to all labels so far, and return what happened.

        Raises:
            ValueError: no segment of the configured length can be cut yet; nothing was asked.
            FeedbackError: the labeler raised or broke its contract. Its queries are in the table as
                FAILED and count against the budget, older labels are untouched, and the loop can go
                on.
        """
        if self.budget_left <= 0:
            raise FeedbackError(
                f"the budget of {self.config.budget} queries is spent; raise FeedbackConfig.budget"
            )
        started = perf_counter()
        pairs = self._choose(min(self.config.queries_per_session, self.budget_left))
        asked = perf_counter()
        labels, problem = self._ask(pairs)
        answered = perf_counter()
        session, seconds_each = len(self.history), (answered - asked) / len(pairs)
        self.table.append(
            pairs,
            labels,
            session=session,
            step=self.steps,
            labeler=name_of(self.labeler),
            seconds=seconds_each,
        )
        fit = self._fit() if labels.labelled.any() else {}
        seconds = {
            "query": asked - started,
            **(dict(getattr(self.labeler, "seconds", {})) if problem is None else {}),
            "label": answered - asked,
            "fit": perf_counter() - answered,
        }
        record = self._record(pairs, labels, fit, seconds)
        if problem is not None:
            raise FeedbackError(
                f"labeler {name_of(self.labeler)!r} failed at step {self.steps}: {problem}; its "
                f"{len(pairs)} queries are recorded as failed and counted, earlier labels are kept"
            ) from problem
        return record

    def _choose(self, n_pairs: int) -> list[Pair]:
        episodes, length = self.recorder.episodes(), self.config.segment_length
        if self.config.query == "uniform" or not self.version:
            return uniform_queries(episodes, n_pairs, length, self.task, self._rng)
        n_candidates = n_pairs * self.config.candidates_per_query
        candidates = uniform_queries(episodes, n_candidates, length, self.task, self._rng)
        return disagreement_queries(candidates, n_pairs, self.ensemble.per_member)

    def _ask(self, pairs: list[Pair]) -> tuple[Labels, Exception | None]:
        try:
            labels = self.labeler(pairs)
            if not isinstance(labels, Labels) or len(labels) != len(pairs):
                raise FeedbackError(
                    f"asked about {len(pairs)} pairs, it returned "
                    f"{len(labels) if isinstance(labels, Labels) else type(labels).__name__}; a "
                    "labeler returns Labels with one row a pair"
                )
        except Exception as error:  # whatever it is: what was asked must be on record
            nothing = np.full(len(pairs), np.nan, np.float32)
            return Labels(nothing, np.full(len(pairs), Status.FAILED, np.int8)), error
        return labels, None

    def _fit(self) -> dict[str, float]:
        how = self.ensemble.fit(self.table.preferences(), self.config.fit)
        self.version += 1
        return how

    def _record(
        self,
        pairs: list[Pair],
        labels: Labels,
        fit: dict[str, float],
        seconds: dict[str, float],
    ) -> SessionRecord:
        record = SessionRecord(
            session=len(self.history),
            step=self.steps,
            queries=len(pairs),
            **counts(labels),
            total_labels=self.table.n_labelled,
            budget_left=self.budget_left,
            label_accuracy=label_accuracy(pairs, labels),
            label_share=label_share(labels),
            fit_accuracy=_finite(fit.get("accuracy")),
            fit_loss=_finite(fit.get("loss")),
            fit_updates=int(fit.get("updates", 0)),
            version=self.version,
            seconds={part: round(duration, 6) for part, duration in seconds.items()},
        )
        self.history.append(record.to_dict())
        if record.failed or record.abstained:
            logger.warning(
                "session %d at step %d: of %d queries %d failed and %d were abstained from; all "
                "count against the budget, %d are left",
                record.session,
                record.step,
                record.queries,
                record.failed,
                record.abstained,
                record.budget_left,
            )
        for listener in self.on_session:
            listener(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of a run depends on, as arrays, numbers and texts."""
        state = {
            "recorder": self.recorder.state_dict(),
            "table": self.table.state_dict(),
            "ensemble": self.ensemble.state_dict(),
            "version": self.version,
            "history": [dict(record) for record in self.history],
            "rng": self._rng.bit_generator.state,
        }
        if hasattr(self.labeler, "state_dict"):
            state["labeler"] = self.labeler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of a loop of the same config."""
        self.recorder.load_state_dict(state["recorder"])
        self.table.load_state_dict(state["table"])
        self.ensemble.load_state_dict(state["ensemble"])
        self.version = int(state["version"])
        self.history = [dict(record) for record in state["history"]]
        self._rng.bit_generator.state = state["rng"]
        if hasattr(self.labeler, "load_state_dict") and "labeler" in state:
            self.labeler.load_state_dict(state["labeler"])


def name_of(labeler: Labeler) -> str:
    """Return what the label table calls a labeler: its `name`, else its class."""
    return str(getattr(labeler, "name", type(labeler).__name__))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
