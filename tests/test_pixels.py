"""From frames to what a network reads: fitted as is said, never guessed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.official import smooth_frames
from vlp_gym.errors import SettingError
from vlp_gym.scorers.pixels import IMAGENET_MEAN, IMAGENET_STD, Preprocess, check_frames

FRAMES = smooth_frames(4, 64, 64, seed=1)


@pytest.mark.parametrize("frames", [FRAMES.transpose(0, 3, 1, 2), FRAMES / 255.0, FRAMES[0, 0]])
def test_layout_and_range_of_frames_are_never_guessed(frames: Any) -> None:
    with pytest.raises(SettingError, match="expected uint8 pictures"):
        check_frames(frames)
    check_frames(FRAMES)


def test_a_dark_frame_is_a_dark_frame() -> None:
    """VIP's own code takes a picture without a value above 2 for one in [0, 1]."""
    dark = torch.ones(1, 8, 8, 3, dtype=torch.uint8)
    steps = Preprocess(8, IMAGENET_MEAN, IMAGENET_STD, fit="none")
    expected = (1 / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(steps(dark)[0, :, 0, 0], expected, rtol=1e-5)


def test_squash_keeps_the_borders_and_crop_the_proportions() -> None:
    wide = torch.zeros(1, 20, 40, 3, dtype=torch.uint8)
    wide[:, :, :6] = 255  # a stripe at the left border
    squash, crop = (
        Preprocess(10, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fit, interpolation="bilinear")(wide)
        for fit in ("squash", "crop")
    )
    assert squash.shape == crop.shape == (1, 3, 10, 10)
    assert squash[..., 0].mean() > 0.9 and crop.max() == 0


def test_nothing_is_resized_where_that_is_not_wanted() -> None:
    with pytest.raises(SettingError, match="resizes nothing"):
        Preprocess(8, IMAGENET_MEAN, IMAGENET_STD, fit="none")(
            torch.zeros(1, 9, 8, 3, dtype=torch.uint8)
        )
    with pytest.raises(SettingError, match="resize_px must be 8 or more"):
        Preprocess(8, IMAGENET_MEAN, IMAGENET_STD, resize_px=7)
    with pytest.raises(SettingError, match="Pillow always smooths"):
        Preprocess(8, IMAGENET_MEAN, IMAGENET_STD, antialias=False, by_pillow=True)
