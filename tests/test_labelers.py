"""The labelers, and what every labeler must keep to."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import TASK, BrightnessScorer, DotScene, make_episode, make_pair
from vlp_gym.errors import FeedbackError
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.labelers.score import ScoreLabeler, frame_steps, frames_of, labels_of
from vlp_gym.types import Labeler, Pair, Segment, Status, Task


@pytest.fixture(params=["oracle", "score", "hard score"])
def labeler(request: pytest.FixtureRequest) -> Labeler:
    if request.param == "oracle":
        return OracleLabeler()
    return ScoreLabeler(BrightnessScorer(), DotScene(), soft=request.param == "score")


def test_is_a_labeler(labeler: Labeler) -> None:
    assert isinstance(labeler, Labeler)


def test_label_is_the_probability_of_the_second(labeler: Labeler) -> None:
    labels = labeler([make_pair(1.0, 3.0), make_pair(3.0, 1.0), make_pair(2.0, 2.0)])
    assert labels.value[0] > 0.5 > labels.value[1]
    assert labels.value[2] == 0.5
    assert labels.labelled.all()


def test_swapping_a_pair_flips_its_label(labeler: Labeler) -> None:
    pair = make_pair(1.0, 3.0)
    labels = labeler([pair, Pair(pair.second, pair.first, pair.task)])
    assert labels.value.sum() == pytest.approx(1.0)


def test_order_of_pairs_does_not_matter(labeler: Labeler) -> None:
    pairs = [make_pair(float(first), 3.0) for first in range(6)]
    np.testing.assert_array_equal(labeler(pairs).value, labeler(pairs[::-1]).value[::-1])


def test_no_pairs_no_labels(labeler: Labeler) -> None:
    assert len(labeler([])) == 0


def test_soft_label_is_the_sigmoid_of_the_difference() -> None:
    labels = labels_of(np.array([1.0]), np.array([2.0]), temperature=0.5)
    assert labels.value[0] == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_huge_differences_do_not_overflow() -> None:
    labels = labels_of(np.array([0.0, 1e30]), np.array([1e30, 0.0]))
    assert labels.value.tolist() == [1.0, 0.0]


def test_tie_band_makes_ties() -> None:
    first, second = np.zeros(3), np.array([0.09, 0.11, -0.09])
    labels = labels_of(first, second, soft=False, tie_band=0.1)
    assert labels.value.tolist() == [0.5, 1.0, 0.5]


def test_scores_stand_beside_the_labels() -> None:
    labels = ScoreLabeler(BrightnessScorer(), DotScene())([make_pair(1.0, 3.0)])
    assert labels.extra["first_score"].tolist() == [1.0]
    assert labels.extra["second_score"].tolist() == [3.0]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_fails_its_pair_alone(broken: float) -> None:
    labels = labels_of(np.array([broken, 0.0]), np.array([0.0, 1.0]))
    assert labels.status.tolist() == [Status.FAILED, Status.LABELLED]
    assert np.isnan(labels.value[0]) and labels.value[1] > 0.5


def test_each_segment_is_drawn_once() -> None:
    scene, scorer = DotScene(), BrightnessScorer()
    episode = make_episode(np.random.default_rng(0))
    segments = [Segment(episode, start, 5) for start in range(4)]
    pairs = [Pair(first, second, TASK) for first in segments for second in segments]
    ScoreLabeler(scorer, scene)(pairs)
    assert scene.n_frames == len(segments) * scorer.n_frames


def test_batches_of_clips_do_not_change_labels() -> None:
    pairs = [make_pair(float(level), 7.0) for level in range(9)]
    one, many = (ScoreLabeler(BrightnessScorer(), DotScene(), batch=size) for size in (1, 100))
    np.testing.assert_array_equal(one(pairs).value, many(pairs).value)


def test_each_pair_is_judged_by_its_own_task() -> None:
    class Contrary(BrightnessScorer):
        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            return super().__call__(clips, task) * (-1 if task.instruction == "darker" else 1)

    brighter = make_pair(1.0, 3.0)
    darker = Pair(brighter.first, brighter.second, Task("darker"))
    labels = ScoreLabeler(Contrary(), DotScene())([brighter, darker])
    assert labels.value[0] > 0.5 > labels.value[1]


def test_scores_of_frames_are_averaged() -> None:
    class PerFrame(BrightnessScorer):
        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            return clips.mean((2, 3, 4), dtype=np.float32)

    pairs = [make_pair(1.0, 3.0), make_pair(5.0, 2.0)]
    per_frame, per_clip = (
        ScoreLabeler(scorer, DotScene())(pairs).value for scorer in (PerFrame(), BrightnessScorer())
    )
    np.testing.assert_allclose(per_frame, per_clip)


def test_a_scorer_of_another_shape_is_refused() -> None:
    class Flat(BrightnessScorer):
        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            return super().__call__(clips, task)[:, 0]

    with pytest.raises(FeedbackError, match=r"\[clips, 1\] or \[clips, frames\]"):
        ScoreLabeler(Flat(), DotScene())([make_pair(1.0, 3.0)])


def test_seconds_are_told_by_part() -> None:
    labeler = ScoreLabeler(BrightnessScorer(), DotScene())
    labeler([make_pair(1.0, 3.0)])
    assert set(labeler.seconds) == {"draw", "score"} and min(labeler.seconds.values()) > 0


def test_frames_span_the_segment() -> None:
    episode = make_episode(np.random.default_rng(0))
    frames = frames_of(Segment(episode, 3, 9), DotScene(), 3)
    assert frames[:, 0, 0, 0].tolist() == episode.snapshots[[3, 7, 11], 0].tolist()


class SinceFirst:
    """Scores a frame by how much brighter it is than the task's first frame, or than that of the clip."""

    name, n_frames, reads_first_frame = "since first", 3, True

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        level = clips[:, :, 0, 0, 0].astype(np.float32)
        first = level[:, :1] if task.first_frame is None else np.float32(task.first_frame[0, 0, 0])
        return level - first


@pytest.mark.parametrize("is_told", [False, True])
def test_the_first_frame_is_that_of_the_episode_wherever_a_segment_is_cut(is_told: bool) -> None:
    episodes = [make_episode(np.random.default_rng(seed), seed) for seed in (0, 1)]
    first, second = (Segment(episode, 3, 9) for episode in episodes)
    told = np.full((2, 2, 3), 7, np.uint8) if is_told else None
    pair = Pair(first, second, Task("brighten", first_frame=told))
    labels = ScoreLabeler(SinceFirst(), DotScene())([pair])
    for name, episode in zip(("first", "second"), episodes, strict=True):
        begin = 7 if is_told else episode.snapshots[0, 0]
        expected = (episode.snapshots[[3, 7, 11], 0] - begin).mean()
        assert labels.extra[f"{name}_score"][0] == pytest.approx(expected)


@pytest.mark.parametrize("n_frames", [2, 3, 8, 60])
def test_first_and_last_step_are_drawn(n_frames: int) -> None:
    steps = frame_steps(50, n_frames)
    assert steps[0] == 0 and steps[-1] == 49 and len(steps) == n_frames
    assert (np.diff(steps) >= 0).all()


def test_oracle_compares_returns_in_full_precision() -> None:
    labels = OracleLabeler()([make_pair(1.0, 1.0 + 1e-6, length=50)])
    assert labels.value[0] == 1.0


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"tie_band": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature > 0 and tie_band >= 0"):
        ScoreLabeler(BrightnessScorer(), DotScene(), **settings)
