"""What the benchmark of moved cameras draws and compares."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import cameras
from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    tiny_data,
    tiny_split,
)
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.labelers.score import frames_of
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.scorers.vlp import VLPScorer
from vlp_gym.training.behaviours import EXPLORING
from vlp_gym.types import Segment

CONFIG = cameras.Config(n_segments=6, n_pairs=40, device="cpu")


@pytest.fixture(scope="module", name="scorer")
def bundled() -> VLPScorer:
    return VLPScorer.load(device="cpu")


@pytest.fixture(name="segments")
def six(data: Path) -> cameras.Segments:
    return cameras.Segments.cut(Trajectories.load(data / "DrawerClose.npz"), CONFIG)


def test_a_camera_that_stays_draws_what_a_labeler_sees(
    segments: cameras.Segments, scorer: VLPScorer
) -> None:
    drawn = segments.drawn(scorer, cameras.STAYS, CONFIG.segment_length)
    scene = metaworld_scene(make_sawyer("DrawerClose"), scorer.camera, scorer.image_size_px)
    for clip, row, start in zip(drawn, segments.row.tolist(), segments.start.tolist(), strict=True):
        segment = Segment(segments.data.episode(row), start, CONFIG.segment_length)
        np.testing.assert_array_equal(clip, frames_of(segment, scene, scorer.n_frames))
        assert segments.data.behaviour[row] in EXPLORING
    scene.close()


@pytest.mark.parametrize("look", cameras.LOOKS)
def test_every_look_is_another(look: str, segments: cameras.Segments, scorer: VLPScorer) -> None:
    drawn = [
        segments.drawn(scorer, jolt, CONFIG.segment_length)[0].tobytes()
        for jolt in (cameras.STAYS, *cameras.LOOKS[look])
    ]
    assert len(set(drawn)) == len(drawn)


def test_all_labels_stay_where_the_camera_does(
    data: Path, scorer: VLPScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = cameras.Jolt(np.array([0.0, 0.0, 1.0]), np.zeros(3), 1.0, np.ones(3))
    monkeypatch.setattr(cameras, "LOOKS", {"none": (cameras.STAYS,), "far": (cameras.STAYS, far)})
    config = cameras.Config(**{**vars(CONFIG), "data": data})
    none, moved = cameras.records_of("DrawerClose", scorer, config)
    assert none.metrics["labels as before"] == none.metrics["in the worst direction"] == 1
    assert none.metrics["rank correlation"] == pytest.approx(1)
    assert none.metrics["agrees with return"] == none.metrics["before"] == moved.metrics["before"]
    assert moved.metrics["in the worst direction"] < moved.metrics["labels as before"] < 1
    mean = cameras.mean_of([none, moved])
    assert mean.task == "mean" and mean.metrics["before"] == none.metrics["before"]
