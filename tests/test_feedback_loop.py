"""The feedback loop, with arrays only."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TASK, make_episode
from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.feedback.session import label_accuracy
from vlp_gym.feedback.state_file import load_state, save_state
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.reward.config import EnsembleConfig, FitConfig
from vlp_gym.reward.ensemble import RewardEnsemble
from vlp_gym.types import Labeler, Labels, Pair, Status

CONFIG = FeedbackConfig(
    budget=30,
    queries_per_session=8,
    session_every=40,
    segment_length=5,
    recent_episodes=4,
    ensemble=EnsembleConfig(width=16, depth=2),
    fit=FitConfig(max_epochs=3, batch=8),
)


def make_loop(
    config: FeedbackConfig = CONFIG, labeler: Labeler | None = None, seed: int = 0
) -> FeedbackLoop:
    queries, learner = np.random.SeedSequence(seed).spawn(2)
    ensemble = RewardEnsemble(4, 2, config.ensemble, learner)
    return FeedbackLoop(config, TASK, labeler or OracleLabeler(), ensemble, queries)


def run(loop: FeedbackLoop, first: int, last: int) -> list[float]:
    """Feed the steps of a fixed stream of episodes of 20 steps; return what each was paid."""
    stream = np.random.default_rng(7)
    episodes = [make_episode(stream, number) for number in range(20)]
    paid = []
    for step in range(first, last):
        episode, row = episodes[step // 20], step % 20
        if row == 0:
            loop.begin_episode({})
        obs, action = episode.obs[row], episode.action[row]
        env_reward = float(episode.env_reward[row])
        loop.observe(obs, action, env_reward, episode.snapshots[row], False)
        if loop.session_due:
            loop.session()
        paid.append(loop.reward(obs, action))
    return paid


def without_times(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: without_times(each) for key, each in state.items() if key != "seconds"}
    if isinstance(state, list | tuple):
        return [without_times(each) for each in state]
    return state.tolist() if isinstance(state, np.ndarray) else state


class Answering:
    """A labeler that does what its function says, and counts what it was asked."""

    def __init__(self, answer: Any) -> None:
        self._answer, self.n_asked = answer, 0

    def __call__(self, pairs: list[Pair]) -> Labels:
        self.n_asked += len(pairs)
        return self._answer(pairs)  # type: ignore[no-any-return]


def partly(pairs: list[Pair]) -> Labels:
    """Label the first pair, abstain from the second, fail for the rest."""
    value = np.full(len(pairs), np.nan, np.float32)
    status = np.full(len(pairs), Status.FAILED, np.int8)
    value[0], status[0], status[1] = 1.0, Status.LABELLED, Status.ABSTAINED
    return Labels(value, status)


def test_sessions_take_place_when_due_until_the_budget_is_spent() -> None:
    loop = make_loop()
    run(loop, 0, 240)
    assert [record["step"] for record in loop.history] == [40, 80, 120, 160]
    assert [record["queries"] for record in loop.history] == [8, 8, 8, 6]
    assert (loop.n_queries, loop.budget_left, loop.version) == (30, 0, 4)
    with pytest.raises(FeedbackError, match=r"raise FeedbackConfig\.budget"):
        loop.session()


def test_the_first_session_may_come_later() -> None:
    loop = make_loop(FeedbackConfig.of({**CONFIG.to_dict(), "first_session": 100}))
    run(loop, 0, 150)
    assert [record["step"] for record in loop.history] == [100, 140]


def test_reward_is_0_until_something_was_learned() -> None:
    paid = run(make_loop(), 0, 60)
    assert paid[:39] == [0.0] * 39
    assert all(paid[39:])  # the step of the session is paid by what it taught


def test_fits_use_all_labels_also_of_forgotten_episodes() -> None:
    loop = make_loop()
    run(loop, 0, 200)
    assert len(loop.recorder.episodes()) == 5
    assert len(loop.table.preferences()) == 30
    assert loop.table.column("first_episode").min() < loop.recorder.episodes()[0].number


def test_queries_are_cut_from_recent_episodes() -> None:
    loop = make_loop()
    run(loop, 0, 200)
    last = loop.table.column("session") == 3  # at step 160, in episode 7
    for side in ("first_episode", "second_episode"):
        assert loop.table.column(side)[last].min() >= 3


def test_a_record_says_what_happened() -> None:
    loop = make_loop()
    seen: list[Any] = []
    loop.on_session.append(seen.append)
    run(loop, 0, 81)
    record = seen[1]
    assert loop.history[1] == record.to_dict()
    assert json.loads(json.dumps(loop.history)) == loop.history
    assert (record.session, record.labelled, record.total_labels) == (1, 8, 16)
    assert record.label_accuracy == 1.0 and 0 <= record.fit_accuracy <= 1
    assert record.fit_updates > 0 and record.version == 2
    assert {"query", "label", "fit"} <= set(record.seconds)


def test_the_labelers_own_times_are_in_the_record() -> None:
    class Timed(OracleLabeler):
        seconds = {"draw": 2.0, "score": 1.0}

    loop = make_loop(labeler=Timed())
    run(loop, 0, 41)
    assert loop.history[0]["seconds"]["draw"] == 2.0


def test_labels_of_a_contrary_labeler_have_accuracy_0() -> None:
    def contrary(pairs: list[Pair]) -> Labels:
        return Labels.of(1 - OracleLabeler()(pairs).value)

    loop = make_loop(labeler=Answering(contrary))
    run(loop, 0, 41)
    assert loop.history[0]["label_accuracy"] == 0.0


def test_ties_are_left_out_of_the_accuracy() -> None:
    loop = make_loop()
    run(loop, 0, 20)
    pairs = loop._choose(4)
    truth = OracleLabeler()(pairs).value
    value = truth.copy()
    value[0], value[1] = 0.5, 1 - truth[1]
    assert label_accuracy(pairs, Labels.of(value)) == pytest.approx(2 / 3)
    same = [Pair(pair.first, pair.first, TASK) for pair in pairs]
    assert label_accuracy(same, Labels.of(truth)) is None


def test_what_was_asked_counts_also_without_an_answer() -> None:
    labeler = Answering(partly)
    loop = make_loop(labeler=labeler)
    run(loop, 0, 200)
    assert labeler.n_asked == loop.n_queries == 30
    record = loop.history[0]
    assert (record["labelled"], record["abstained"], record["failed"]) == (1, 1, 6)
    assert loop.table.n_labelled == len(loop.history) == 4


def test_without_a_new_label_nothing_is_fitted() -> None:
    def silent(pairs: list[Pair]) -> Labels:
        return Labels(
            np.full(len(pairs), np.nan, np.float32),
            np.full(len(pairs), Status.ABSTAINED, np.int8),
        )

    loop = make_loop(labeler=Answering(silent))
    assert not any(run(loop, 0, 60))
    assert loop.version == 0 and loop.history[0]["fit_updates"] == 0


def raising(pairs: list[Pair]) -> Labels:
    raise ConnectionError("the judge does not answer")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising, "the judge does not answer"),
        (lambda pairs: Labels.of(np.ones(len(pairs) + 1)), "asked about 8 pairs, it returned 9"),
        (lambda pairs: np.ones(len(pairs)), "returned ndarray"),
        (lambda pairs: Labels.of(np.full(len(pairs), np.nan)), r"must lie in \[0, 1\]"),
    ],
)
def test_a_broken_labeler_is_named_and_nothing_is_lost(answer: Any, reason: str) -> None:
    loop = make_loop()
    run(loop, 0, 79)
    kept, version = loop.table.column("label"), loop.version
    loop.labeler = Answering(answer)
    with pytest.raises(FeedbackError, match=reason):
        run(loop, 79, 80)
    np.testing.assert_array_equal(loop.table.column("label")[:8], kept)
    assert (loop.table.column("status")[8:] == Status.FAILED).all()
    assert (loop.n_queries, loop.version, loop.history[1]["failed"]) == (16, version, 8)
    loop.labeler = OracleLabeler()
    run(loop, 80, 121)  # goes on with the next session
    assert loop.history[2]["labelled"] == 8 and loop.version == version + 1


def test_a_segment_longer_than_every_episode_says_what_to_do() -> None:
    loop = make_loop(FeedbackConfig.of({**CONFIG.to_dict(), "segment_length": 25}))
    with pytest.raises(ValueError, match=r"longest episode so far has 20 .* lower FeedbackConfig"):
        run(loop, 0, 41)
    assert loop.n_queries == 0


def test_disagreement_asks_otherwise_than_uniform_after_the_first_session() -> None:
    loops = [
        make_loop(FeedbackConfig.of({**CONFIG.to_dict(), "query": query}))
        for query in ("uniform", "disagreement")
    ]
    for loop in loops:
        run(loop, 0, 81)
    starts = [loop.table.column("first_start") for loop in loops]
    np.testing.assert_array_equal(starts[0][:8], starts[1][:8])
    assert (starts[0][8:] != starts[1][8:]).any()


def test_one_seed_one_run() -> None:
    paid = [run(make_loop(seed=seed), 0, 130) for seed in (3, 3, 4)]
    assert paid[0] == paid[1] != paid[2]


@pytest.mark.parametrize("stop", [30, 40, 95, 161])
@pytest.mark.parametrize("query", ["uniform", "disagreement"])
def test_stop_save_load_continue_equals_uninterrupted(
    tmp_path: Path, stop: int, query: str
) -> None:
    config = FeedbackConfig.of({**CONFIG.to_dict(), "query": query})
    whole, stopped = make_loop(config), make_loop(config)
    paid = run(whole, 0, 240)
    head = run(stopped, 0, stop)
    save_state(tmp_path / "loop.npz", stopped.state_dict())
    resumed = make_loop(config, seed=99)
    resumed.load_state_dict(load_state(tmp_path / "loop.npz"))
    assert head + run(resumed, stop, 240) == paid
    assert without_times(resumed.state_dict()) == without_times(whole.state_dict())


def test_a_labelers_state_is_part_of_the_loops() -> None:
    class Coin:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def __call__(self, pairs: list[Pair]) -> Labels:
            return Labels.of(self.rng.integers(2, size=len(pairs)))

        def state_dict(self) -> dict[str, Any]:
            return copy.deepcopy(self.rng.bit_generator.state)  # type: ignore[return-value]

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.rng.bit_generator.state = state

    whole, resumed = make_loop(labeler=Coin()), make_loop(labeler=Coin())
    run(whole, 0, 50)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert run(whole, 50, 130) == run(resumed, 50, 130)


def test_importing_the_loop_leaves_torch_alone() -> None:
    code = "import sys, vlp_gym.feedback.loop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
