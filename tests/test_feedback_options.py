"""Options of the feedback loop: schedules, queries, pre-training, SURF and RUNE, and what is refused."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from tests.test_feedback_loop import CONFIG, make_loop, run
from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.queries import QUERIES
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.types import Labels, Pair


def test_a_config_survives_json() -> None:
    config = FeedbackConfig.of({"budget": 7, "fit": {"lr": 0.5}, "ensemble": {"members": 5}})
    assert FeedbackConfig.of(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("given", [{"bugdet": 1}, {"fit": {"learning_rat": 1}}, {"query": "best"}])
def test_a_wrong_name_in_a_config_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError):
        FeedbackConfig.of(given)


@pytest.mark.parametrize(
    "given",
    [
        {"segment_length": 60, "session_every": 50},
        {"queries_per_session": 0},
        {"budget": -1},
        {"temperature": 0.0},
        {"pairs_per_segment": 0},
        {"pairs_per_segment": 2, "query": "disagreement"},
    ],
)
def test_a_schedule_that_cannot_run_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        FeedbackConfig.of(given)


def settings(**changes: Any) -> FeedbackConfig:
    return FeedbackConfig.of({**CONFIG.to_dict(), **changes})


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_what_is_due(query: str) -> None:
    loop = make_loop(settings(query=query))
    run(loop, 0, 130)
    assert [record["queries"] for record in loop.history] == [8, 8, 8]


def test_segments_that_are_in_two_pairs_make_as_many_queries_of_half_as_many() -> None:
    of_session: list[set[tuple[int, int]]] = []

    def judge(pairs: list[Pair]) -> Labels:
        segments = [segment for pair in pairs for segment in (pair.first, pair.second)]
        of_session.append({(each.episode.number, each.start) for each in segments})
        return OracleLabeler()(pairs)

    loop = make_loop(settings(pairs_per_segment=2, recent_episodes=10), judge)
    run(loop, 0, 170)
    assert [record["queries"] for record in loop.history] == [8, 8, 8, 6]
    # The same cut may be drawn twice: at most 8 segments of 8 queries, 6 of 6.
    assert all(len(each) <= most for each, most in zip(of_session, (8, 8, 8, 6), strict=True))
    assert max(map(len, of_session)) > 6


@pytest.mark.parametrize(
    ("schedule", "asked"), [("decreasing", [13, 10, 7]), ("increasing", [19, 11])]
)
def test_schedules_stretch_over_the_run_and_never_pass_the_budget(
    schedule: str, asked: list[int]
) -> None:
    loop = make_loop(
        settings(schedule=schedule, total_steps=240, queries_per_session=16, budget=30)
    )
    run(loop, 0, 240)
    assert [record["queries"] for record in loop.history][: len(asked)] == asked
    assert loop.n_queries <= 30


def test_a_budget_of_0_is_said_and_pays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    loop = make_loop(settings(budget=0))
    assert not any(run(loop, 0, 100))
    assert loop.n_queries == 0 and "the budget is 0" in caplog.text


def test_before_the_first_fit_pre_training_pays_how_new_a_state_is() -> None:
    loop = make_loop(settings(unsupervised=True))
    paid = run(loop, 0, 39)
    assert all(value > 0 for value in paid[6:]) and loop.is_pretraining
    states = np.stack([obs for episode in loop.recorder.episodes() for obs in episode.obs])
    gaps = np.sort(np.linalg.norm(states[:, None] - states, axis=-1), axis=1)[:, 5]
    again = loop.rewards(states, np.zeros((39, 2), np.float32))
    np.testing.assert_allclose(again / again[0], gaps / gaps[0], rtol=1e-4)
    run(loop, 39, 41)
    assert not loop.is_pretraining
    actions = np.zeros((39, 2), np.float32)
    np.testing.assert_array_equal(loop.rewards(states, actions), loop.ensemble(states, actions))


def test_rune_adds_what_members_disagree_about_and_lets_it_fade() -> None:
    loop = make_loop(settings(explore_bonus=0.5, explore_decay=0.01))
    run(loop, 0, 41)
    episode = loop.recorder.episodes()[0]
    paid = loop.ensemble(episode.obs, episode.action)
    expected = paid + 0.5 * 0.99**41 * loop.ensemble.deviation(episode.obs, episode.action)
    np.testing.assert_allclose(loop.rewards(episode.obs, episode.action), expected, rtol=1e-5)


def test_surf_labels_what_members_are_sure_of() -> None:
    fit = {"pseudo_ratio": 2, "pseudo_threshold": 0.5, "crop": 2, "max_epochs": 2}
    loop = make_loop(settings(fit=fit))
    seen: list[dict[str, float]] = []
    fit_once = loop.ensemble.fit

    def fit_and_tell(*arguments: Any) -> dict[str, float]:
        assert len(arguments[2]) == 80 and len(arguments[0]) == 8
        seen.append(fit_once(*arguments))
        return seen[-1]

    loop.ensemble.fit = fit_and_tell  # type: ignore[method-assign]
    run(loop, 0, 41)
    assert seen[0]["pseudo_labels"] == 1.0  # at one half, every member is sure of everything


@pytest.mark.parametrize(
    "changes",
    [
        {"unsupervised": True},
        {"explore_bonus": 0.05},
        {"query": "entropy+k-center"},
        {"fit": {"pseudo_ratio": 2, "crop": 2, "pseudo_threshold": 0.6}},
        {"schedule": "increasing", "total_steps": 240},
    ],
)
def test_with_every_option_resume_equals_uninterrupted(changes: dict[str, Any]) -> None:
    config = settings(**changes)
    for stop in (33, 95):
        whole, stopped, resumed = make_loop(config), make_loop(config), make_loop(config, seed=9)
        paid = run(whole, 0, 130)
        head = run(stopped, 0, stop)
        resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
        assert head + run(resumed, stop, 130) == paid


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "increasing"},
        {"explore_bonus": -1.0},
        {"explore_decay": 1.0},
        {"neighbours": 0},
    ],
)
def test_options_that_cannot_run_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="FeedbackConfig"):
        settings(**changes)
