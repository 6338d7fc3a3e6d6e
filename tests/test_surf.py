"""SURF in the fit of a reward: temporal crops, and labels that members give themselves."""

import numpy as np
import pytest
import torch

from tests.preference_pairs import SMALL, preferences_of, rows_of
from vlp_gym.reward.config import FitConfig
from vlp_gym.reward.ensemble import Guesses, RewardEnsemble


@pytest.mark.parametrize("steps_sampled", [None, 3])
def test_crops_are_runs_of_one_length_at_places_of_their_own(steps_sampled: int | None) -> None:
    ensemble = RewardEnsemble(1, 1, SMALL)
    # The first number of a row is its step, plus 100 for a second segment.
    steps = torch.arange(20.0)[None, None, :, None].expand(6, 2, 20, 2).clone()
    steps[:, 1] += 100
    config = FitConfig(crop=8, steps_sampled=steps_sampled)
    picked = torch.arange(6).expand(3, 6)
    lengths = set()
    for _ in range(40):
        rows, kept = ensemble._drawn(steps, picked, config)
        lengths.add(kept)
        assert rows.shape == (3, 6, 2, steps_sampled or kept, 2)
        seen = rows[..., 0]
        assert (seen[:, :, 1] >= 100).all() and (seen[:, :, 0] < 100).all()
        span = seen[..., -1] - seen[..., 0]
        assert (seen.diff(dim=-1) >= 0).all()
        if steps_sampled is None:
            assert (span == kept - 1).all()
            assert len(seen[..., 0].unique()) > 2 or kept == 20
        else:
            assert (span < kept).all()
    assert lengths <= set(range(12, 21)) and len(lengths) > 5


def test_members_label_what_they_are_sure_of_and_nothing_else() -> None:
    ensemble = RewardEnsemble(4, 2, SMALL)
    ensemble.fit(preferences_of(), FitConfig(max_epochs=100, max_updates=100, lr=3e-3))
    pairs = preferences_of(40, seed=1)
    config = FitConfig(pseudo_ratio=4, pseudo_threshold=0.9)
    guesses = Guesses(ensemble._standardized(ensemble._rows(pairs)), config)
    guesses.renew(ensemble.network)
    members = ensemble.per_member(*rows_of(pairs)).reshape(3, 40, 2, 12).sum(-1)
    second = 1 / (1 + np.exp(members[..., 0] - members[..., 1]))
    np.testing.assert_array_equal(guesses.label.numpy(), second > 0.5)
    np.testing.assert_array_equal(guesses.is_sure.numpy(), np.maximum(second, 1 - second) > 0.9)
    assert 0 < guesses.share < 1


def test_pseudo_labels_sharpen_what_labels_began() -> None:
    labels, more = preferences_of(30), preferences_of(300, seed=1)
    spread = []
    for ratio in (0, 4):
        ensemble = RewardEnsemble(4, 2, SMALL)
        once = FitConfig(max_epochs=60, max_updates=60, lr=1e-3, stop_accuracy=1.0)
        ensemble.fit(labels, once)
        how = FitConfig(
            max_epochs=60,
            max_updates=60,
            lr=1e-3,
            stop_accuracy=1.0,
            pseudo_ratio=ratio,
            pseudo_threshold=0.7,
        )
        told = ensemble.fit(labels, how, more)
        assert ("pseudo_labels" in told) == bool(ratio)
        returns = ensemble(*rows_of(more)).reshape(300, 2, 12).sum(-1)
        spread.append(np.abs(returns[:, 1] - returns[:, 0]).mean())
    assert spread[1] > spread[0]


@pytest.mark.parametrize(
    "wrong",
    [{"crop": -1}, {"pseudo_ratio": -1}, {"pseudo_threshold": 0.4}, {"pseudo_weight": -1.0}],
)
def test_options_of_surf_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="FitConfig"):
        FitConfig(**wrong)  # type: ignore[arg-type]
