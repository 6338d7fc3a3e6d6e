"""Simulated teachers: the simulator's return, with the faults of people (B-Pref)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError, UnknownNameError
from vlp_gym.types import Episode, Labels, Pair, Status

LATEST = 10
"""Episodes whose mean return says what is much and what is little (BPref)."""


@dataclass(frozen=True)
class TeacherConfig:
    """What is wrong with a teacher; the defaults are a perfect one."""

    rationality: float | None = None
    """Labels are drawn from Bradley-Terry with returns times this; None: the higher return always wins."""
    myopia: float = 1.0
    """Each step counts so much of the next one: below 1, the end of a segment decides."""
    mistake: float = 0.0
    """Probability that a label is turned round."""
    skip: float = 0.0
    """Abstains where neither segment reaches this share of the usual return."""
    equal: float = 0.0
    """Answers 0.5 where returns differ by less than this share of the usual return."""

    def __post_init__(self) -> None:
        """Refuse faults that nobody has."""
        if self.rationality is not None and self.rationality < 0:
            raise ValueError(
                f"TeacherConfig.rationality must be 0 or more, or None, got {self.rationality}"
            )
        if not 0 < self.myopia <= 1 or not 0 <= self.mistake <= 1:
            raise ValueError(
                "TeacherConfig needs myopia in (0, 1] and mistake in [0, 1], "
                f"got {self.myopia} and {self.mistake}"
            )
        if self.skip < 0 or self.equal < 0:
            raise ValueError(
                f"TeacherConfig needs skip and equal of 0 or more, got {self.skip} and {self.equal}"
            )


TEACHERS = {
    "mistake": TeacherConfig(mistake=0.1),
    "noisy": TeacherConfig(rationality=1.0),
    "skip": TeacherConfig(skip=0.1),
    "myopic": TeacherConfig(myopia=0.9),
    "equal": TeacherConfig(equal=0.1),
}
"""B-Pref's imperfect teachers (README.md of rll-research/BPref); the perfect one is `OracleLabeler`."""


class Teacher:
    """Labels pairs by the simulator's return, imperfectly; B-Pref's simulated teacher.

    In this order, as in B-Pref: it abstains where both segments are poor (`skip`), sees which are equal, weighs late
    steps more (`myopia`), prefers one side (`rationality`), errs (`mistake`), and answers 0.5 for those it saw
    as equal. Equal returns are a tie, 0.5.

    "Usual" is the mean return of the 10 latest episodes of the task that the pairs of a call are cut from, for as many
    steps as a segment has. The thresholds are taken from it afresh at every call, so a share is applied once (BPref
    applies it twice from the second session on).

    Args:
        config: what is wrong with it.
        name: what the label table calls it.
        seed: decides noise and mistakes.
    """

    def __init__(self, config: TeacherConfig, name: str = "teacher", seed: int = 0) -> None:
        self.config, self.name = config, name
        self._rng = np.random.default_rng(seed)

    @classmethod
    def of(cls, name: str, seed: int = 0) -> "Teacher":
        """Return the teacher that B-Pref calls so.

        Raises:
            UnknownNameError: a name that is not in `TEACHERS`.
        """
        if name not in TEACHERS:
            raise UnknownNameError.of("teacher", name, list(TEACHERS))
        return cls(TEACHERS[name], name, seed)

    def seed(self, sequence: np.random.SeedSequence) -> None:
        """Decide all noise and mistakes to come."""
        self._rng = np.random.default_rng(sequence)

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs.

        Raises:
            FeedbackError: a teacher that skips was shown an env whose usual return is negative: shares of it mean
                nothing.
        """
        if not pairs:
            return Labels.of(np.zeros(0))
        returns = returns_of(pairs)
        usual = usual_returns(pairs)
        is_equal = np.abs(returns[1] - returns[0]) < self.config.equal * np.abs(usual)
        value = self._preferred(returns_of(pairs, self.config.myopia))
        if self.config.mistake:
            is_wrong = self._rng.random(len(pairs)) < self.config.mistake
            value = np.where(is_wrong, 1 - value, value)
        value = np.where(is_equal, 0.5, value)
        is_poor = self._is_poor(returns.max(0), usual)
        return Labels(
            np.where(is_poor, np.nan, value).astype(np.float32),
            np.where(is_poor, Status.ABSTAINED, Status.LABELLED).astype(np.int8),
        )

    def _preferred(self, returns: Float[np.ndarray, "2 pairs"]) -> Float[np.ndarray, " pairs"]:
        gap = returns[1] - returns[0]
        if self.config.rationality is None:
            return np.asarray((np.sign(gap) + 1) / 2)
        # (1 + tanh(x / 2)) / 2 is the sigmoid of x, and does not overflow.
        second = (1 + np.tanh(self.config.rationality * gap / 2)) / 2
        return np.asarray(self._rng.random(len(gap)) < second, np.float64)

    def _is_poor(
        self, best: Float[np.ndarray, " pairs"], usual: Float[np.ndarray, " pairs"]
    ) -> NDArray[np.bool_]:
        if not self.config.skip:
            return np.zeros(len(best), bool)
        if (usual < 0).any():
            raise FeedbackError(
                f"a teacher that skips compares with a share of the usual return, which is {usual.min():.3g} "
                "here; it needs an env whose rewards are not negative"
            )
        return best <= self.config.skip * usual

    def state_dict(self) -> dict[str, Any]:
        """Return the random stream, as numbers and texts."""
        return copy.deepcopy(dict(self._rng.bit_generator.state))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._rng.bit_generator.state = state


def returns_of(pairs: Sequence[Pair], myopia: float = 1.0) -> Float[np.ndarray, "2 pairs"]:
    """Return the simulator's return of both segments; step t of T counts myopia ** (T - 1 - t)."""
    rewards = np.array(
        [(pair.first.env_reward, pair.second.env_reward) for pair in pairs], np.float64
    )
    weight = myopia ** np.arange(rewards.shape[-1])[::-1]
    return np.asarray((rewards * weight).sum(-1).T)


def usual_returns(pairs: Sequence[Pair]) -> Float[np.ndarray, " pairs"]:
    """Return for each pair the mean return of as many steps in the latest episodes of its task."""
    by_task: dict[int, dict[int, Episode]] = {}
    for pair in pairs:
        episodes = by_task.setdefault(id(pair.task), {})
        episodes |= {each.episode.number: each.episode for each in (pair.first, pair.second)}
    per_step = {}
    for task, episodes in by_task.items():
        latest = [episodes[number] for number in sorted(episodes)[-LATEST:]]
        total = sum(float(episode.env_reward.sum(dtype=np.float64)) for episode in latest)
        per_step[task] = total / sum(map(len, latest))
    return np.array([per_step[id(pair.task)] * pair.first.length for pair in pairs])
