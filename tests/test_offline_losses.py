"""Losses of the offline agents, and their gradients, against closed forms in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents import cpl, ipl, iql, learning, piql
from agents.draws import Dropout
from agents.networks import Actor
from agents.perceptrons import Shape
from tests.tiny_offline import by_pytorch

RNG = np.random.default_rng(0)


def draw(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.normal(size=shape)).requires_grad_()


def labels(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.choice([0.0, 0.25, 0.5, 1.0], shape))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gradients(loss: Tensor, *inputs: Tensor) -> list[Any]:
    return [each.numpy() for each in torch.autograd.grad(loss.sum(), inputs)]


def check_gradient(loss: Tensor, gradient: Tensor, asked: Tensor) -> None:
    assert loss.shape == (len(asked),)
    np.testing.assert_allclose(gradient.detach(), gradients(loss, asked)[0], rtol=1e-12)


def test_the_value_loss_is_an_asymmetric_square() -> None:
    value, target = draw(2, 7), draw(2, 7).detach()
    loss, gradient = iql.value_loss(value, target, 1 / 7, 0.7)
    gap = (target - value).detach().numpy()
    share = np.where(gap < 0, 0.3, 0.7)
    np.testing.assert_allclose(loss.detach(), (share * gap**2).mean(1), rtol=1e-14)
    np.testing.assert_allclose(gradient.detach(), -2 * share * gap / 7, rtol=1e-14)
    check_gradient(loss, gradient, value)
    of_each = ipl.shares(4, torch.zeros(2, 7, 1, dtype=torch.float64))
    check_gradient(*iql.value_loss(value, target, of_each, 0.7), value)


def test_the_value_loss_is_least_at_the_expectile() -> None:
    target = torch.from_numpy(RNG.normal(size=(1, 4001)))
    value = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(300):
        _, gradient = iql.value_loss(value.expand(1, 4001), target, 1 / 4001, 0.9)
        value -= gradient.sum(1, keepdim=True)
    above = (target - value).clamp(min=0).sum() * 0.9
    below = (value - target).clamp(min=0).sum() * 0.1
    assert above.item() == pytest.approx(below.item(), rel=1e-6)


def test_an_action_counts_as_its_advantage_says() -> None:
    advantage = draw(2, 5).detach() * 3
    weight = iql.advantage_weight(advantage, 0.3333, 100.0)
    expected = np.minimum(np.exp(advantage.numpy() / 0.3333), 100.0)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)


def test_the_critic_follows_reward_and_next_value() -> None:
    q, reward, value = draw(2, 2, 6), draw(2, 6).detach(), draw(2, 6).detach()
    loss, gradient = iql.critic_loss(q, reward, value, 0.9)
    gap = q.detach().numpy() - (reward + 0.9 * value).numpy()[:, None]
    np.testing.assert_allclose(loss.detach(), (gap**2).mean((1, 2)), rtol=1e-14)
    np.testing.assert_allclose(gradient.detach(), 2 * gap / 12, rtol=1e-13)
    check_gradient(loss, gradient, q)


def test_the_preference_loss_is_the_cross_entropy_of_bradley_and_terry() -> None:
    logit, label = draw(2, 3, 9), labels(2, 9)
    loss, gradient = piql.preference_loss(logit, label, torch.ones_like(label))
    p, y = sigmoid(logit.detach().numpy()), label.numpy()[:, None]
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean((1, 2))
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-13)
    np.testing.assert_allclose(gradient.detach(), (p - y) / 27, rtol=1e-12)
    weight = torch.tensor([[1.0, 0, 1, 0.5, 1, 1, 0, 2, 1], [0] * 9], dtype=torch.float64)
    check_gradient(*piql.preference_loss(logit, label, weight), logit)


@pytest.mark.parametrize("bias", [1.0, 0.5])
def test_the_contrastive_loss(bias: float) -> None:
    worth, label = draw(2, 2, 9), labels(2, 9)
    loss, gradient = cpl.cpl_loss(worth, label, torch.ones_like(label), bias)
    (a, b), y = worth.detach().numpy().swapaxes(0, 1), label.numpy()
    towards_b = np.exp(b) / (np.exp(b) + np.exp(bias * a))
    towards_a = np.exp(a) / (np.exp(a) + np.exp(bias * b))
    expected = -(y * np.log(towards_b) + (1 - y) * np.log(towards_a)).mean(1)
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-13)
    of_first = (y * (1 - towards_b) * bias - (1 - y) * (1 - towards_a)) / 9
    of_second = (-y * (1 - towards_b) + (1 - y) * (1 - towards_a) * bias) / 9
    wanted = np.stack([of_first, of_second], 1)
    np.testing.assert_allclose(gradient.detach(), wanted, rtol=1e-11, atol=1e-15)
    weight = torch.tensor([[1.0, 0, 1, 0.5, 1, 1, 0, 2, 1], [0] * 9], dtype=torch.float64)
    check_gradient(*cpl.cpl_loss(worth, label, weight, bias), worth)


def test_without_bias_the_contrastive_loss_is_bradley_and_terrys() -> None:
    worth, label = draw(1, 2, 9), labels(1, 9)
    ones = torch.ones_like(label)
    whole, _ = cpl.cpl_loss(worth, label, ones, 1.0)
    logit = (worth[:, 1] - worth[:, 0]).unsqueeze(1)
    assert whole.item() == pytest.approx(piql.preference_loss(logit, label, ones)[0].item())


def test_under_a_bias_a_tie_pulls_both_segments_up() -> None:
    worth = torch.zeros(1, 2, 1, dtype=torch.float64)
    tie, ones = torch.full((1, 1), 0.5, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for bias, wanted in ((1.0, 0.0), (0.5, -0.125)):
        _, gradient = cpl.cpl_loss(worth, tie, ones, bias)
        np.testing.assert_allclose(gradient, wanted, atol=1e-15)


def test_swapping_all_pairs_and_labels_changes_nothing() -> None:
    worth, label = draw(1, 2, 9), labels(1, 9)
    ones = torch.ones_like(label)
    one, of_one = cpl.cpl_loss(worth, label, ones, 0.5)
    other, of_other = cpl.cpl_loss(worth.flip(1), 1 - label, ones, 0.5)
    assert other.item() == pytest.approx(one.item(), rel=1e-14)
    torch.testing.assert_close(of_other, of_one.flip(1))


def test_a_pair_without_weight_is_not_counted_in_the_mean() -> None:
    worth, label = draw(1, 2, 6), labels(1, 6)
    weight = torch.tensor([[1.0, 0, 1, 0, 1, 1]], dtype=torch.float64)
    kept = weight[0] > 0
    ones = torch.ones(1, 4, dtype=torch.float64)
    whole, of_worth = cpl.cpl_loss(worth, label, weight, 0.5)
    alone, _ = cpl.cpl_loss(worth[..., kept], label[:, kept], ones, 0.5)
    assert whole.item() == pytest.approx(alone.item(), rel=1e-14)
    logit = worth[:, :1]
    whole, of_logit = piql.preference_loss(logit, label, weight)
    alone, _ = piql.preference_loss(logit[..., kept], label[:, kept], ones)
    assert whole.item() == pytest.approx(alone.item())
    assert not of_worth[..., ~kept].any() and not of_logit[..., ~kept].any()
    assert learning.weighted_mean(logit[:, 0], 0 * weight).item() == 0


def test_cloning_takes_all_segments_or_the_preferred_ones() -> None:
    log_prob = draw(1, 2, 3, 4)
    label = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    found = log_prob.detach().numpy()[0]
    whole, of_whole = cpl.bc_loss(log_prob, label, only_preferred=False)
    assert whole.item() == pytest.approx(-found.mean())
    preferred = np.concatenate([found[0, [0, 1]].ravel(), found[1, [1, 2]].ravel()])
    some, of_some = cpl.bc_loss(log_prob, label, only_preferred=True)
    assert some.item() == pytest.approx(-preferred.mean())
    check_gradient(whole, of_whole.expand_as(log_prob), log_prob)
    check_gradient(some, of_some.expand_as(log_prob), log_prob)


def test_the_implied_reward_inverts_bellmans_equation() -> None:
    q, value = draw(1, 2, 8), draw(1, 8).detach()
    reward = ipl.implied_reward(q, value, 0.9)
    np.testing.assert_allclose(
        (reward + 0.9 * value[:, None]).detach(), q.detach().numpy(), rtol=1e-14
    )


def test_squared_rewards_of_both_sources_count_alike() -> None:
    reward, rows = draw(1, 2, 8).detach(), torch.zeros(1, 8, 1, dtype=torch.float64)
    squared = reward.numpy() ** 2
    loss, gradient = ipl.regularizer(reward, ipl.shares(8, rows))
    assert loss.item() == pytest.approx(squared.mean())
    np.testing.assert_allclose(gradient, 2 * reward / 16, rtol=1e-12)
    asked = draw(2, 2, 8)
    check_gradient(*ipl.regularizer(asked, ipl.shares(3, rows)), asked)
    half = 0.5 * squared[..., :3].mean() + 0.5 * squared[..., 3:].mean()
    assert ipl.regularizer(reward, ipl.shares(3, rows))[0].item() == pytest.approx(half)


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["gaussian", "deterministic"])
def test_a_clone_goes_down_the_weighted_likelihood(kind: Any, rate: float) -> None:
    dropout = Dropout((0, 1), rate, torch.device("cpu"))
    actor = Actor((0, 1), 5, 3, (8, 8), kind, dropout).double()
    obs, action, weight = draw(2, 6, 5).detach(), draw(2, 6, 3).detach(), draw(2, 6).detach()
    masks = [dropout.at(3, layer, 6, 8).double() for layer in (0, 1)]
    mean = torch.tanh(by_pytorch(Shape(2, (5, 8, 8, 3)), actor.body.numbers, obs, masks))
    if actor.log_std is None:
        log_prob = -torch.square(action - mean).sum(-1)
    else:
        actor.log_std.data[0, 0] = torch.tensor([-6.0, 0.5, 2.0])
        spread = actor.log_std.clamp(-5, 2).exp()
        log_prob = torch.distributions.Normal(mean, spread).log_prob(action).sum(-1)
    wanted = -(weight * log_prob).sum(-1)
    expected = torch.autograd.grad(wanted.sum(), list(actor.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(actor.traced(obs, action, 3)[0], log_prob)
        torch.testing.assert_close(actor.clone(obs, action, weight, 3), wanted)
    for parameter, gradient in zip(actor.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_rewards_can_be_normalised() -> None:
    reward = draw(2, 50).detach()
    scores = iql.normalised(reward, "zscore")
    np.testing.assert_allclose(scores.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(scores.numpy().std(1), 1, rtol=1e-12)
    between = iql.normalised(reward, "minmax")
    assert between.amin(1).tolist() == [0, 0]
    assert between.amax(1).tolist() == [1, 1]
    assert iql.normalised(reward, "none") is reward


def test_accuracy_leaves_ties_and_weightless_pairs_out() -> None:
    logit = torch.tensor([[1.0, -1, 1, 1, -1]])
    label = torch.tensor([[1.0, 1, 0.5, 0, 0.2]])
    weight = torch.tensor([[1.0, 1, 1, 0, 1]])
    assert learning.label_accuracy(logit, label, weight).item() == pytest.approx(2 / 3)


def test_a_cosine_ends_at_nothing() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], 3e-4)
    official = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        rate = official.get_last_lr()[0]
        assert learning.cosine(3e-4, step, 20) == pytest.approx(rate, rel=1e-12, abs=1e-18)
        optimizer.step()
        official.step()
    assert math.isclose(learning.cosine(3e-4, 20, 20), 0, abs_tol=1e-18)
