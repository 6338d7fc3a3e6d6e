"""Relabelling and logging with Stable-Baselines3."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.helpers import ToyReach
from vlp_gym.sb3 import RelabelReplay
from vlp_gym.wrappers.preference import PreferenceReward

FEEDBACK: dict[str, Any] = {
    "budget": 40,
    "queries_per_session": 8,
    "session_every": 50,
    "segment_length": 5,
    "ensemble": {"width": 16, "depth": 2},
    "fit": {"max_epochs": 3},
}


class Discretized(gym.ActionWrapper[Any, Any, Any]):
    """`ToyReach` with four moves."""

    MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(4)

    def action(self, action: Any) -> Any:
        return self.MOVES[action]


def small() -> dict[str, Any]:
    """Return settings of a small model, anew: Stable-Baselines3 writes into `policy_kwargs`."""
    return {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0}


def make(env: gym.Env[Any, Any] | None = None, **feedback: Any) -> PreferenceReward:
    settings = {**FEEDBACK, **feedback}
    inner = env or ToyReach(low=-3.0)
    return PreferenceReward(
        inner, "reach the red dot", labeler="oracle", feedback=settings, device="cpu"
    )


class Checks(BaseCallback):
    """After every step: all stored rewards are those of the present ensemble."""

    def __init__(self, preference: PreferenceReward) -> None:
        super().__init__()
        self.preference, self.n_checked, self.logged = preference, 0, {}

    def _on_step(self) -> bool:
        self.logged |= self.logger.name_to_value
        return True

    def _on_rollout_end(self) -> None:
        replay, loop = self.model.replay_buffer, self.preference.loop
        assert loop is not None
        if loop.version and replay.size():
            rows = slice(None, replay.size())
            obs = self.preference.encoding.obs_rows(replay.observations[rows])
            actions = self.preference.encoding.stored_action_rows(replay.actions[rows])
            np.testing.assert_allclose(
                replay.rewards[rows, 0], loop.ensemble(obs, actions), atol=1e-5
            )
            self.n_checked += 1


def learn(kind: type[BaseAlgorithm], env: gym.Env[Any, Any], **settings: Any) -> Checks:
    model = kind("MlpPolicy", env, **small(), **settings)
    preference = env
    while not isinstance(preference, PreferenceReward):
        preference = preference.env  # type: ignore[attr-defined]
    checks = Checks(preference)
    model.learn(220, [RelabelReplay(), checks])
    return checks


@pytest.mark.parametrize("buffer_size", [1_000, 64])
@pytest.mark.parametrize("kind", [SAC, TD3])
def test_every_stored_step_has_the_present_reward(
    kind: type[BaseAlgorithm], buffer_size: int
) -> None:
    """With actions in [-3, 1], and also once the buffer has wrapped round."""
    env = make()
    checks = learn(kind, env, buffer_size=buffer_size, learning_starts=10, train_freq=1)
    assert env.loop is not None and env.loop.version == 4 and checks.n_checked > 100


def test_discrete_actions_are_relabelled_too() -> None:
    env = make(Discretized(ToyReach()))
    checks = learn(DQN, env, buffer_size=100, learning_starts=10)
    assert checks.n_checked > 20


def test_on_policy_algorithms_need_no_buffer() -> None:
    env = make()
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, **small())
    model.learn(128, RelabelReplay())
    assert env.loop is not None and env.loop.version == 2


def test_labels_and_returns_are_logged() -> None:
    logged = learn(SAC, gym.wrappers.TimeLimit(make(), 15), learning_starts=200).logged
    assert logged["vlp/label_accuracy"] == 1.0
    assert logged["vlp/queries"] == logged["vlp/labels"] == 32
    assert logged["vlp/env_return"] < 0
    assert {"vlp/success", "vlp/learned_return", "vlp/fit_accuracy", "vlp/seconds_fit"} <= set(
        logged
    )


def test_several_envs_are_refused() -> None:
    model = SAC("MlpPolicy", DummyVecEnv([make, make]), **small())
    with pytest.raises(ValueError, match="needs one env in this process, got 2"):
        model.learn(10, RelabelReplay())


def test_an_env_without_a_learned_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vlp_gym\.wrap"):
        SAC("MlpPolicy", ToyReach(), **small()).learn(10, RelabelReplay())


def test_the_simulators_reward_needs_no_relabelling() -> None:
    env = PreferenceReward(ToyReach(), "reach", labeler=None, reward="env")
    model = SAC("MlpPolicy", env, learning_starts=100, **small())
    model.learn(40, RelabelReplay())
    assert model.replay_buffer is not None and (model.replay_buffer.rewards[:40] < 0).all()


def test_one_seed_one_agent() -> None:
    weights = []
    for _ in range(2):
        model = SAC("MlpPolicy", make(), learning_starts=10, **small())
        model.learn(120, RelabelReplay())
        weights.append(next(model.policy.parameters()).detach().numpy().copy())
    np.testing.assert_array_equal(*weights)


def test_stable_baselines3s_own_checker_is_content() -> None:
    check_env(make(ToyReach()), warn=True, skip_render_check=True)


@pytest.mark.parametrize("flush", [True, False])
def test_numbers_too_small_to_matter_do_not_slow_the_processor(flush: bool) -> None:
    torch.set_flush_denormal(False)
    agent = SAC("MlpPolicy", make(), learning_starts=1_000, **small())
    try:
        agent.learn(2, RelabelReplay(flush_denormals=flush))
        assert (float(torch.tensor([1e-30]) * 1e-10) == 0) == flush
    finally:
        torch.set_flush_denormal(False)
