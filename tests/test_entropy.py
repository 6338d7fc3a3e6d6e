"""How new a state is."""

import copy

import numpy as np
import pytest

from vlp_gym.reward.entropy import StateEntropy


def filled(states: np.ndarray, **settings: int) -> StateEntropy:
    novelty = StateEntropy(**settings)
    for state in states:
        novelty.add(state)
    return novelty


def test_it_is_the_distance_to_the_kth_other_state() -> None:
    states = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    paid = filled(states, neighbours=4)(states)
    gaps = np.linalg.norm(states[:, None].astype(np.float64) - states, axis=-1)
    expected = np.sort(gaps, axis=1)[:, 4]
    np.testing.assert_allclose(paid / paid[0], expected / expected[0], rtol=1e-4)


def test_it_is_scaled_by_the_deviation_of_what_was_met() -> None:
    # Distances as states come in: 0, then 1, 3, 7 to the nearest other.
    states = np.array([[0.0], [1.0], [4.0], [11.0]], np.float32)
    novelty = filled(states, neighbours=1)
    assert novelty(states[3:])[0] == pytest.approx(7 / np.std([0, 1, 3, 7]))


def test_few_states_and_equal_states_are_no_trouble() -> None:
    one = np.zeros((1, 2), np.float32)
    assert filled(one)(one).tolist() == [0.0]
    same = np.ones((9, 2), np.float32)
    assert filled(same)(same).tolist() == [0.0] * 9


def test_only_the_latest_states_are_kept() -> None:
    states = np.arange(10, dtype=np.float32)[:, None]
    novelty = filled(states, neighbours=1, capacity=3)
    assert len(novelty) == 3
    far, near = novelty(np.array([[0.0], [7.5]], np.float32))
    assert far / near == pytest.approx(8 / 0.5)


def test_save_load_continue_equals_uninterrupted() -> None:
    states = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    whole, head = filled(states), filled(states[:25])
    resumed = StateEntropy()
    resumed.load_state_dict(copy.deepcopy(head.state_dict()))
    for state in states[25:]:
        resumed.add(state)
    np.testing.assert_array_equal(resumed(states), whole(states))
