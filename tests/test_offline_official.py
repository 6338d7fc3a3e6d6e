"""Ten updates of every agent against the published algorithms, written out from their equations with plain modules.

No dropout here: its masks are random by nature. Batches are those of our agents; what is tested is what becomes of
them. In float64: some gradients are nothing but rounding (a reward's last bias, which no preference sees), and Adam
divides by their size.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents import cpl, ipl, iql, piql
from agents.networks import StackedMLP
from tests.tiny_offline import make_comparisons, make_transitions

TEN = 10
HIDDEN = (16, 16)


def plain(network: StackedMLP, member: int = 0) -> nn.Sequential:
    """Return the first seed's network as PyTorch's own layers, with the same weights."""
    layers: list[nn.Module] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        layer = nn.Linear(*weight.shape[1:], dtype=weight.dtype)
        layer.load_state_dict(
            {"weight": weight[member].detach().T.clone(), "bias": bias[member, 0].detach().clone()}
        )
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def assert_same(network: StackedMLP, official: nn.Sequential, member: int = 0) -> None:
    linear = [layer for layer in official if isinstance(layer, nn.Linear)]
    for weight, bias, layer in zip(network.weights, network.biases, linear, strict=True):
        torch.testing.assert_close(weight[member].T, layer.weight, atol=1e-5, rtol=0)
        torch.testing.assert_close(bias[member, 0], layer.bias, atol=1e-5, rtol=0)


def batch_of(learner: Any) -> SimpleNamespace:
    """Return the batch of an agent of one seed, without the axis of seeds."""
    batch = learner._pairs.at(learner.step)
    return SimpleNamespace(**{name: value[0] for name, value in vars(batch).items()})


def doubled(learner: Any) -> Any:
    """Return an agent that computes in float64."""
    learner.networks.double()
    for name in ("_obs", "_action", "_label", "_weight", "_reward", "_next_obs"):
        for holder in (learner, *(getattr(learner, each, None) for each in ("_pairs", "_replay"))):
            if isinstance(getattr(holder, name, None), Tensor):
                setattr(holder, name, getattr(holder, name).double())
    return learner


class OfficialIQL:
    """IQL's step of research/algs/piql.py, one network after the other."""

    def __init__(self, core: iql.IQLCore, steps: int) -> None:
        self.core, self.steps = core, steps
        self.actor = nn.Sequential(*plain(core.actor.body), nn.Tanh())
        self.critics = [plain(core.critic, member) for member in (0, 1)]
        self.targets = [plain(core.target, member) for member in (0, 1)]
        self.value = plain(core.value)
        rate = core.config.learning_rate
        self.actor_optim = torch.optim.Adam(self.actor.parameters(), rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optim, T_max=steps)
        critic_parameters = [p for critic in self.critics for p in critic.parameters()]
        self.critic_optim = torch.optim.Adam(critic_parameters, rate)
        self.value_optim = torch.optim.Adam(self.value.parameters(), rate)

    def step(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> None:
        config, inputs = self.core.config, torch.cat([obs, action], -1)
        with torch.no_grad():
            target_q = torch.min(*(target(inputs).squeeze(-1) for target in self.targets))
        value = self.value(obs).squeeze(-1)
        gap = target_q - value
        weight = torch.abs(config.expectile - (gap < 0).double())
        self.down(self.value_optim, (weight * gap**2).mean())
        advantage = (target_q - value).detach()
        clipped = torch.clamp(torch.exp(advantage / config.temperature), max=config.weight_limit)
        cloning = F.mse_loss(self.actor(obs), action, reduction="none").sum(-1)
        self.down(self.actor_optim, (clipped * cloning).mean())
        self.schedule.step()
        with torch.no_grad():
            target = reward + config.discount * self.value(next_obs).squeeze(-1)
        q = torch.stack([critic(inputs).squeeze(-1) for critic in self.critics])
        self.down(self.critic_optim, F.mse_loss(q, target.expand_as(q)))
        follow(self.targets, self.critics, config.polyak)

    @staticmethod
    def down(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def assert_same(self) -> None:
        assert_same(self.core.actor.body, self.actor)
        assert_same(self.core.value, self.value)
        for member in (0, 1):
            assert_same(self.core.critic, self.critics[member], member)
            assert_same(self.core.target, self.targets[member], member)


def follow(targets: list[nn.Sequential], online: list[nn.Sequential], share: float) -> None:
    with torch.no_grad():
        for behind, ahead in zip(targets, online, strict=True):
            for a, b in zip(behind.parameters(), ahead.parameters(), strict=True):
                a.copy_(share * b + (1 - share) * a)


TINY_IQL = iql.IQLConfig(hidden=HIDDEN, dropout=0.0, learning_rate=1e-2)


def test_iql_takes_the_official_steps() -> None:
    config = iql.Config(data=Path(), iql=TINY_IQL, batch_size=12, steps=TEN, device="cpu")
    learner = doubled(iql.IQL(config, make_transitions()))
    official = OfficialIQL(learner.core, TEN)
    for step in range(TEN):
        rows = learner._batches.at(step)[0]
        data = (learner._obs, learner._action, learner._reward, learner._next_obs)
        official.step(*(each[rows] for each in data))
        learner.update()
    official.assert_same()


@pytest.mark.parametrize("reward_steps", [TEN, 4])
def test_piql_takes_the_official_steps(reward_steps: int) -> None:
    config = piql.Config(
        pairs=Path(), iql=TINY_IQL, batch_size=5, steps=TEN, reward_steps=reward_steps, reward_hidden=HIDDEN,
        device="cpu",
    )  # fmt: skip
    learner = doubled(piql.PIQL(config, make_comparisons()))
    official, reward_net = OfficialIQL(learner.core, TEN), plain(learner.reward)
    optimizer = torch.optim.Adam(reward_net.parameters(), 1e-2)
    for step in range(TEN):
        batch = batch_of(learner)
        reward = reward_net(torch.cat([batch.obs, batch.action], -1)).squeeze(-1)
        if step < reward_steps:
            logit = reward[1].sum(-1) - reward[0].sum(-1)
            official.down(optimizer, F.binary_cross_entropy_with_logits(logit, batch.label))
        rows = (
            batch.obs[..., :-1, :],
            batch.action[..., :-1, :],
            reward.detach()[..., :-1],
            batch.obs[..., 1:, :],
        )
        official.step(*(each.reshape(-1, *each.shape[3:]) for each in rows))
        learner.update()
    official.assert_same()
    assert_same(learner.reward, reward_net)


def test_piql_on_trajectories_is_iql_on_what_the_reward_says_of_them() -> None:
    config = piql.Config(
        pairs=Path(), iql=TINY_IQL, batch_size=5, steps=TEN, reward_steps=0, reward_hidden=HIDDEN, device="cpu",
        replay_batch_size=12,
    )  # fmt: skip
    replay = make_transitions()
    learner = doubled(piql.PIQL(config, make_comparisons(), replay))
    official, reward_net = OfficialIQL(learner.core, TEN), plain(learner.reward)
    assert learner._replay is not None
    for step in range(TEN):
        obs, action, next_obs = (each[0] for each in learner._replay.at(step))
        with torch.no_grad():
            reward = reward_net(torch.cat([obs, action], -1)).squeeze(-1)
        official.step(obs, action, reward, next_obs)
        learner.update()
    official.assert_same()


@pytest.mark.parametrize("actor", ["gaussian", "deterministic"])
def test_ipl_takes_the_official_steps(actor: Any) -> None:
    config = ipl.Config(
        pairs=Path(), hidden=HIDDEN, batch_size=5, steps=TEN, window=None, learning_rate=1e-2, actor=actor,
        device="cpu",
    )  # fmt: skip
    learner = doubled(ipl.IPL(config, make_comparisons()))
    actor_net = nn.Sequential(*plain(learner.actor.body), nn.Tanh())
    log_std = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    critics, targets = ([plain(net, m) for m in (0, 1)] for net in (learner.critic, learner.target))
    value_net = plain(learner.value)
    actor_optim = torch.optim.Adam([*actor_net.parameters(), log_std], 1e-2)
    critic_optim = torch.optim.Adam([p for critic in critics for p in critic.parameters()], 1e-2)
    value_optim = torch.optim.Adam(value_net.parameters(), 1e-2)
    for _ in range(TEN):
        batch = batch_of(learner)
        obs, action, next_obs = (
            batch.obs[..., :-1, :],
            batch.action[..., :-1, :],
            batch.obs[..., 1:, :],
        )
        inputs = torch.cat([obs, action], -1)
        with torch.no_grad():
            target_q = torch.min(*(target(inputs).squeeze(-1) for target in targets))
        gap = target_q - value_net(obs).squeeze(-1)
        OfficialIQL.down(value_optim, (torch.abs(0.75 - (gap < 0).double()) * gap**2).mean())
        with torch.no_grad():
            next_value = value_net(next_obs).squeeze(-1)
        q = torch.stack([critic(inputs).squeeze(-1) for critic in critics])
        reward = q - 0.99 * next_value
        logit = reward[:, 1].sum(-1) - reward[:, 0].sum(-1)
        loss = F.binary_cross_entropy_with_logits(logit, batch.label.expand_as(logit))
        OfficialIQL.down(critic_optim, loss + 3 * (reward**2).mean())
        with torch.no_grad():
            weight = torch.exp((target_q - value_net(obs).squeeze(-1)) / 0.3333).clamp(max=100)
        mean = actor_net(obs)
        cloning = ((mean - action) ** 2).sum(-1)
        if actor == "gaussian":
            policy = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
            cloning = -policy.log_prob(action).sum(-1)
        OfficialIQL.down(actor_optim, (weight * cloning).mean())
        follow(targets, critics, 0.005)
        learner.update()
    assert_same(learner.actor.body, actor_net)
    assert_same(learner.value, value_net)
    for member in (0, 1):
        assert_same(learner.critic, critics[member], member)
        assert_same(learner.target, targets[member], member)
    if actor == "gaussian":
        assert learner.actor.log_std is not None
        torch.testing.assert_close(learner.actor.log_std[0, 0], log_std, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["cpl", "cpl-bc", "cpl-kl", "bc"])
def test_cpl_takes_the_official_steps(variant: Any) -> None:
    alpha, bias, cloning, factor = {
        "cpl": (0.1, 0.5, 0.0, 1.0), "cpl-bc": (0.1, 1.0, 1.0, 1.0), "cpl-kl": (0.2, 0.75, 0.0, 0.1),
        "bc": (0.1, 0.5, 0.0, 1.0),
    }[variant]  # fmt: skip
    bc_steps, warmup = 4, 3
    config = cpl.Config(
        pairs=Path(), variant=variant, hidden=HIDDEN, dropout=0.0, batch_size=5, steps=TEN, bc_steps=bc_steps,
        warmup_steps=warmup, learning_rate=1e-2, device="cpu",
    )  # fmt: skip
    learner = doubled(cpl.CPL(config, make_comparisons()))
    if variant == "cpl-kl":
        assert learner.networks["reference"].body.weights[0].dtype == torch.float64
    actor = nn.Sequential(*plain(learner.actor.body), nn.Tanh())
    optimizer, frozen = torch.optim.Adam(actor.parameters(), 1e-2), None
    for step in range(TEN):
        if step == bc_steps and variant != "bc":
            optimizer = torch.optim.Adam(actor.parameters(), 1e-2)
            frozen = {name: value.clone() for name, value in actor.state_dict().items()}
        batch = batch_of(learner)
        log_prob = -((actor(batch.obs) - batch.action) ** 2).sum(-1)
        loss = -log_prob.mean()
        if frozen is not None:
            worth = log_prob.clone()
            if variant == "cpl-kl":
                with torch.no_grad():
                    before = torch.func.functional_call(actor, frozen, (batch.obs,))
                worth = log_prob + ((before - batch.action) ** 2).sum(-1)
            first, second = (alpha * worth).sum(-1)
            y = batch.label
            towards_second = -torch.log(torch.sigmoid(second - bias * first))
            towards_first = -torch.log(torch.sigmoid(first - bias * second))
            loss = (y * towards_second + (1 - y) * towards_first).mean() + cloning * loss
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * factor * min(1.0, (step - bc_steps + 1) / warmup)
        OfficialIQL.down(optimizer, loss)
        learner.update()
    assert_same(learner.actor.body, actor)
