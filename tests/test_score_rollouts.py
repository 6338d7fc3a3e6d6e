"""Agents of Stable-Baselines3 that a scorer pays: a rollout scored in one go gives the rewards of step by step."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from tests.helpers import FakeScorer, ToyReach
from tests.test_sb3 import Discretized, small
from tests.test_score_reward import OfFrames, make, toy
from vlp_gym.sb3 import ScoreRollouts
from vlp_gym.types import Task


class Sees(BaseCallback):
    """Right before learning: what the buffer pays every frame, and whether that is its score."""

    def __init__(self) -> None:
        super().__init__()
        self.n_checked = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        replay = self.model.replay_buffer
        if self.num_timesteps <= self.model.learning_starts:
            return
        obs = replay.next_observations[: replay.size()].astype(np.float64)
        cells = np.round((obs + 1) * 7.5)
        expected = -np.linalg.norm(cells[..., :2] - cells[..., 2:], axis=-1)
        # Where both are in one place the green dot hides the red one: the scorer would fail.
        np.testing.assert_allclose(replay.rewards[: replay.size()], expected, atol=1e-4)
        self.n_checked += 1


class Blind(FakeScorer):
    """As `FakeScorer`, and 0 where one dot hides the other."""

    unit = "frame"

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        apart = clips[..., 0].max((2, 3)) == 255
        score = np.zeros(clips.shape[:2], np.float32)
        for index in np.ndindex(score.shape):
            if apart[index]:
                score[index] = super().__call__(clips[index][None, None], task)[0, 0]
        return score


@pytest.mark.parametrize(
    ("n_envs", "train_freq", "buffer_size"), [(1, 1, 1_000), (1, 7, 40), (3, 5, 60)]
)
def test_what_is_learned_from_is_scored(n_envs: int, train_freq: int, buffer_size: int) -> None:
    """Also in several envs, and once the buffer has wrapped round."""
    envs = make_vec_env(lambda: make(Blind()), n_envs)
    model = SAC(
        "MlpPolicy",
        envs,
        learning_starts=9,
        train_freq=train_freq,
        buffer_size=buffer_size,
        **small(),
    )
    sees = Sees()
    model.learn(90, [ScoreRollouts(), sees])
    assert sees.n_checked >= 5


def test_a_rollout_is_scored_in_few_calls() -> None:
    scorer = OfFrames()
    env = make(scorer, toy(10))
    SAC("MlpPolicy", env, learning_starts=5, train_freq=20, **small()).learn(40, ScoreRollouts())
    assert sum(scorer.batches) == 40 and len(scorer.batches) == 4


@pytest.mark.parametrize("kind", [DQN, PPO])
def test_other_algorithms_learn_the_same_either_way(kind: type[BaseAlgorithm]) -> None:
    """With `ScoreRollouts` and without it: the same weights in the end."""
    weights = []
    for callback in (None, ScoreRollouts()):
        env = make(Blind(), Discretized(toy()) if kind is DQN else toy())
        settings: dict[str, Any] = (
            {"learning_starts": 10, "train_freq": 8}
            if kind is DQN
            else {"n_steps": 16, "batch_size": 8}
        )
        model = kind("MlpPolicy", env, **settings, **small())
        model.learn(48, callback)
        weights.append(
            np.concatenate([p.detach().numpy().ravel() for p in model.policy.parameters()])
        )
    np.testing.assert_allclose(*weights, atol=1e-5)


@pytest.mark.parametrize("is_limit_inside", [True, False])
def test_logged_returns_are_the_scored_ones(is_limit_inside: bool) -> None:
    env: Any = make(Blind())
    if not is_limit_inside:
        env = gym.wrappers.TimeLimit(make(Blind(), ToyReach("rgb_array", None)), 6)
    model = SAC("MlpPolicy", env, learning_starts=5, train_freq=4, **small())
    model.learn(24, ScoreRollouts())
    of_monitor = [episode["r"] for episode in model.ep_info_buffer or ()]
    played = model.replay_buffer
    assert played is not None
    returns = played.rewards[:24, 0].reshape(4, 6).sum(1)
    np.testing.assert_allclose(of_monitor, returns, rtol=1e-4)


def test_a_training_that_is_stopped_early_owes_nothing() -> None:
    model = SAC("MlpPolicy", make(Blind()), learning_starts=100, **small())
    model.learn(1_000, [ScoreRollouts(), StopTrainingOnMaxEpisodes(2)])
    replay = model.replay_buffer
    assert replay is not None and replay.size() == 11  # the last step is not stored
    assert (replay.rewards[:11] < 0).all()


def test_what_cannot_be_paid_late_is_refused() -> None:
    model = SAC("MlpPolicy", toy(), **small())
    with pytest.raises(ValueError, match="not paid by a scorer"):
        model.learn(5, ScoreRollouts())
    normalised = VecNormalize(DummyVecEnv([make]))
    with pytest.raises(ValueError, match="norm_reward=False"):
        SAC("MlpPolicy", normalised, **small()).learn(5, ScoreRollouts())
    apart = SubprocVecEnv([toy], start_method="fork")
    try:
        with pytest.raises(ValueError, match="needs envs in this process"):
            SAC("MlpPolicy", apart, **small()).learn(5, ScoreRollouts())
    finally:
        apart.close()
