"""Choosing a policy: the labeler's preference decides, and nothing else."""

from typing import Any

import numpy as np
import pytest

from agents.selection import choose, record_episode, tournament
from tests.helpers import TASK, ToyReach
from vlp_gym import wrap
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.types import Episode, Labels, Pair, Status


def episode(reward: float, steps: int = 10) -> Episode:
    """Return an episode that is paid `reward` in its last half and nothing before."""
    paid = np.where(np.arange(steps) < steps // 2, 0.0, reward).astype(np.float32)
    zeros = np.zeros((steps, 1), np.float32)
    return Episode(0, zeros, zeros, paid, np.zeros((steps, 0)), {}, np.zeros(steps, bool))


def test_the_share_of_wins_orders_policies_as_their_endings() -> None:
    rewards = [1.0, 3.0, 2.0]
    share = tournament([[episode(r)] * 2 for r in rewards], OracleLabeler(), TASK, 5)
    assert share.tolist() == [0.0, 1.0, 0.5]


def test_only_the_end_of_an_episode_counts() -> None:
    early = Episode(**{**_fields(episode(0.0)), "env_reward": np.full(10, 9.0, np.float32)})
    early.env_reward[5:] = 0.0
    share = tournament([[early], [episode(1.0)]], OracleLabeler(), TASK, 5)
    assert share.tolist() == [0.0, 1.0]


def _fields(of: Episode) -> dict[str, Any]:
    return {name: getattr(of, name) for name in Episode.__slots__}


def test_pairs_without_a_label_do_not_count() -> None:
    def shy(pairs: list[Pair]) -> Labels:
        n_pairs = len(pairs)
        return Labels(
            np.full(n_pairs, np.nan, np.float32), np.full(n_pairs, Status.ABSTAINED, np.int8)
        )

    assert tournament([[episode(1.0)], [episode(2.0)]], shy, TASK, 5).tolist() == [0.0, 0.0]


def toy() -> Any:
    return wrap(ToyReach(), "reach the red dot", labeler=None, reward="env")


class Goes:
    """Acts like a policy of SB3: to the goal, away from it, or nowhere."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def predict(self, obs: np.ndarray, deterministic: bool) -> tuple[np.ndarray, None]:
        return np.clip(self.speed * (obs[2:] - obs[:2]), -1, 1).astype(np.float32), None


class Preference:
    """The parts of the wrapper that choosing reads."""

    labeler, scene, task = OracleLabeler(), None, TASK
    config = FeedbackConfig(segment_length=5, session_every=20)


@pytest.mark.parametrize(
    ("speeds", "best"), [((-1.0, 5.0, 0.0), 20), ((5.0, 0.0, -1.0), 10), ((2.0, 2.0, 2.0), 30)]
)
def test_the_preferred_policy_is_chosen_and_of_equals_the_latest(
    speeds: tuple[float, ...], best: int
) -> None:
    policies: Any = {10 * (i + 1): Goes(speed) for i, speed in enumerate(speeds)}
    assert choose(policies, toy(), Preference(), episodes=3, seed=0) == best


def test_a_recorded_episode_is_what_the_policy_did() -> None:
    recorded = record_episode(lambda obs: np.ones(2, np.float32), toy(), None, seed=4)
    assert len(recorded) == 20
    np.testing.assert_array_equal(recorded.action, 1.0)
    first, _ = toy().reset(seed=4)
    np.testing.assert_array_equal(recorded.obs[0], first)
