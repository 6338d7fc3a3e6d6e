"""What runs of several seeds are summed up to: last, mean of the last, the papers' maximum, intervals."""

import numpy as np
import pytest
import torch

from agents.evaluation import Evaluation
from agents.offline_journal import Journal
from agents.statistics import bootstrap_interval, interquartile_mean, summarise


def test_the_papers_number_is_the_best_of_averages_and_stands_beside_honest_ones() -> None:
    curve = np.array([[0.0, 0.2], [1.0, 0.6], [0.8, 0.8], [0.0, 0.4]])
    found = summarise(curve, window=2, n_last=2)
    assert found.last == pytest.approx(0.2)
    assert found.mean_of_last == pytest.approx(0.5)
    assert found.papers == pytest.approx(0.8)
    assert found.papers_std == pytest.approx(0.1)
    assert found.per_seed == pytest.approx((0.4, 0.6))
    assert summarise(curve[:1], window=8, n_last=4).papers == pytest.approx(0.1)


def test_intervals_hold_the_mean_of_the_middle_half() -> None:
    values = np.random.default_rng(0).uniform(size=(5, 6))
    middle = np.sort(values.ravel())[7:-7].mean()
    assert interquartile_mean(values) == pytest.approx(middle, abs=0.02)
    low, high = bootstrap_interval(values)
    assert low < interquartile_mean(values) < high
    assert bootstrap_interval(values, coverage=0.5)[0] > low
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(np.full((2, 3), 0.4)) == pytest.approx((0.4, 0.4))


def test_a_journal_means_over_the_steps_in_which_something_was_measured() -> None:
    journal = Journal()
    journal.note({"a": torch.tensor([1.0, 2.0])})
    journal.note({"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([5.0, 5.0])})
    journal = Journal.of_state(journal.state(), torch.device("cpu"))
    journal.add(0, (0, 1), [Evaluation(0.5, 0.0, 1.0, 2)] * 2)
    assert [(row["a"], row["b"]) for row in journal.rows] == [(2.0, 5.0), (2.0, 5.0)]
