"""The cache of features: it belongs to one encoder, and not to another of the same weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest

from tests.tiny_training import GRID, tiny_data, tiny_split  # noqa: F401  fixtures are found by name
from tests.tiny_vlp import SIZE_PX, TINY_VIT
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.models.encoders import ClipEncoders
from vlp_gym.training.features import task_clips
from vlp_gym.types import View

Encode = Callable[[ClipEncoders], np.ndarray]


@pytest.fixture
def encode(data: Path, tmp_path: Path) -> Encode:
    trajectories = Trajectories.load(data / "DoorOpen.npz")

    def features(encoders: ClipEncoders) -> np.ndarray:
        view = View("corner4", SIZE_PX)
        return task_clips(trajectories, encoders.eval(), view, GRID, 3, tmp_path).features

    return features


def twins(folder: Path, **change: object) -> tuple[ClipEncoders, ClipEncoders]:
    """Return encoders of the same weights, the second with a changed open_clip config."""
    made = []
    for name, about in (("tiny-vit", TINY_VIT), ("tiny-twin", {**TINY_VIT, **change})):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(about))
        open_clip.add_model_config(path)
        made.append(ClipEncoders(name, (1,), SIZE_PX))
    made[1].load_state_dict(made[0].state_dict())
    return made[0], made[1]


def test_another_activation_of_the_same_weights_has_features_of_its_own(
    encode: Encode, tmp_path: Path
) -> None:
    plain, quick = twins(tmp_path, quick_gelu=True)
    one, other = encode(plain), encode(quick)
    assert np.abs(one.astype(np.float32) - other).max() > 0.01
    np.testing.assert_array_equal(encode(plain), one)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_another_norm_of_pixels_has_features_of_its_own(encode: Encode, tmp_path: Path) -> None:
    plain, other = twins(tmp_path)
    other.mean.fill_(0.5)
    assert np.abs(encode(plain).astype(np.float32) - encode(other)).max() > 0.01


def test_the_same_encoder_under_another_name_reads_the_same_cache(
    encode: Encode, tmp_path: Path
) -> None:
    plain, same = twins(tmp_path)
    np.testing.assert_array_equal(encode(plain), encode(same))
    assert len(list((tmp_path / "features").iterdir())) == 1
