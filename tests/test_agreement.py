"""What is said of a labeler: shares, constant answers, calibration, the paper's pairs."""

import numpy as np
import pytest

from vlp_gym.data.trajectories import Trajectories
from vlp_gym.training.agreement import (
    agreement,
    calibration,
    label_quality,
    pairs_across,
    random_pairs,
)
from vlp_gym.training.clips import clips_of
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.paper_protocol import paper_pairs, two_sets


def test_agreement_of_a_score_with_itself_is_one_and_with_its_opposite_zero() -> None:
    truth = np.random.default_rng(0).normal(size=20)
    pairs = random_pairs(np.arange(20), 200, np.random.default_rng(1))
    assert agreement(truth, truth, pairs).all_pairs == 1.0
    assert agreement(-truth, truth, pairs).all_pairs == 0.0
    assert agreement(np.zeros(20), truth, pairs).all_pairs == 0.5
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_agreement_leaves_ties_out() -> None:
    pairs = np.array([[0, 1], [1, 2]])
    result = agreement(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), pairs)
    assert result.n_pairs == 1 and result.all_pairs == 1.0
    with pytest.raises(ValueError, match="tie"):
        agreement(np.zeros(3), np.ones(3), pairs)


def test_the_papers_window_open_is_one_point_above_the_constant_answer() -> None:
    # algorithms.md 6.1: 97 pairs of one kind right, one of the other right, two wrong: 98 %, phi 0.571.
    truth = np.array([0.0, 1.0])
    up, down = [0, 1], [1, 0]
    scores = np.array([0.0, 1.0, 1.0, 0.0])
    pairs = np.array([up] * 97 + [down] + [[2, 3]] * 2)
    truths = np.array([*truth, 0.0, 1.0])
    quality = label_quality(scores, truths, pairs)
    assert quality.accuracy == pytest.approx(0.98)
    assert quality.constant == pytest.approx(0.99)
    assert quality.phi == pytest.approx(0.571, abs=1e-3)
    assert quality.balanced == pytest.approx((97 / 99 + 1) / 2)


def test_a_constant_answer_is_balanced_at_one_half() -> None:
    truth = np.array([*np.arange(5.0), *np.arange(5.0, 10.0), *np.arange(5.0)])
    low, high, as_low = np.arange(5), np.arange(5, 10), np.arange(10, 15)
    rng = np.random.default_rng(0)
    rising, falling = pairs_across(low, high, 90, rng), pairs_across(high, as_low, 10, rng)
    pairs = np.concatenate([rising, falling])
    always_second = label_quality(np.repeat([0.0, 1.0, 2.0], 5), truth, pairs)
    assert always_second.accuracy == pytest.approx(0.9) == always_second.constant
    assert always_second.balanced == 0.5 and always_second.phi == 0.0


def test_where_one_answer_is_always_right_nothing_is_balanced() -> None:
    rising = np.array([[0, 1], [1, 2]])
    quality = label_quality(np.arange(3.0), np.arange(3.0), rising)
    assert quality.accuracy == quality.constant == 1.0
    assert quality.balanced is None and quality.phi == 0.0


def test_a_score_that_says_nothing_is_half_right_whatever_stands_first() -> None:
    truth, pairs = np.arange(10.0), np.array([[0, 1], [2, 3], [4, 5], [7, 6]])
    quality = label_quality(np.zeros(10), truth, pairs)
    assert quality.accuracy == quality.balanced == 0.5 and quality.phi == 0.0


def test_scores_that_are_log_odds_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=4000)
    pairs = random_pairs(np.arange(4000), 20_000, rng)
    # One truth a pair, drawn with the very probability that the scores say.
    said = 1 / (1 + np.exp(score[pairs[:, 0]] - score[pairs[:, 1]]))
    better = rng.random(len(pairs)) < said
    flat = np.concatenate([score[pairs[:, 0]], score[pairs[:, 1]]])
    truth = np.concatenate([~better, better]).astype(float)
    index = np.arange(len(pairs))
    own = np.stack([index, index + len(pairs)], axis=1)
    assert calibration(flat[None], truth, own).error < 0.02
    sure = calibration(10 * flat[None], truth, own)
    assert sure.error > 0.1 and sure.count.sum() == 2 * len(pairs)


def test_calibration_does_not_depend_on_which_clip_comes_first() -> None:
    rng = np.random.default_rng(0)
    score, truth = rng.normal(size=(2, 30)), rng.normal(size=30)
    pairs = random_pairs(np.arange(30), 100, rng)
    one, two = calibration(score, truth, pairs), calibration(score, truth, pairs[:, ::-1])
    np.testing.assert_allclose(one.predicted, two.predicted)
    assert one.error == pytest.approx(two.error)


def levels(n_each: int = 6, n_steps: int = 60) -> Trajectories:
    """Trajectories whose experts walk elsewhere than all others, and a behaviour that is no level."""
    names = (
        ("expert",) * n_each + ("medium",) * n_each + ("random",) * n_each + ("wander",) * n_each
    )
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(len(names), n_steps, 39)).astype(np.float32)
    obs[:n_each] += 10
    shape = (len(names), n_steps)
    return Trajectories(
        "Push", names, np.arange(len(names)), obs, np.zeros((*shape, 4), np.float32),
        rng.random(shape).astype(np.float32), np.zeros(shape, bool), np.zeros((*shape, 1)), {},
    )  # fmt: skip


def test_the_papers_pairs_are_of_one_set_against_the_other() -> None:
    data = levels()
    sets = two_sets(data, seed=0)
    assert len(set(sets[:6])) == 1 and set(sets[6:18]) == {1 - sets[0]}
    assert set(sets[18:]) == {-1}
    clips = clips_of(data, FrameGrid(stride=8), n_frames=3)
    pairs = paper_pairs(data, clips, 100, seed=0)
    assert pairs.shape == (100, 2) and not clips.whole[pairs].any()
    assert (sets[clips.episode[pairs]] == [0, 1]).all()
    np.testing.assert_array_equal(pairs, paper_pairs(data, clips, 100, seed=0))
    assert (pairs != paper_pairs(data, clips, 100, seed=1)).any()
