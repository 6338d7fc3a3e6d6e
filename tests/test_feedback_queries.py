"""Which pairs are asked about."""

import numpy as np
import pytest

from tests.helpers import TASK, make_episode
from vlp_gym.feedback.queries import disagreement_queries, uniform_queries
from vlp_gym.types import Pair


def place(pair: Pair) -> list[tuple[int, int]]:
    return [(each.episode.number, each.start) for each in (pair.first, pair.second)]


def test_every_cut_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, number, steps) for number, steps in enumerate((5, 3, 2, 8))]
    pairs = uniform_queries(episodes, 30_000, 4, TASK, rng)
    drawn = [cut for pair in pairs for cut in place(pair)]
    cuts, counts = np.unique(drawn, axis=0, return_counts=True)
    # Episodes of 5 and 8 steps hold 2 and 5 cuts of 4; those of 3 and 2 hold none.
    assert cuts.tolist() == [[0, 0], [0, 1], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]]
    np.testing.assert_allclose(counts / len(drawn), 1 / 7, rtol=0.05)


def test_a_pair_has_two_different_segments() -> None:
    rng = np.random.default_rng(0)
    for pair in uniform_queries([make_episode(rng, steps=5)], 100, 4, TASK, rng):
        first, second = place(pair)
        assert first != second


def test_one_seed_one_set_of_queries() -> None:
    episodes = [make_episode(np.random.default_rng(0))]
    asked = [
        [place(pair) for pair in uniform_queries(episodes, 9, 4, TASK, np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    ]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize("steps", [[], [3], [4]])
def test_too_short_episodes_say_what_to_lower(steps: list[int]) -> None:
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, steps=each) for each in steps]
    with pytest.raises(ValueError, match="lower FeedbackConfig.segment_length"):
        uniform_queries(episodes, 2, 4, TASK, rng)


def test_disagreement_picks_what_members_contradict_each_other_about() -> None:
    rng = np.random.default_rng(0)
    candidates = uniform_queries([make_episode(rng, steps=200)], 40, 4, TASK, rng)

    def per_member(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.stack([obs[:, 0], -obs[:, 0], obs[:, 0]])

    gap = np.array(
        [abs(pair.second.obs[:, 0].sum() - pair.first.obs[:, 0].sum()) for pair in candidates]
    )
    chosen = disagreement_queries(candidates, 10, per_member)
    wanted = sorted(np.argsort(-gap)[:10])
    assert [place(pair) for pair in chosen] == [place(candidates[index]) for index in wanted]


def test_members_of_one_mind_leave_the_first_candidates() -> None:
    rng = np.random.default_rng(0)
    candidates = uniform_queries([make_episode(rng, steps=50)], 20, 4, TASK, rng)
    chosen = disagreement_queries(candidates, 5, lambda obs, action: np.ones((3, len(obs))))
    assert chosen == candidates[:5]
