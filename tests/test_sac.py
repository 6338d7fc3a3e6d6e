"""The steady policy of our SAC: what it averages and normalises, who acts by it, and that it survives a save."""

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from agents.sac import SacConfig, SteadyPolicy, make_sac, normalised
from tests.helpers import ToyReach

SMALL = SacConfig(width=8, learning_starts=20, batch_size=8, explore_steps=0, actor_average=0.1)


def trained(
    config: SacConfig = SMALL, steps: int = 60, callback: BaseCallback | None = None
) -> SAC:
    agent = make_sac(config, toy(), 100, seed=0, device="cpu")
    return agent.learn(steps, callback)


def toy() -> gym.Env:
    return gym.wrappers.TimeLimit(ToyReach(), 20)


def weights_of(actor: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(actor.parameters()).detach().clone()


class Weights(BaseCallback):
    """Keeps the weights of the actor after every env step; those of a step are seen at the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def _on_step(self) -> bool:
        self.seen.append(weights_of(self.model.actor))
        return True


def test_the_average_follows_the_actor_as_an_exponential_moving_average() -> None:
    history = Weights()
    agent = trained(callback=history)
    # Updates begin after step 21; a callback sees what the step before it left.
    of_updates = [*history.seen[20:], weights_of(agent.actor)]
    assert not torch.equal(of_updates[0], of_updates[-1])
    expected = of_updates[0]
    for weights in of_updates[1:]:
        expected = 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(weights_of(agent.policy.average), expected)


def test_only_deterministic_actions_come_from_the_average() -> None:
    agent, obs = trained(), np.full((1, *toy().observation_space.shape), 0.3, np.float32)
    with torch.no_grad():
        for weight in agent.policy.average.parameters():
            weight.zero_()
    np.testing.assert_array_equal(agent.predict(obs, deterministic=True)[0], 0)
    assert np.abs(agent.predict(obs)[0]).max() > 0


def test_learning_does_not_know_the_average() -> None:
    averaged, plain = trained(), trained(replace(SMALL, actor_average=0.0))
    assert plain.policy.average is None
    torch.testing.assert_close(weights_of(averaged.actor), weights_of(plain.actor), rtol=0, atol=0)


def test_a_saved_average_goes_on(tmp_path: Path) -> None:
    agent = trained()
    agent.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip", env=toy())
    average = weights_of(loaded.policy.average)
    torch.testing.assert_close(average, weights_of(agent.policy.average), rtol=0, atol=0)
    assert not torch.equal(average, weights_of(loaded.actor))
    loaded.learn(40)
    assert not torch.equal(average, weights_of(loaded.policy.average))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_an_average_of_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"a share, in \[0, 1\]"):
        SacConfig(actor_average=share)


def test_normalised_critics_are_the_same_perceptrons_with_bounded_hidden_layers() -> None:
    torch.manual_seed(0)
    linear = [torch.nn.Linear(5, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1)]
    plain = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1], torch.nn.ReLU(), linear[2])
    network = normalised(plain)
    inputs = torch.randn(7, 5)
    hidden = inputs
    for layer in linear[:2]:
        hidden = torch.relu(torch.nn.functional.layer_norm(layer(hidden), (16,)))
    torch.testing.assert_close(network(inputs), linear[2](hidden))
    # However far away an input lies, what is made of it is bounded by the last layer's weights.
    bound = linear[2].weight.norm() * 16**0.5 + linear[2].bias.abs()
    assert network(1e6 * inputs).abs().max() <= bound
    assert plain(1e6 * inputs).abs().max() > bound


def test_both_critics_and_their_targets_are_normalised_and_learn() -> None:
    agent = trained()
    for critic in (agent.critic, agent.critic_target):
        norms = [each for each in critic.modules() if isinstance(each, torch.nn.LayerNorm)]
        assert len(norms) == 2 * SMALL.depth
        assert all(not torch.equal(each.weight, torch.ones(SMALL.width)) for each in norms)
        assert [*critic.q_networks] == [critic.qf0, critic.qf1]


def test_a_bare_agent_is_stable_baselines3s() -> None:
    bare = trained(replace(SMALL, actor_average=0.0, critic_norm=False))
    assert type(bare.policy) is SACPolicy
    assert isinstance(trained().policy, SteadyPolicy)
    assert not any(isinstance(each, torch.nn.LayerNorm) for each in bare.policy.modules())
