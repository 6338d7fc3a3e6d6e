"""The recorder and the growing arrays below it."""

import copy

import numpy as np
import pytest

from tests.helpers import make_episode
from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.growing import GrowingArray
from vlp_gym.feedback.recorder import Recorder
from vlp_gym.types import Episode


def record(recorder: Recorder, episode: Episode, begin: bool = True) -> None:
    if begin:
        recorder.begin(episode.constants)
    for step in range(len(episode)):
        recorder.add(
            episode.obs[step],
            episode.action[step],
            float(episode.env_reward[step]),
            episode.snapshots[step],
            bool(episode.success[step]),
        )


def assert_equal_episodes(first: Episode, second: Episode) -> None:
    assert first.number == second.number
    for name in ("obs", "action", "env_reward", "snapshots", "success"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_an_episode_comes_back_as_it_was(rng: np.random.Generator) -> None:
    recorder, episodes = Recorder(), [make_episode(rng, number, 70 + number) for number in range(3)]
    for episode in episodes:
        record(recorder, episode)
    for wanted, got in zip(episodes, recorder.episodes(), strict=True):
        assert_equal_episodes(wanted, got)
    assert len(recorder) == 70 + 71 + 72


def test_the_running_episode_counts_as_far_as_it_has_come(rng: np.random.Generator) -> None:
    recorder = Recorder()
    record(recorder, make_episode(rng, steps=5))
    early = recorder.episodes()[-1]
    record(recorder, make_episode(rng, steps=3), begin=False)
    assert len(early) == 5 and len(recorder.episodes()[-1]) == 8
    np.testing.assert_array_equal(early.obs, recorder.episodes()[-1].obs[:5])


def test_later_steps_leave_earlier_episodes_alone(rng: np.random.Generator) -> None:
    recorder, episodes = Recorder(), [make_episode(rng, number) for number in range(2)]
    record(recorder, episodes[0])
    kept = recorder.episodes()[0]
    record(recorder, episodes[1])
    assert_equal_episodes(kept, episodes[0])


def test_only_the_latest_episodes_stay(rng: np.random.Generator) -> None:
    recorder = Recorder(recent_episodes=3)
    for number in range(6):
        record(recorder, make_episode(rng, number))
        recorder.end()
    assert [episode.number for episode in recorder.episodes()] == [3, 4, 5]


def test_a_reset_without_steps_is_no_episode(rng: np.random.Generator) -> None:
    recorder = Recorder()
    recorder.begin({})
    recorder.begin({})
    record(recorder, make_episode(rng))
    recorder.end()
    recorder.end()
    assert [episode.number for episode in recorder.episodes()] == [0]


@pytest.mark.parametrize("broken", ["obs", "action", "env_reward"])
def test_nan_is_refused_and_nothing_is_lost(rng: np.random.Generator, broken: str) -> None:
    recorder = Recorder()
    record(recorder, make_episode(rng, steps=4))
    row = {"obs": np.zeros(4, np.float32), "action": np.zeros(2, np.float32), "env_reward": 0.0}
    row[broken] = row[broken] * np.nan
    with pytest.raises(FeedbackError, match="NaN"):
        recorder.add(**row, snapshot=np.zeros(1), success=False)
    assert len(recorder) == len(recorder.episodes()[-1]) == 4


def test_a_step_of_another_shape_is_refused_as_a_whole(rng: np.random.Generator) -> None:
    recorder = Recorder()
    record(recorder, make_episode(rng, steps=4))
    with pytest.raises(FeedbackError, match="snapshot"):
        recorder.add(np.zeros(4), np.zeros(2), 0.0, np.zeros(7), False)
    record(recorder, make_episode(rng, steps=1), begin=False)
    assert_equal_episodes(recorder.episodes()[-1], recorder.episodes()[-1])
    assert len(recorder.episodes()[-1]) == 5


@pytest.mark.parametrize("ended", [True, False])
def test_save_load_continue_equals_uninterrupted(rng: np.random.Generator, ended: bool) -> None:
    whole, rest = Recorder(recent_episodes=2), make_episode(rng, steps=6)
    for number in range(3):
        record(whole, make_episode(rng, number))
    if ended:
        whole.end()
    resumed = Recorder(recent_episodes=2)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for recorder in (whole, resumed):
        record(recorder, rest, begin=ended)
    assert len(whole) == len(resumed)
    for first, second in zip(whole.episodes(), resumed.episodes(), strict=True):
        assert_equal_episodes(first, second)


def test_a_meta_world_step_costs_at_most_400_bytes() -> None:
    """As Meta-World records it: 24 numbers of state a step; positions of bodies and sites."""
    n_steps, obs, action = 500, np.zeros(39, np.float32), np.zeros(4, np.float32)
    recorder = Recorder()
    for _ in range(4):
        recorder.begin({"body_pos": np.zeros((40, 3)), "site_pos": np.zeros((30, 3))})
        for _ in range(n_steps):
            recorder.add(obs, action, 0.0, np.zeros(24), False)
    recorder.end()
    n_bytes = 0
    for episode in recorder.episodes():
        columns = (episode.env_reward, episode.snapshots, episode.success)
        n_bytes += sum(column.nbytes for column in columns)
        n_bytes += sum(array.nbytes for array in episode.constants.values())
        assert episode.snapshots.base is None  # no larger array stays alive behind it
    assert n_bytes / (4 * n_steps) <= 400


def test_rows_survive_growth() -> None:
    growing = GrowingArray("row", (2,), np.int64, capacity=1)
    for number in range(100):
        growing.append((number, -number))
    assert growing.rows[:, 0].tolist() == list(range(100))
    growing.truncate(3)
    assert len(growing) == 3
