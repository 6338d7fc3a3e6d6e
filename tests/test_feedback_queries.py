"""Which pairs are asked about."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers import TASK, make_episode
from vlp_gym.feedback.queries import (
    choose_queries,
    disagreement,
    entropy,
    k_center,
    uniform_queries,
)
from vlp_gym.types import Pair, Task


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


@pytest.mark.parametrize(("n_pairs", "times"), [(40, 2), (40, 4), (41, 2)])
def test_a_segment_is_in_several_pairs(n_pairs: int, times: int) -> None:
    rng = np.random.default_rng(0)
    pairs = uniform_queries([make_episode(rng, steps=5_000)], n_pairs, 4, TASK, rng, times)
    assert len(pairs) == n_pairs
    assert all(first != second for first, second in map(place, pairs))
    assert len({tuple(place(pair)) for pair in pairs}) == n_pairs, "no pair is asked about twice"
    counts = Counter(cut for pair in pairs for cut in place(pair))
    # What goes beyond a multiple is cut off: its segments are in fewer pairs.
    assert max(counts.values()) == times
    assert len(counts) == 2 * -(-n_pairs // times)
    if n_pairs % times == 0:
        assert set(counts.values()) == {times}


def test_segments_of_few_cuts_and_many_tasks_still_make_pairs_of_two() -> None:
    rng = np.random.default_rng(0)
    tasks = [TASK, Task("close the door")]
    episodes = [replace(make_episode(rng, env, steps=5), env=env) for env in (0, 1)]
    for pair in uniform_queries(episodes, 30, 4, tasks, rng, pairs_per_segment=10):
        first, second = place(pair)
        assert first != second and first[0] == second[0]
        assert pair.task is tasks[first[0]]


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
    chosen = choose_queries("disagreement", candidates, 10, per_member)
    wanted = sorted(np.argsort(-gap)[:10])
    assert [place(pair) for pair in chosen] == [place(candidates[index]) for index in wanted]


def test_members_of_one_mind_leave_the_first_candidates() -> None:
    rng = np.random.default_rng(0)
    candidates = uniform_queries([make_episode(rng, steps=50)], 20, 4, TASK, rng)
    chosen = choose_queries(
        "disagreement", candidates, 5, lambda obs, action: np.ones((3, len(obs)))
    )
    assert chosen == candidates[:5]


def certain(pairs: list[Pair], sure: np.ndarray) -> object:
    """Return members that are as sure of each pair as `sure` says, one step of 4 at a time."""
    reward = np.stack([np.zeros(len(pairs)), sure], 1).repeat(4, 1).ravel() / 4
    return lambda obs, action: np.stack([reward, reward])


def test_entropy_picks_what_every_member_is_unsure_of() -> None:
    rng = np.random.default_rng(0)
    candidates = uniform_queries([make_episode(rng, steps=200)], 40, 4, TASK, rng)
    sure = rng.normal(0, 5, 40)
    chosen = choose_queries("entropy", candidates, 10, certain(candidates, sure))  # type: ignore[arg-type]
    wanted = sorted(np.argsort(np.abs(sure))[:10])
    assert [place(pair) for pair in chosen] == [place(candidates[index]) for index in wanted]


def test_the_measures_are_those_of_the_papers() -> None:
    logit = np.random.default_rng(0).normal(0, 3, (3, 50))
    second = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(disagreement(logit), second.std(0))
    expected = -(second * np.log(second) + (1 - second) * np.log(1 - second)).mean(0)
    np.testing.assert_allclose(entropy(logit), expected)


def test_k_center_is_greedy_and_keeps_away_from_what_is_taken() -> None:
    rng = np.random.default_rng(0)
    points, taken = rng.normal(size=(30, 3)), rng.normal(size=(4, 3))
    chosen: list[int] = []
    for _ in range(6):  # by definition, one by one
        centers = np.concatenate([taken, points[chosen]])
        gaps = np.linalg.norm(points[:, None] - centers, axis=-1).min(1)
        gaps[chosen] = -1
        chosen.append(int(gaps.argmax()))
    assert k_center(points, taken, 6) == chosen


def test_k_center_takes_equal_points_only_when_nothing_else_is_left() -> None:
    points = np.array([[0.0], [0.0], [3.0]])
    assert k_center(points, points[:1], 3) == [2, 0, 1]
    assert k_center(points, points[:0], 1) == [0]


@pytest.mark.parametrize("worth", ["disagreement", "entropy"])
def test_mixed_forms_spread_out_over_the_better_half(worth: str) -> None:
    rng = np.random.default_rng(1)
    candidates = uniform_queries([make_episode(rng, steps=300)], 40, 4, TASK, rng)
    weight = rng.normal(size=(3, 4))

    def per_member(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return weight @ obs.T

    half = choose_queries(worth, candidates, 20, per_member)
    asked = np.stack([[pair.first.obs, pair.second.obs] for pair in candidates[:3]])
    mixed = choose_queries(f"{worth}+k-center", candidates, 5, per_member, asked)
    alone = choose_queries("k-center", half, 5, per_member, asked)
    assert mixed == alone and len(mixed) == 5
    assert mixed != choose_queries(worth, candidates, 5, per_member)


def test_pairs_are_of_one_task() -> None:
    rng = np.random.default_rng(0)
    tasks = [TASK, Task("close the door"), TASK, Task("alone")]
    episodes = [
        replace(make_episode(rng, number, steps), env=env)
        for number, (env, steps) in enumerate([(0, 9), (1, 6), (2, 5), (0, 3), (3, 4)])
    ]
    pairs = uniform_queries(episodes, 20_000, 4, tasks, rng)
    seen = set()
    for pair in pairs:
        envs = {pair.first.episode.env, pair.second.episode.env}
        assert {id(tasks[env]) for env in envs} == {id(pair.task)}
        assert place(pair)[0] != place(pair)[1]
        seen |= {each for each in map(tuple, place(pair))}
    # Env 3 has one cut only, and nobody to be compared with: 6 + 3 + 2 cuts are left.
    assert len(seen) == 11 and not any(number in (3, 4) for number, _ in seen)
    of_doors = np.mean([pair.task is tasks[1] for pair in pairs])
    assert of_doors == pytest.approx(3 / 11, abs=0.01)
