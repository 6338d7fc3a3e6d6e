"""VLP's three losses against their closed forms."""

import math

import pytest
import torch

from vlp_gym.training.losses import ilp_loss, itp_loss, ivp_loss, match_loss


def test_a_constant_score_has_the_losses_of_a_coin() -> None:
    score = torch.zeros(2, 3)
    ones = torch.triu(torch.ones(3, 3), diagonal=1).expand(2, 3, 3)
    assert itp_loss(score, torch.ones(2, 3, 3), ones).item() == pytest.approx(math.log(2))
    assert ilp_loss(score).item() == pytest.approx(math.log(2))
    assert ivp_loss(score, score).item() == pytest.approx(math.log(2))


def test_itp_is_the_cross_entropy_of_bradley_terry() -> None:
    score = torch.tensor([[0.3, 1.5]])
    label = torch.tensor([[[0.5, 0.8], [0.5, 0.5]]])
    weight = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    p = 1 / (1 + math.exp(-1.2))
    expected = -(0.8 * math.log(p) + 0.2 * math.log(1 - p))
    assert itp_loss(score, label, weight).item() == pytest.approx(expected, rel=1e-6)


def test_itp_does_not_change_when_a_pair_is_swapped_with_its_label() -> None:
    score, label = torch.randn(4, 2), torch.rand(4, 2, 2)
    weight = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).expand(4, 2, 2)
    swapped = torch.zeros(4, 2, 2)
    swapped[:, 0, 1] = 1 - label[:, 0, 1]
    torch.testing.assert_close(
        itp_loss(score, label, weight), itp_loss(score.flip(1), swapped, weight)
    )


def test_itp_ignores_pairs_of_weight_zero() -> None:
    score, label = torch.randn(2, 3), torch.rand(2, 3, 3)
    weight = torch.zeros(2, 3, 3)
    weight[0, 0, 2] = 1.0
    changed = label.clone()
    changed[1] = 1 - changed[1]
    assert itp_loss(score, label, weight) == itp_loss(score, changed, weight)


def test_ilp_is_log_two_plus_log_cosh_of_half_the_difference() -> None:
    score = torch.tensor([[0.0, 0.31]])
    expected = math.log(2) + math.log(math.cosh(0.155))
    assert ilp_loss(score).item() == pytest.approx(expected, rel=1e-6)
    # algorithms.md 2: a loss of 0.705 is a typical difference of 0.31.
    assert ilp_loss(score).item() == pytest.approx(0.705, abs=5e-4)


def test_ilp_of_huge_scores_is_finite() -> None:
    assert ilp_loss(torch.tensor([[0.0, 1e4]])).item() == pytest.approx(5e3, rel=1e-4)


def test_ivp_falls_when_the_tasks_own_clips_rise() -> None:
    own, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.5]])
    assert ivp_loss(own + 1, other) < ivp_loss(own, other)
    expected = sum(math.log1p(math.exp(o - s)) for s in (1.0, 2.0) for o in (0.0, 0.5)) / 4
    assert ivp_loss(own, other).item() == pytest.approx(expected, rel=1e-6)


def test_own_and_foreign_clips_weigh_the_same_in_the_match() -> None:
    logit = torch.tensor([[2.0, -1.0, 0.5, 0.0]])
    own = torch.tensor([[True, False, False, False]])
    foreign = sum(math.log1p(math.exp(x)) for x in (-1.0, 0.5, 0.0)) / 3
    expected = (math.log1p(math.exp(-2.0)) + foreign) / 2
    assert match_loss(logit, own).item() == pytest.approx(expected, rel=1e-6)
