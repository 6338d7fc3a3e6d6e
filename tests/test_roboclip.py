"""RoboCLIP's scorer: words, frames and demonstrations as S3D reads them."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.official import (
    WORDS,
)
from tests.test_vlm_scorers import FRAMES, TASK, written
from vlp_gym.errors import CheckpointError, InstructionError, SettingError
from vlp_gym.scorers import load_scorer
from vlp_gym.scorers.roboclip import RoboCLIPScorer
from vlp_gym.types import Task

__all__ = ["written"]


@pytest.fixture(name="s3d")
def made_s3d(files: Any) -> RoboCLIPScorer:
    path, settings = files["roboclip"]
    scorer: RoboCLIPScorer = load_scorer("roboclip", path, "cpu", **settings)
    return scorer


def test_words_that_s3d_does_not_know(
    s3d: RoboCLIPScorer, caplog: pytest.LogCaptureFixture
) -> None:
    assert s3d.coverage("Robot, closing the turquoise drawer!") == (
        ["robot", "closing", "the", "drawer"],
        ["turquoise"],
    )
    with caplog.at_level(logging.WARNING):
        s3d(FRAMES[None], Task("press the turquoise button"))
    assert "lacks turquoise" in caplog.text and "'press the button'" in caplog.text
    with pytest.raises(InstructionError, match="no word of 'fold laundry'"):
        s3d.check(Task("fold laundry"))
    with pytest.raises(InstructionError, match="S3D reads 16 words"):
        s3d(FRAMES[None], Task(" ".join(["red"] * 17)))
    assert s3d.tokens("Don't press")[:3].tolist() == [WORDS.index("don't") + 1, 6, 0]


def test_s3d_reads_even_numbers_of_everything(files: Any, s3d: RoboCLIPScorer) -> None:
    for clips in (FRAMES[None, :3], FRAMES[None, :, :63], FRAMES[None, :, :, :63]):
        with pytest.raises(SettingError, match="must be even"):
            s3d(clips, TASK)
    path, settings = files["roboclip"]
    with pytest.raises(SettingError, match="must be even"):
        load_scorer("roboclip", path, "cpu", **{**settings, "n_frames": 5})


def test_the_middle_is_cut_out_without_resizing(files: Any, s3d: RoboCLIPScorer) -> None:
    path, settings = files["roboclip"]
    cropping = load_scorer(
        "roboclip", path, "cpu", **{**settings, "picture_px": (80, 96)}, crop_px=64
    )
    framed = np.zeros((1, 4, 80, 96, 3), np.uint8)
    framed[:, :, 8:72, 16:80] = FRAMES
    np.testing.assert_allclose(cropping(framed, TASK), s3d(FRAMES[None], TASK), rtol=1e-5)
    with pytest.raises(SettingError, match="does not fit"):
        cropping(FRAMES[None, :, :32], TASK)


def test_demonstrations_add_up(files: Any, s3d: RoboCLIPScorer, tmp_path: Path) -> None:
    path, settings = files["roboclip"]
    demos = [FRAMES, FRAMES[::-1]]
    one, other, both = (
        load_scorer("roboclip", path, "cpu", demonstrations=videos, **settings)(FRAMES[None], TASK)
        for videos in ([demos[0]], [demos[1]], demos)
    )
    np.testing.assert_allclose(both, one + other, rtol=1e-4)
    import imageio.v3 as imageio

    imageio.imwrite(tmp_path / "demo.gif", FRAMES, loop=0)
    named = load_scorer(
        "roboclip", path, "cpu", demonstrations=[str(tmp_path / "demo.gif")], **settings
    )
    assert np.isfinite(named(FRAMES[None], Task("unread"))).all()


def test_the_dictionary_must_belong_to_the_weights(files: Any, tmp_path: Path) -> None:
    path, settings = files["roboclip"]
    for n_words in (99, len(WORDS) + 1, len(WORDS) - 1):
        np.save(tmp_path / "other.npy", np.array([f"w{i}" for i in range(n_words)]))
        other = {**settings, "vocabulary": tmp_path / "other.npy"}
        with pytest.raises(CheckpointError, match="do not belong together"):
            load_scorer("roboclip", path, "cpu", **other)
    np.save(tmp_path / "numbers.npy", np.arange(4))
    with pytest.raises(CheckpointError, match="not S3D's dictionary"):
        load_scorer("roboclip", path, "cpu", **{**settings, "vocabulary": tmp_path / "numbers.npy"})
