"""The feedback loop: records, asks, fits, and says what a step is worth."""

import logging
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.queries import (
    choose_queries,
    disagreement,
    member_logits,
    uniform_queries,
)
from vlp_gym.feedback.recorder import Recorder
from vlp_gym.feedback.session import SessionRecord, counts, label_accuracy, label_share
from vlp_gym.feedback.table import LabelTable
from vlp_gym.memory import hand_back_freed_memory
from vlp_gym.reward.entropy import StateEntropy
from vlp_gym.reward.learner import RewardLearner
from vlp_gym.reward.preferences import Preferences
from vlp_gym.types import Episode, Labeler, Labels, Pair, Status, Task

logger = logging.getLogger(__name__)


class FeedbackLoop:
    """Turns a labeler's comparisons of what the agent did into a reward (PEBBLE).

    Call `begin_episode` at a reset, `observe` after every step, `session` when `session_due`, and
    `reward` for what to pay. Several envs share one loop: each says which one it is.

    Args:
        config: when to ask, and how to fit.
        tasks: what the labeler is asked about: one task, or that of each env. Envs with the same `Task` object
            are compared with each other, others are not.
        labeler: who answers. If it has `seconds`, a mapping of part to time of its last call,
            sessions report it; if it has `state_dict` and `load_state_dict`, they are called too.
        ensemble: what learns the reward.
        seed_sequence: decides the queries.

    Attributes:
        tasks: that of each env.
        recorder: the latest episodes.
        table: all labels.
        version: fits so far; the reward function changed when it did.
        history: `SessionRecord.to_dict()` of every session.
        on_session: called with the record of each session after it.
        on_episode: called with each episode that ends.
    """

    def __init__(
        self,
        config: FeedbackConfig,
        tasks: Task | Sequence[Task],
        labeler: Labeler,
        ensemble: RewardLearner,
        seed_sequence: np.random.SeedSequence,
    ) -> None:
        self.config, self.labeler = config, labeler
        self.tasks = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
        self.on_session: list[Callable[[SessionRecord], None]] = []
        self.on_episode: list[Callable[[Episode], None]] = []
        if not config.budget:
            logger.warning("the budget is 0: nobody is ever asked, and no reward is learned")
        self.restart(ensemble, seed_sequence)

    def restart(self, ensemble: RewardLearner, seed_sequence: np.random.SeedSequence) -> None:
        """Forget all and begin again with another learner and other queries; listeners stay."""
        self.ensemble = ensemble
        self.recorder = Recorder(self.config.recent_episodes, len(self.tasks), self.on_episode)
        self.table = LabelTable()
        self.novelty = StateEntropy(self.config.neighbours) if self.config.unsupervised else None
        self.version = 0
        self._is_due = False
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

    def begin_episode(self, constants: dict[str, NDArray[Any]] | None = None, env: int = 0) -> None:
        """Start an episode of an env; `constants` as in `Scene.constants`."""
        self.recorder.begin(constants, env)

    def observe(
        self,
        obs: Float[np.ndarray, " obs"],
        action: Float[np.ndarray, " action"],
        env_reward: float,
        snapshot: NDArray[Any],
        success: bool,
        env: int = 0,
    ) -> None:
        """Record a step; arguments as in `Recorder.add`."""
        self.recorder.add(obs, action, env_reward, snapshot, success, env)
        self._is_due = self._is_due or self.config.is_due(self.steps)
        if self.novelty is not None:
            self.novelty.add(obs)

    def end_episode(self, env: int = 0) -> None:
        """End the episode of an env; also done by its next `begin_episode`."""
        self.recorder.end(env)

    @property
    def session_due(self) -> bool:
        """Whether a step that a session belongs after was observed since the last one."""
        return self._is_due and self.budget_left > 0

    @property
    def is_pretraining(self) -> bool:
        """Whether steps are paid by how new their states are (`FeedbackConfig.unsupervised`)."""
        return self.novelty is not None

    def reward(self, obs: Float[np.ndarray, " obs"], action: Float[np.ndarray, " action"]) -> float:
        """Return what a step is worth; 0 before the first fit, unless pre-training pays it."""
        return float(self.rewards(obs[None], action[None])[0])

    def rewards(
        self, obs: Float[np.ndarray, "steps obs"], action: Float[np.ndarray, "steps action"]
    ) -> Float[np.ndarray, " steps"]:
        """Return what steps are worth, float32; arguments as in `Recorder.add`."""
        if self.version:
            reward = self.ensemble(obs, action)
            bonus = self.config.bonus_at(self.steps)
            # What the members say is asked again for RUNE only, which is off by default.
            return reward + bonus * self.ensemble.deviation(obs, action) if bonus else reward
        if self.novelty is not None and len(self.novelty):
            return self.novelty(obs)
        return np.zeros(len(obs), np.float32)

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
        self._is_due = False
        started = perf_counter()
        pairs = self._choose(min(self.config.queries_at(self.steps), self.budget_left))
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
        fit = self._fit(len(pairs)) if labels.labelled.any() else {}
        seconds = {
            "query": asked - started,
            **(dict(getattr(self.labeler, "seconds", {})) if problem is None else {}),
            "label": answered - asked,
            "fit": perf_counter() - answered,
        }
        hand_back_freed_memory()
        record = self._record(pairs, labels, fit, seconds)
        if problem is not None:
            raise FeedbackError(
                f"labeler {name_of(self.labeler)!r} failed at step {self.steps}: {problem}; its "
                f"{len(pairs)} queries are recorded as failed and counted, earlier labels are kept"
            ) from problem
        return record

    def _choose(self, n_pairs: int) -> list[Pair]:
        if self.config.query == "uniform" or not self.version:
            return self._cut(n_pairs, self.config.pairs_per_segment)
        candidates = self._cut(n_pairs * self.config.candidates_per_query)
        asked = self.table.segments("obs") if len(self.table) else None
        return choose_queries(
            self.config.query, candidates, n_pairs, self.ensemble.per_member, asked
        )

    def _cut(self, n_pairs: int, pairs_per_segment: int = 1) -> list[Pair]:
        episodes, length = self.recorder.episodes(), self.config.segment_length
        return uniform_queries(episodes, n_pairs, length, self.tasks, self._rng, pairs_per_segment)

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

    def _fit(self, n_queries: int) -> dict[str, float]:
        unlabelled = None
        if self.config.fit.pseudo_ratio:
            unlabelled = _unlabelled(self._cut(n_queries * self.config.unlabelled_per_query))
        how = self.ensemble.fit(self.table.preferences(), self.config.fit, unlabelled)
        self.version += 1
        self.novelty = None  # from here on steps are paid by what was learned
        return how

    def _record(
        self,
        pairs: list[Pair],
        labels: Labels,
        fit: dict[str, float],
        seconds: dict[str, float],
    ) -> SessionRecord:
        spread, agreement = self._opinions(pairs)
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
            spread=spread,
            agreement=agreement,
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

    def _opinions(self, pairs: list[Pair]) -> tuple[float | None, float | None]:
        """Return the spread of the members' answers and how often they agree; nothing before the first fit."""
        if not self.version:
            return None, None
        logit = member_logits(pairs, self.ensemble.per_member)
        of_one_mind = (logit > 0).all(0) | (logit <= 0).all(0)
        return float(disagreement(logit).mean()), float(of_one_mind.mean())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of a run depends on, as arrays, numbers and texts."""
        state = {
            "recorder": self.recorder.state_dict(),
            "table": self.table.state_dict(),
            "ensemble": self.ensemble.state_dict(),
            "version": self.version,
            "is_due": self._is_due,
            "novelty": None if self.novelty is None else self.novelty.state_dict(),
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
        self._is_due = bool(state["is_due"])
        if state["novelty"] is None:
            self.novelty = None
        elif self.novelty is not None:
            self.novelty.load_state_dict(state["novelty"])
        self.history = [dict(record) for record in state["history"]]
        self._rng.bit_generator.state = state["rng"]
        if hasattr(self.labeler, "load_state_dict") and "labeler" in state:
            self.labeler.load_state_dict(state["labeler"])


def name_of(labeler: Labeler) -> str:
    """Return what the label table calls a labeler: its `name`, else its class."""
    return str(getattr(labeler, "name", type(labeler).__name__))


def _unlabelled(pairs: list[Pair]) -> Preferences:
    obs = np.stack([[pair.first.obs, pair.second.obs] for pair in pairs])
    action = np.stack([[pair.first.action, pair.second.action] for pair in pairs])
    return Preferences(obs, action, np.full(len(pairs), 0.5, np.float32))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
