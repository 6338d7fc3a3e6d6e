"""The preference model: its invariances, its two kinds of encoders, its reading of sentences."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_vlp import SIZE_PX, register_tiny_vit, tiny_model
from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.models.aim import MIDDLE_M, SCALE, Aim
from vlp_gym.models.folding import fold_norms
from vlp_gym.models.vlp import VLP, Video, VLPConfig, Words


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
    words = model.read_words(tokens(model, short))
    padded = model.read_words(tokens(model, short, long))
    n_words = int(words.is_word.sum())
    torch.testing.assert_close(padded.tokens[:1, :n_words], words.tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.meant[:1], words.meant, rtol=1e-4, atol=1e-5)
    assert int(padded.is_word[0].sum()) == n_words


def test_a_frozen_tower_reads_frames_in_blocks_and_one_in_training_all_at_once() -> None:
    model = tiny_model()
    many = clips(n_clips=7)  # 21 frames: more than one block
    with torch.no_grad():
        whole = model.encoders.frames(many.flatten(0, 1)).unflatten(0, (7, 3))
        torch.testing.assert_close(model.see(many), whole, rtol=1e-4, atol=1e-5)
        visual = model.encoders.clip.visual.train()
        counted = next(each for each in visual.modules() if isinstance(each, torch.nn.BatchNorm2d))
        before = int(counted.num_batches_tracked)
        model.see(many)
    assert int(counted.num_batches_tracked) == before + 1


@pytest.mark.parametrize("frames", ["stack", "sequence"])
def test_the_embedding_is_that_of_the_normed_features_and_so_are_its_gradients(frames: str) -> None:
    model = tiny_model(frames=frames)
    torch.nn.init.normal_(model.norm_frames.weight)
    torch.nn.init.normal_(model.norm_frames.bias)
    features = torch.randn(2, 3, model.encoders.n_patches, model.encoders.frame_width)
    normed = model.norm_frames(features)
    if frames == "stack":
        normed = normed.transpose(1, 2).flatten(2).unsqueeze(1)
    ours, plain = model._embed(features), model.embed_frames(normed)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    learned = [*model.norm_frames.parameters(), *model.embed_frames.parameters()]
    for one, two in zip(
        torch.autograd.grad(ours.square().sum(), learned),
        torch.autograd.grad(plain.square().sum(), learned),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_pooled_layer_returns_the_mean_of_its_video() -> None:
    layer = tiny_model().cross_layers[0]
    video, words = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    is_word = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    tokens, read = layer(video, words, is_word)
    mean, same = layer(video, words, is_word, pooled=True)
    torch.testing.assert_close(mean, tokens.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, read)


def test_words_are_what_the_whole_context_would_make_them() -> None:
    encoders = tiny_model().encoders
    tokens = torch.stack([encoders.tokenize("close the door"), encoders.tokenize("open it")])
    features, is_word = encoders.words(tokens)
    clip = encoders.clip
    whole = clip.transformer(
        clip.token_embedding(tokens) + clip.positional_embedding, attn_mask=clip.attn_mask
    )
    assert features.shape[1] == is_word.shape[1] == 5  # three words between two marks
    torch.testing.assert_close(features, clip.ln_final(whole)[:, :5], rtol=1e-4, atol=1e-5)


def test_without_a_causal_mask_padding_is_read_as_before() -> None:
    encoders = tiny_model().encoders
    encoders.clip.attn_mask = None
    tokens = encoders.tokenize("close the door")[None]
    features, _ = encoders.words(tokens)
    clip = encoders.clip
    whole = clip.transformer(clip.token_embedding(tokens) + clip.positional_embedding)
    torch.testing.assert_close(features, clip.ln_final(whole)[:, :5], rtol=1e-4, atol=1e-5)


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


def read(model: VLP, sentence: str = "close the door") -> tuple[Video, Words]:
    frames = clips()
    features = model.encoders.frames(frames.flatten(0, 1))
    video = model.read_video(features.view(*frames.shape[:2], *features.shape[1:]))
    return video, model.read_words(tokens(model, *[sentence] * len(frames)))


def test_without_a_match_the_score_is_the_progress_alone() -> None:
    model = tiny_model(match_width=0, aim=False)
    video, words = read(model)
    assert video.shown.shape == (4, 0) and words.meant.shape == (4, 0)
    torch.testing.assert_close(model.score(video, words), model.progress(video, words))


def test_a_clip_that_shows_something_else_keeps_its_order_and_little_of_its_worth() -> None:
    model = tiny_model(match_width=8, match_worth=5.0, match_floor=0.1)
    assert model.match is not None
    video, words = read(model)
    progress = torch.tensor([-1.0, 0.0, 3.0, 100.0])
    with torch.no_grad():
        model.match.bias.fill_(-50.0)
        other = model.join(progress, video, words)
        torch.testing.assert_close(other, 0.1 * (progress + 5.0))
        model.match.bias.fill_(50.0)
        torch.testing.assert_close(model.join(progress, video, words), progress + 5.0)


def test_a_margin_takes_a_doubtful_match_for_a_sure_one() -> None:
    model = tiny_model(
        match_width=8, match_worth=5.0, match_margin=4.0, match_sharpness=2.0, match_floor=0.0
    )
    assert model.match is not None
    video, words = read(model)
    progress = torch.tensor([-1.0, 0.0, 3.0, 4.0])
    with torch.no_grad():
        matches = torch.sigmoid(2.0 * (model.match(video.shown, words.meant) + 4.0))
        torch.testing.assert_close(model.join(progress, video, words), matches * (progress + 5.0))


def test_small_differences_of_a_clear_match_order_nothing() -> None:
    model = tiny_model(match_width=8, match_sharpness=12.0)
    assert model.match is not None
    video, words = read(model)
    with torch.no_grad():
        model.match.bias.fill_(3.0)
        match = model.match(video.shown, words.meant)
        assert match.min() > 1.0 and match.max() - match.min() > 1e-3
        scores = model.join(torch.zeros(4), video, words)
        assert scores.max() - scores.min() < 1e-3 * (match.max() - match.min())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 96, "heads": 5}, "width 96 must be a multiple of heads, 5"),
        ({"width": 0}, "width must be 1 or more, got 0"),
        ({"heads": -1}, "heads must be 1 or more"),
        ({"n_frames": 1}, "n_frames must be 2 or more"),
        ({"cross_layers": 0}, "cross_layers must be 1 or more"),
        ({"match_width": -1}, "match_width must be 0 or more"),
        ({"image_size_px": 0}, "image_size_px must be 1 or more"),
        ({"stages": ()}, "stages must name one or more"),
        ({"head": (256, 0)}, "head widths of 1 or more"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1"),
        ({"dropout": -0.1}, "dropout must be 0 or more and below 1"),
        ({"match_worth": float("nan")}, "match_worth must be a finite number"),
    ],
)
def test_a_size_of_which_no_model_can_be_made_is_refused(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VLPConfig(**wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("width", 96.0),
        ("width", True),
        ("heads", "4"),
        ("frames", "stacked"),
        ("aim", None),
        ("stages", 2),
        ("dropout", "0"),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, wrong: Any) -> None:
    config = VLPConfig()
    object.__setattr__(config, name, wrong)  # in tests jaxtyping would refuse it first
    with pytest.raises(ValueError, match=f"{name} must be .*, got {wrong!r}"):
        config.__post_init__()


@pytest.mark.parametrize("wrong", [{"match_sharpness": 0.0}, {"match_floor": 1.0}])
def test_a_match_that_would_turn_scores_round_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="match_sharpness must be above 0"):
        VLPConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("score_head", ["linear", "sigmoid"])
def test_scores_are_of_float32_under_autocast_and_do_not_tie(score_head: str) -> None:
    model = tiny_model(match_width=8, match_margin=3.0, score_head=score_head)
    torch.nn.init.normal_(model.score_head[-1].weight, std=2.0)  # type: ignore[arg-type]
    many = clips(n_clips=48)
    words = tokens(model, *["close the door"] * len(many))

    def told() -> tuple[torch.Tensor, torch.Tensor]:
        video, read = model.read_video(model.see(many)), model.read_words(words)
        return model.worth(model.progress(video, read)), model.score(video, read)

    with torch.no_grad():
        exact = told()
        with torch.autocast("cpu", torch.bfloat16):
            half = told()
    for one, other in zip(exact, half, strict=True):
        assert one.dtype == other.dtype == torch.float32
        # What comes before the score head is of bfloat16 still, with 8 bits after the first.
        torch.testing.assert_close(other, one, rtol=0, atol=0.05)
        assert len(other.unique()) == len(many)
    apart = (half[0] - half[0][0])[1:] / 0.0625  # bfloat16's step between 8 and 16
    assert (apart - apart.round()).abs().max() > 0.1


def test_a_bounded_score_with_a_match_still_tells_progress() -> None:
    model = tiny_model(score_head="sigmoid", match_width=8)
    assert model.match is not None
    video, words = read(model)
    with torch.no_grad():
        model.match.bias.fill_(50.0)
        progress = torch.tensor([-2.0, -1.0, 1.0, 2.0])
        torch.testing.assert_close(model.join(progress, video, words), torch.sigmoid(progress))


def test_what_a_clip_shows_does_not_depend_on_the_order_of_its_frames() -> None:
    model = tiny_model()
    features = model.encoders.frames(clips().flatten(0, 1)).unflatten(0, (4, 3))
    one, two = model.read_video(features), model.read_video(features.flip(1))
    torch.testing.assert_close(one.shown, two.shown, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one.tokens, two.tokens)
    torch.testing.assert_close(one.shown.norm(dim=1), torch.ones(4))


def test_encoders_for_inference_say_the_same_with_the_norms_folded(encoder: str) -> None:
    encoders = tiny_model(encoder).encoders
    norms = [each for each in encoders.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:  # as after a training
        torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    frames = clips().flatten(0, 1)
    with torch.no_grad():
        before = encoders.frames(frames)
        fast = encoders.for_inference()
        torch.testing.assert_close(fast.frames(frames), before, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(encoders.frames(frames), before)
    assert (encoder == "vlp-compact") == bool(norms)
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in fast.modules())
    assert fast.clip.token_embedding is encoders.clip.token_embedding  # most of a small model


def test_a_norm_that_no_convolution_feeds_stays() -> None:
    norm, convolution = torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 1)
    network = torch.nn.Sequential(norm, convolution, torch.nn.BatchNorm2d(4)).eval()
    folded = fold_norms(network, lambda each: each(torch.zeros(1, 3, 2, 2)))
    assert [type(each).__name__ for each in folded] == ["BatchNorm2d", "Conv2d", "Sequential"]
    assert len(list(folded[2])) == 0


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


@pytest.mark.parametrize(
    "clip", ["ViT-B-16-SigLIP", "coca_ViT-B-32", "roberta-ViT-B-32", "ViT-L-14-CLIPA"]
)
def test_an_encoder_with_another_text_tower_or_other_tokens_is_refused_unbuilt(
    clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.create_model", None)
    with pytest.raises(UnknownNameError, match=f"'{clip}' are not CLIP's own.*'ViT-B-16'"):
        tiny_model(clip)


def test_who_wants_the_opposite_finds_things_as_far_on_the_other_side() -> None:
    torch.manual_seed(0)
    aim = Aim(width=8, n_frames=3).eval()
    torch.nn.init.zeros_(aim.wanted.bias)
    video, meant = torch.randn(5, 7, 8), torch.randn(5, 8)
    here, there = aim(video, meant), aim(video, -meant)
    assert here.shape == (5, aim.n_features)
    torch.testing.assert_close(here[:, :6], -there[:, :6])
    torch.testing.assert_close(here[:, 6:], there[:, 6:])
    # Metres, times a scale, from the middle of the table.
    hand, thing = (aim.where(video) - torch.tensor(2 * MIDDLE_M)).mul(SCALE).chunk(2, dim=-1)
    wanted = aim.wanted(meant)[:, None]
    torch.testing.assert_close(here[:, :3], (wanted * thing).sum(-1))
    torch.testing.assert_close(here[:, 3:6], (wanted * (thing - hand)).sum(-1))
    torch.testing.assert_close(here[:, 6:], (hand - thing).norm(dim=-1), rtol=1e-3, atol=1e-3)


def test_a_model_that_aims_reads_the_same_clip_otherwise_under_another_sentence() -> None:
    model = tiny_model()
    assert model.aim is not None and tiny_model(aim=False).aim is None
    video = model.read_video(model.see(clips(2)))
    words = model.read_words(tokens(model, "open the drawer", "close the drawer"))
    same = video[torch.zeros(2, dtype=torch.long)]
    aimed = model.aim(same.tokens, words.mean)
    assert not torch.allclose(aimed[0, :6], aimed[1, :6])
    torch.testing.assert_close(aimed[0, 6:], aimed[1, 6:])
