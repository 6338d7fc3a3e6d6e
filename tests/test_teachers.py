"""B-Pref's simulated teachers against closed forms."""

import copy
from typing import Any

import numpy as np
import pytest

from tests.helpers import TASK, make_episode, make_pair
from vlp_gym.errors import FeedbackError, UnknownNameError
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.teacher import TEACHERS, Teacher, TeacherConfig
from vlp_gym.types import Episode, Labeler, Pair, Segment, Status, Task


def make_segment(rewards: list[float], number: int = 0) -> Segment:
    length = len(rewards)
    ones = np.zeros((length, 1), np.float32)
    reward = np.array(rewards, np.float32)
    episode = Episode(number, ones, ones, reward, np.zeros((length, 1)), {}, np.zeros(length, bool))
    return Segment(episode, 0, length)


def pair_of(first: list[float], second: list[float], number: int = 0, task: Task = TASK) -> Pair:
    return Pair(make_segment(first, number), make_segment(second, number + 1), task)


@pytest.mark.parametrize("name", TEACHERS)
def test_is_a_labeler(name: str) -> None:
    teacher = Teacher.of(name)
    assert isinstance(teacher, Labeler) and teacher.name == name
    assert len(teacher([])) == 0
    assert len(teacher([make_pair(1.0, 2.0)])) == 1


def test_an_unknown_teacher_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="myopic"):
        Teacher.of("myopia")


def test_without_faults_it_is_the_oracle() -> None:
    rng = np.random.default_rng(0)
    episode = make_episode(rng, steps=60)
    cuts = [Segment(episode, int(start), 5) for start in rng.integers(55, size=40)]
    pairs = [Pair(a, b, TASK) for a, b in zip(cuts[:20], cuts[20:], strict=True)]
    pairs.append(Pair(cuts[0], cuts[0], TASK))
    teacher = Teacher(TeacherConfig())
    np.testing.assert_array_equal(teacher(pairs).value, OracleLabeler()(pairs).value)


def test_mistakes_are_as_frequent_as_asked_for() -> None:
    labels = Teacher(TeacherConfig(mistake=0.1))([make_pair(0.0, 1.0)] * 20_000)
    assert labels.value.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("rationality", [0.0, 0.25, 2.0])
def test_noisy_labels_follow_bradley_terry(rationality: float) -> None:
    pairs = [make_pair(0.0, 0.25, length=4)] * 20_000  # returns differ by 1
    labels = Teacher(TeacherConfig(rationality=rationality))(pairs)
    assert set(np.unique(labels.value)) <= {0.0, 1.0}
    expected = 1 / (1 + np.exp(-rationality))
    assert labels.value.mean() == pytest.approx(expected, abs=0.012)


def test_a_myopic_teacher_weighs_the_end() -> None:
    # 0.5 ** 2 * 5 = 1.25 against 0.5 * 1 + 1 = 1.5, though 5 > 2.
    pair = pair_of([5.0, 0.0, 0.0], [0.0, 1.0, 1.0])
    assert OracleLabeler()([pair]).value[0] == 0.0
    assert Teacher(TeacherConfig(myopia=0.5))([pair]).value[0] == 1.0
    assert Teacher(TeacherConfig(myopia=0.6))([pair]).value[0] == 0.0  # 1.8 against 1.6


def test_pairs_of_two_poor_segments_are_skipped() -> None:
    # The usual return of 2 steps is 2 * (0 + 1 + 9 + 10) / 8 = 5: a fifth of it is 1.
    pairs = [pair_of([0, 0], [0.5, 0.5]), pair_of([4.5, 4.5], [5, 5], 2)]
    labels = Teacher(TeacherConfig(skip=0.2))(pairs)
    assert labels.status.tolist() == [Status.ABSTAINED, Status.LABELLED]
    # One that reaches more than the threshold is enough.
    assert Teacher(TeacherConfig(skip=0.19))(pairs).labelled.all()


def test_nearly_equal_segments_are_a_tie_also_after_a_mistake() -> None:
    pairs = [pair_of([4, 4], [5, 5]), pair_of([4, 4], [6, 6], 2)]
    # The usual return of 2 steps is 2 * 19 / 4 = 9.5; differences are 2 and 4.
    labels = Teacher(TeacherConfig(equal=0.3, mistake=1.0))(pairs)
    assert labels.value.tolist() == [0.5, 0.0]


def test_thresholds_are_the_same_at_every_call() -> None:
    pairs = [pair_of([4, 4], [5, 5]), pair_of([4, 4], [6, 6], 2)]
    teacher = Teacher(TeacherConfig(equal=0.3))
    answers = [teacher(pairs).value.tolist() for _ in range(3)]
    assert answers == [[0.5, 1.0]] * 3


def test_only_the_ten_latest_episodes_say_what_is_usual() -> None:
    old = [pair_of([100, 100], [100, 100], number) for number in range(0, 10, 2)]
    recent = [pair_of([1, 1], [1.4, 1.4], number) for number in range(10, 20, 2)]
    labels = Teacher(TeacherConfig(equal=0.3))(old + recent)
    assert labels.value[5:].tolist() == [1.0] * 5  # 0.8 apart; a share of the old ones would be 30


def test_tasks_have_thresholds_of_their_own() -> None:
    rich, poor = Task("rich"), Task("poor")
    pairs = [pair_of([90, 90], [100, 100], 0, rich), pair_of([0.9, 0.9], [2, 2], 2, poor)]
    labels = Teacher(TeacherConfig(equal=0.3))(pairs)
    assert labels.value.tolist() == [0.5, 1.0]


def test_negative_rewards_cannot_be_skipped_by_share() -> None:
    with pytest.raises(FeedbackError, match="not negative"):
        Teacher.of("skip")([make_pair(-1.0, -2.0)])


def test_one_seed_one_set_of_answers_and_state_goes_on() -> None:
    pairs = [make_pair(0.0, 0.1)] * 50
    teachers = [Teacher.of("noisy", seed) for seed in (1, 1, 2)]
    answers = [teacher(pairs).value.tolist() for teacher in teachers]
    assert answers[0] == answers[1] != answers[2]
    state = teachers[0].state_dict()
    resumed = Teacher.of("noisy", 9)
    resumed.load_state_dict(copy.deepcopy(state))
    np.testing.assert_array_equal(resumed(pairs).value, teachers[0](pairs).value)


@pytest.mark.parametrize(
    "faults",
    [
        {"rationality": -1.0},
        {"myopia": 0.0},
        {"mistake": 1.5},
        {"skip": -0.1},
        {"equal": -0.1},
    ],
)
def test_impossible_faults_are_refused(faults: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="TeacherConfig"):
        TeacherConfig(**faults)
