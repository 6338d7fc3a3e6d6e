"""Chance changes of the camera and of colours between training episodes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    GRID,
    SENTENCES,
    TRAIN,
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from tests.tiny_vlp import SIZE_PX
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.models.vlp import VLP
from vlp_gym.scenes.metaworld import make_sawyer
from vlp_gym.scenes.renderer import camera_id
from vlp_gym.training.batches import TaskPool, match_batch, preference_batch
from vlp_gym.training.config import TrainConfig
from vlp_gym.training.frames import cached_frames
from vlp_gym.training.jitter import Jitter
from vlp_gym.training.objective import Objective
from vlp_gym.training.trainer import load_pool, train
from vlp_gym.types import View

VIEW = View("corner4", SIZE_PX)


def test_an_episode_has_one_look_and_others_have_others() -> None:
    jolts = [Jitter().of_episode(seed) for seed in (3, 3, 4)]
    again, other = [np.abs(jolts[0].move - jolt.move).max() for jolt in jolts[1:]]
    assert again == 0 and other > 0
    assert not np.array_equal(Jitter(seed=1).of_episode(3).gain, jolts[0].gain)


def test_looks_are_as_far_apart_as_is_said() -> None:
    jitter = Jitter(move_m=0.05, turn_deg=2.0, zoom=0.1, tint=0.2)
    jolts = [jitter.of_episode(seed) for seed in range(4_000)]
    # The mean of the square of a uniform share is a third.
    for values, deviation in (
        ([jolt.move for jolt in jolts], 0.05),
        ([np.degrees(jolt.turn) for jolt in jolts], 2.0),
        ([np.log(jolt.zoom) for jolt in jolts], 0.1),
        ([np.log(jolt.gain) for jolt in jolts], 0.2),
    ):
        assert np.std(values) == pytest.approx(deviation / np.sqrt(3), rel=0.06)


def test_only_the_one_camera_moves_and_by_the_angle_that_is_said() -> None:
    model = make_sawyer("DoorOpen").model
    number, jolt = camera_id(model, "corner4"), Jitter(turn_deg=10.0).of_episode(0)
    arrays = jolt.camera(model, number)
    for name, array in arrays.items():
        rest = np.arange(len(array)) != number
        np.testing.assert_array_equal(array[rest], getattr(model, name)[rest])
    overlap = abs(arrays["cam_quat"][number] @ model.cam_quat[number])
    assert 2 * np.arccos(overlap) == pytest.approx(np.linalg.norm(jolt.turn), abs=1e-6)
    np.testing.assert_allclose(arrays["cam_pos"][number] - model.cam_pos[number], jolt.move)
    assert arrays["cam_fovy"][number] / model.cam_fovy[number] == pytest.approx(jolt.zoom)


def test_frames_of_a_look_are_drawn_and_kept_apart_from_still_ones(
    data: Path, tmp_path: Path
) -> None:
    episodes = Trajectories.load(data / "DoorOpen.npz")
    still = cached_frames(episodes, VIEW, GRID, tmp_path)
    assert not np.array_equal(cached_frames(episodes, VIEW, GRID, tmp_path, Jitter()), still)
    tinted = cached_frames(episodes, VIEW, GRID, tmp_path, Jitter(0.0, 0.0, 0.0, tint=0.3))
    gain = np.stack(
        [Jitter(0.0, 0.0, 0.0, tint=0.3).of_episode(int(seed)).gain for seed in episodes.seed]
    )
    expected = np.clip(still * gain[:, None, None, None], 0, 255)
    # The camera is written as it was, but for the rounding of its direction.
    assert np.median(np.abs(tinted - expected)) <= 0.5
    assert len(list(tmp_path.iterdir())) == 3


def test_training_is_on_both_looks_and_validation_on_still_frames(
    data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"

    def frames_after(out: str, **changes: object) -> set[Path]:
        train(config(data, cache, tmp_path / out, steps=1, **changes))
        return set((cache / "frames").iterdir())

    still = frames_after("still", validation=data)
    looks = frames_after("looks", jitter=Jitter())
    assert (len(still), len(looks)) == (len(TRAIN), 2 * len(TRAIN))
    assert frames_after("judged", jitter=Jitter(), validation=data) == looks


def test_a_batch_is_of_one_look_and_matches_are_still(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    settings, pool = pool_of_both_looks(data, cache, tmp_path)
    rng = np.random.default_rng(0)
    still = [preference_batch(pool, SENTENCES, settings.batch, rng) for _ in range(20)]
    assert 5 <= sum(batch.still for batch in still) <= 15
    of_look = {
        is_still: {
            row.tobytes()
            for folders in pool
            for clips in folders
            if clips.still == is_still
            for row in clips.gather(np.arange(len(clips.clips))).numpy()
        }
        for is_still in (True, False)
    }
    for batch in still:
        drawn = {clip.tobytes() for clip in batch.clips.flatten(0, 1).numpy()}
        assert drawn <= of_look[batch.still]
    match = match_batch(pool, SENTENCES, settings.batch, rng)
    assert {clip.tobytes() for clip in match.clips.numpy()} <= of_look[True]


@pytest.mark.parametrize("still", [True, False])
def test_a_match_learns_from_still_frames_alone(
    data: Path, cache: Path, tmp_path: Path, still: bool
) -> None:
    settings, pool = pool_of_both_looks(data, cache, tmp_path)
    torch.manual_seed(0)
    model = VLP(settings.model)
    rng, batch = np.random.default_rng(0), None
    while batch is None or batch.still != still:
        batch = preference_batch(pool, SENTENCES, settings.batch, rng)
    before = model.match.standardize.running_mean.clone()
    loss, _ = Objective(model, settings.loss).train()(batch, None)
    loss.backward()
    moved = not torch.equal(model.match.standardize.running_mean, before)
    learned = any(
        weights.grad is not None and bool(weights.grad.any())
        for weights in (model.match.see.weight, model.match.read.weight)
    )
    assert (moved, learned) == (still, still)
    assert model.match.training
    assert bool(model.embed_frames.weight.grad.any())


def pool_of_both_looks(data: Path, cache: Path, out: Path) -> tuple[TrainConfig, TaskPool]:
    settings = config(data, cache, out, jitter=Jitter())
    return settings, load_pool(VLP(settings.model), settings, settings.data)[0]


def test_deviations_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="zoom must be 0 or more"):
        Jitter(zoom=-0.1)
