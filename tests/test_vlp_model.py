"""The preference model: its invariances, its two kinds of encoders, its reading of sentences."""

from pathlib import Path

import pytest
import torch

from tests.tiny_vlp import SIZE_PX, register_tiny_vit, tiny_model
from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.models.vlp import VLP


def clips(n_clips: int = 4, n_frames: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n_clips, n_frames, SIZE_PX, SIZE_PX, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def tokens(model: VLP, *sentences: str) -> torch.Tensor:
    return torch.stack([model.encoders.tokenize(sentence) for sentence in sentences])


@pytest.fixture(params=["vlp-compact", "tiny-vit"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    register_tiny_vit(tmp_path)
    return str(request.param)


@pytest.mark.parametrize("frames", ["stack", "sequence"])
def test_cnn_and_vit_encoders_go_through_the_same_code(encoder: str, frames: str) -> None:
    model = tiny_model(encoder, frames=frames)
    score = model(clips(), tokens(model, *["close the door"] * 4))
    assert score.shape == (4,)
    assert score.std() > 0


def test_a_batch_scores_as_its_clips_do_alone(encoder: str) -> None:
    model = tiny_model(encoder)
    words = tokens(model, "close the door", "push the button", "open it", "turn the small dial")
    together = model(clips(), words)
    alone = torch.cat([model(clips()[i : i + 1], words[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing() -> None:
    model = tiny_model()
    short, long = "close the door", "slowly close the small green door of the wooden cabinet"
    words, is_word = model.word_tokens(tokens(model, short))
    padded, is_padded_word = model.word_tokens(tokens(model, short, long))
    n_words = int(is_word.sum())
    torch.testing.assert_close(padded[:1, :n_words], words, rtol=1e-4, atol=1e-5)
    assert int(is_padded_word[0].sum()) == n_words


def test_order_of_frames_and_words_both_count() -> None:
    model = tiny_model()
    words = tokens(model, *["close the door"] * 4)
    assert not torch.allclose(model(clips(), words), model(clips().flip(1), words))
    other = tokens(model, *["door the close"] * 4)
    assert not torch.allclose(model(clips(), words), model(clips(), other))


def test_the_sigmoid_head_bounds_the_score() -> None:
    model = tiny_model(score_head="sigmoid")
    score = model(clips(), tokens(model, *["close the door"] * 4))
    assert ((score > 0) & (score < 1)).all()


def test_a_sentence_is_never_cut_in_silence() -> None:
    model = tiny_model()
    with pytest.raises(InstructionError, match="tokens"):
        model.encoders.tokenize("very " * 60 + "long")


def test_finer_stages_fold_into_the_coarsest_grid_and_lose_nothing() -> None:
    one, two = tiny_model(stages=(2,)), tiny_model(stages=(1, 2))
    assert one.encoders.n_patches == two.encoders.n_patches == (SIZE_PX // 8) ** 2
    # 24 channels at stride 4 are 4 * 24 at stride 8, beside the 40 that are there.
    assert two.encoders.frame_width == one.encoders.frame_width + 4 * 24


def test_an_unknown_encoder_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="ViT-B-16"):
        tiny_model("ViT-B-61")
