"""Agents that are not of Stable-Baselines3: SBX's, and loops in CleanRL's manner."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer

from tests.helpers import ToyReach
from tests.test_sb3 import Discretized, make, small
from vlp_gym.sb3 import RelabelReplay, relabel


def check_rewards(replay: ReplayBuffer, loop: Any) -> None:
    """Compare all stored rewards with those of the present ensemble."""
    rows = replay.size()
    present = loop.rewards(replay.observations[:rows, 0], replay.actions[:rows, 0])
    np.testing.assert_allclose(replay.rewards[:rows, 0], present, atol=1e-5)


def test_sac_of_sbx_learns_through_the_same_callback() -> None:
    sbx = pytest.importorskip("sbx", reason="SBX is not installed: pip install sbx-rl")
    env = make(ToyReach())
    agent = sbx.SAC("MlpPolicy", env, learning_starts=20, policy_kwargs={"net_arch": [16]}, seed=0)
    agent.learn(120, RelabelReplay())
    assert env.loop is not None and env.loop.version == 2 and agent._n_updates > 90
    check_rewards(agent.replay_buffer, env.loop)


def test_a_loop_in_cleanrls_manner_pays_its_buffer_anew() -> None:
    """A vector of one env, autoreset, and Stable-Baselines3's buffer, as in CleanRL's `sac_continuous_action.py`."""
    envs = SyncVectorEnv([lambda: make(ToyReach())], autoreset_mode=AutoresetMode.SAME_STEP)
    spaces = envs.single_observation_space, envs.single_action_space
    replay = ReplayBuffer(200, *spaces, "cpu", handle_timeout_termination=False)
    preference: Any = envs.envs[0]
    obs, _ = envs.reset(seed=0)
    version = 0
    for _ in range(130):
        actions = envs.action_space.sample()
        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        real_next_obs = next_obs.copy()
        for env, is_over in enumerate(truncations):
            if is_over:
                real_next_obs[env] = infos["final_obs"][env]
        replay.add(obs, real_next_obs, actions, rewards, terminations, [{}])
        obs = next_obs
        if preference.loop.version != version:
            relabel(replay, preference.shared)
            version = preference.loop.version
    assert version == 2
    check_rewards(replay, preference.loop)


def test_a_critic_that_cannot_start_anew_is_said(caplog: pytest.LogCaptureFixture) -> None:
    env = make(Discretized(ToyReach()), unsupervised=True)
    DQN("MlpPolicy", env, learning_starts=10, **small()).learn(60, RelabelReplay())
    assert "DQN has no critic of PyTorch's that could start anew" in caplog.text
