"""Agents that a vision-language model pays: the papers' settings, and stop and resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC

from agents import run, vlm_reward
from agents.sac import SacConfig, make_sac
from agents.vlm_reward import PROTOCOLS, Config, make_agent, make_env, protocol_of
from tests.official import write_s3d
from tests.test_pebble import Killed, saved_state, stop_after_checkpoint
from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.state_file import load_state

TINY = Config(
    env="CartPole",
    checkpoint="bundled",
    settings=("alpha=0.5",),
    steps=120,
    learning_starts=30,
    evaluate_every=60,
    evaluation_episodes=1,
    device="cpu",
    quiet=True,
    overrides={"train_freq": 20, "gradient_steps": 5, "batch_size": 8},
)


def test_the_papers_settings() -> None:
    humanoid, cartpole, car = (PROTOCOLS[n] for n in ("humanoid", "cartpole", "mountain-car"))
    assert (humanoid.algorithm, humanoid.steps, humanoid.max_episode_steps) == (SAC, 10**7, 100)
    assert {"gamma": 0.95, "tau": 0.005, "learning_rate": 6e-4}.items() <= humanoid.settings.items()
    assert (cartpole.algorithm, cartpole.steps) == (DQN, 3_000_000)
    assert cartpole.settings["learning_starts"] == 75_000
    assert {"gamma": 0.9999, "tau": 0.01, "ent_coef": 0.1}.items() <= car.settings.items()
    roboclip = protocol_of(Config(env="DrawerClose", scorer="roboclip"))
    assert (roboclip.algorithm, roboclip.n_envs, roboclip.max_episode_steps) == (PPO, 8, 128)
    assert roboclip.settings == {
        "n_steps": 128, "batch_size": 1_024, "n_epochs": 1, "ent_coef": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["CartPole", "MountainCar"])
def test_agents_take_their_settings(name: str) -> None:
    config = Config(env=name, checkpoint="bundled", device="cpu", steps=1_000)
    agent: Any = make_agent(config, make_env(config, "env"))
    settings = protocol_of(config).settings
    assert agent.gradient_steps == settings["gradient_steps"] == agent.train_freq.frequency
    assert agent.gamma == settings.get("gamma", 0.99) and agent.buffer_size == 1_000
    assert [m.out_features for m in agent.policy.modules() if hasattr(m, "out_features")][:2] == (
        settings["policy_kwargs"]["net_arch"]
    )


def test_a_run_says_who_paid_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vlm_reward.learn(replace(TINY, out=tmp_path / "whole"))
    assert whole["scorer"] == "vlmrm:stand-in:vlp-compact"
    assert whole["instruction"] == "pole vertically upright on top of the cart"
    assert whole["after"]["step"] == 120
    with monkeypatch.context() as patch:
        stop_after_checkpoint(patch, 60)
        with pytest.raises(Killed):
            vlm_reward.learn(replace(TINY, out=tmp_path / "stopped"))
    state = load_state(run.last_checkpoint(tmp_path / "stopped") / "state.npz")
    assert state["env"]["envs"][0]["scored"]["first"] is not None  # in the middle of an episode
    vlm_reward.go_on(tmp_path / "stopped")
    ends = [np.load(run.last_checkpoint(tmp_path / n) / "replay.npz") for n in ("whole", "stopped")]
    for name in ("rewards", "observations", "actions"):
        np.testing.assert_array_equal(ends[0][name], ends[1][name])


def test_exploration_fades_over_the_whole_run(tmp_path: Path) -> None:
    """Stable-Baselines3 would start it anew in every part between two evaluations."""
    seen: list[float] = []

    class Looks(vlm_reward.Progress):
        def _on_rollout_end(self) -> None:
            seen.append(self.model.exploration_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm_reward, "Progress", Looks)
        slow = {**TINY.overrides, "exploration_fraction": 1}
        vlm_reward.learn(replace(TINY, out=tmp_path / "run", overrides=slow))
    expected = [1 - 0.95 * step / 120 for step in range(20, 121, 20)]
    np.testing.assert_allclose(seen, expected, atol=0.02)


def test_humanoids_have_no_success_and_none_is_made_up(tmp_path: Path) -> None:
    config = replace(
        TINY,
        env="HumanoidSplits",
        steps=40,
        evaluate_every=40,
        learning_starts=1_000,
        out=tmp_path / "run",
    )
    result = vlm_reward.learn(config)
    assert result["after"]["success"] is None and result["after"]["env_return"] > 0


def test_roboclips_protocol_pays_whole_episodes_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, words = write_s3d(tmp_path)
    settings = (f"vocabulary={words}", "picture_px=[32, 32]", "n_frames=4", "keeps_last=false")
    config = Config(
        env="DrawerClose",
        scorer="roboclip",
        checkpoint=str(weights),
        settings=settings,
        instruction="robot closing green drawer",
        steps=2 * 8 * 50,
        evaluate_every=8 * 50,
        evaluation_episodes=1,
        device="cpu",
        quiet=True,
        overrides={"n_steps": 50, "batch_size": 80},  # checkpoints in the middle of episodes
    )
    result = vlm_reward.learn(replace(config, out=tmp_path / "whole"))
    assert result["sha256"].keys() == {"checkpoint", "vocabulary"}
    assert result["after"]["step"] == 2 * 8 * 50
    with monkeypatch.context() as patch:
        stop_after_checkpoint(patch, 8 * 50)
        with pytest.raises(Killed):
            vlm_reward.learn(replace(config, out=tmp_path / "stopped"))
    vlm_reward.go_on(tmp_path / "stopped")
    ends = [run.last_checkpoint(tmp_path / name) for name in ("whole", "stopped")]
    assert saved_state(ends[0]) == saved_state(ends[1])
    agents = [PPO.load(end / "agent.zip") for end in ends]
    for one, other in zip(*(agent.policy.parameters() for agent in agents), strict=True):
        assert one.equal(other)
    env = make_env(config)
    env.reset(seed=0)
    rewards = [env.step(env.action_space.sample())[1] for _ in range(128)]
    assert env.observation_space.shape == (40,)
    assert np.flatnonzero(rewards).tolist() == [127]
    env.close()


def test_rewards_are_compared_with_the_agent_of_pebble() -> None:
    own, same = (
        Config(env="DoorClose", scorer="roboclip", steps=1_000, protocol=protocol, device="cpu")
        for protocol in ("own", "metaworld")
    )
    assert protocol_of(own).algorithm is PPO
    agent: Any = make_agent(replace(same, learning_starts=7), make_env(same, "env"))
    pebbles = make_sac(SacConfig(), make_env(same, "env"), 1_000, 0, "cpu")
    assert type(agent) is SAC and (agent.learning_starts, agent.train_freq.frequency) == (7, 150)
    assert type(agent.action_noise) is type(pebbles.action_noise)
    for name in ("learning_rate", "batch_size", "gamma", "tau", "ent_coef"):
        assert getattr(agent, name) == getattr(pebbles, name)
    with pytest.raises(ValueError, match="no task of Meta-World"):
        Config(env="CartPole", protocol="metaworld")


def test_an_unknown_env_is_refused_at_once() -> None:
    with pytest.raises(UnknownNameError, match="unknown Meta-World task"):
        Config(env="HumanoidKneeling")
