"""Attention maps: whose they are, what they sum to, and the pictures of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs

from tests.tiny_vlp import SIZE_PX, tiny_checkpoint, tiny_model
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.training.attention import SHOWN_PX, AttentionConfig, attention, overlaid, word_maps
from vlp_gym.training.collect import collect_task
from vlp_gym.types import View

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def checkpoint(frames: str) -> Checkpoint:
    return Checkpoint(tiny_model(frames=frames), View("corner4", SIZE_PX), 16)


def test_every_token_shares_out_its_reading_and_padding_gets_none_of_it() -> None:
    model = tiny_model()
    features = model.encoders.frames(torch.from_numpy(CLIPS).flatten(0, 1))
    video = model.read_video(features.view(2, 3, *features.shape[1:]))
    sentences = ("close it", "push the large red button of the machine")
    words = model.read_words(torch.stack([model.encoders.tokenize(s) for s in sentences]))
    of_words, of_video = model.attention(video, words)
    torch.testing.assert_close(of_words.sum(-1), torch.ones(of_words.shape[:2]))
    torch.testing.assert_close(of_video.sum(-1), torch.ones(of_video.shape[:2]))
    assert of_words[0, :, ~words.is_word[0]].abs().max() == 0


@pytest.mark.parametrize("frames", ["stack", "sequence"])
def test_a_word_has_a_map_of_every_frame(frames: str) -> None:
    maps, words = word_maps(checkpoint(frames), CLIPS, "close the door")
    assert words == ["close", "the", "door"]
    side = SIZE_PX // 8
    assert maps.shape == (2, 3, 3, side, side)
    # Tokens of stacked frames belong to all frames at once, others to one frame each.
    same = np.array_equal(maps[:, :, 0], maps[:, :, 1])
    assert same == (frames == "stack")
    total = maps[:, :, :1].sum((2, 3, 4)) if same else maps.sum((2, 3, 4))
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_the_brightest_place_is_where_the_map_is_largest() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[3, 0] = 1.0
    picture = overlaid(np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8), heat).sum(-1)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row > SHOWN_PX / 2 and column < SHOWN_PX / 2


def test_the_pictures_show_a_recorded_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "DoorOpen.npz"
    collect_task("DoorOpen", {"expert": 1}, 50, seed=0).save(path)
    model = tiny_checkpoint(tmp_path / "c")
    config = AttentionConfig(path, out=tmp_path / "out", checkpoint=model, device="cpu", every=4)
    attention(config)
    assert (tmp_path / "out" / "attention.png").read_bytes().startswith(b"\x89PNG")
    # 13 frames are drawn of 50 steps; a clip of 3 frames, 4 drawn ones apart, first ends at the ninth.
    assert count_frames_and_secs(tmp_path / "out" / "attention.mp4")[0] == 5
    with pytest.raises(IndexError, match="episodes 0 to 0"):
        attention(AttentionConfig(path, episode=3, checkpoint=model))
    with pytest.raises(ValueError, match="too few"):
        short = tmp_path / "short.npz"
        collect_task("DoorOpen", {"expert": 1}, 20, seed=0).save(short)
        attention(AttentionConfig(short, out=tmp_path / "out", checkpoint=model, device="cpu"))
