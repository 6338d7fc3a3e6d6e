"""Every reward against its published formula and network, written down plainly, on weights that show a wrong port."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from tests import reference_networks as reference
from tests.official import (
    WORDS,
    draw_weights,
    random_clip,
    random_s3d,
    random_vip,
    register_tiny_clips,
    smooth_frames,
)
from vlp_gym.scorers.clip import ClipScorer, VLMRMScorer, vlmrm_reward
from vlp_gym.scorers.liv import LIVScorer
from vlp_gym.scorers.pixels import IMAGENET_MEAN, IMAGENET_STD
from vlp_gym.scorers.roboclip import RoboCLIPScorer
from vlp_gym.scorers.vip import VIPScorer
from vlp_gym.types import Task

TOLERANCE = 1e-4
KNEEL = Task("a humanoid robot kneeling", baseline="a humanoid robot")
CLIP = smooth_frames(6, 80, 112, seed=1)[None]
OTHER = smooth_frames(6, 80, 112, seed=2)[None]


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_tiny_clips(tmp_path_factory.mktemp("configs"))


def off(got: Any, expected: Any) -> float:
    """Return the largest difference, relative to how large the expected numbers are."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def assert_sensitive(score: Callable[[], NDArray[Any]], network: torch.nn.Module) -> None:
    """A change of 5 % of any one layer must show, or a wrong port of it would not."""
    before, generator = score(), torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim < 2 or "text" in name or "token" in name or "word" in name:
            continue
        with torch.no_grad():
            kept = weight.clone()
            weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
        assert off(score(), before) > 3 * TOLERANCE, name
        with torch.no_grad():
            weight.copy_(kept)


def imagenet_pixels(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Return frames as VIP reads them, by torchvision's own classes, float64."""
    steps = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255
    out: torch.Tensor = steps(pixels)
    return out


@pytest.mark.parametrize("size", [18, 34, 50])
def test_vip(size: int) -> None:
    network, goals = random_vip(size), OTHER[0, :2]
    frames = CLIP[:, :2]
    weights = reference.double(
        {n.removeprefix("convnet."): v for n, v in network.state_dict().items()}
    )

    def embed(pictures: NDArray[np.uint8]) -> torch.Tensor:
        features = reference.resnet(imagenet_pixels(pictures), weights)
        return features @ weights["fc.weight"].T + weights["fc.bias"]

    expected = -torch.linalg.norm(embed(frames[0]) - embed(goals).mean(0), dim=-1)
    got = VIPScorer(network, goal_images=list(goals), device="cpu")(frames, KNEEL)
    assert got.std() / abs(got.mean()) > 0.01
    assert off(got[0], expected) < TOLERANCE


def test_vip_weights_show() -> None:
    network = random_vip()
    goal = Task("-", goal_image=OTHER[0, 0])
    few = CLIP[:, :1]
    layers = [network.convnet.conv1, network.convnet.layer3[0].conv2, network.convnet.fc]  # type: ignore[union-attr, index]
    for layer in layers:
        assert_sensitive(lambda: VIPScorer(network, device="cpu")(few, goal), layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("value_range", ["unit", "released"])
def test_roboclip(value_range: Any) -> None:
    network = random_s3d()
    scorer = RoboCLIPScorer(
        network, WORDS, value_range=value_range, n_frames=8, picture_px=(64, 64), device="cpu"
    )
    clips = smooth_frames(16, 64, 64, seed=3).reshape(2, 8, 64, 64, 3)
    weights = reference.double(network.state_dict())
    pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).double()
    pixels = pixels / 255 if value_range == "unit" else pixels
    sentence = "Robot closing the GREEN drawer, quickly"
    expected = reference.s3d_video(pixels, weights) @ reference.s3d_text(sentence, WORDS, weights)
    assert off(scorer(clips, Task(sentence))[:, 0], expected) < TOLERANCE
    demonstration = scorer.embed(clips[:1])[0]
    by_video = RoboCLIPScorer(
        network,
        WORDS,
        demonstrations=[clips[0]],
        value_range=value_range,
        n_frames=8,
        picture_px=(64, 64),
        device="cpu",
    )
    assert off(by_video(clips, Task("-x-"))[:, 0], scorer.embed(clips) @ demonstration) < TOLERANCE


def test_roboclip_notices_other_videos_weights_and_scales() -> None:
    network = random_s3d()
    clips = smooth_frames(8, 64, 64, seed=3)[None]
    settings: Any = {"n_frames": 8, "picture_px": (64, 64), "device": "cpu"}
    scorer, task = RoboCLIPScorer(network, WORDS, **settings), Task("red button")
    score = scorer(clips, task)
    assert off(scorer(smooth_frames(8, 64, 64, seed=4)[None], task), score) > 0.05
    assert off(scorer(clips[:, ::-1], task), score) > 0.01  # time matters
    released = RoboCLIPScorer(network, WORDS, value_range="released", **settings)
    assert off(released(clips, task), score) > 0.5
    for layer in (network.conv1, network.mixed_4d, network.text_module.fc2):
        with torch.no_grad():
            weight = next(iter(layer.parameters()))
            kept = weight.clone()
            weight *= 1.05
        changed = RoboCLIPScorer(network, WORDS, **settings)(clips, task)
        assert off(changed, score) > 3 * TOLERANCE
        with torch.no_grad():
            weight.copy_(kept)


def stock_pixels(frames: NDArray[np.uint8], size: int, mean: Any, std: Any) -> torch.Tensor:
    """Return frames as CLIP's own preprocessing gives them."""
    return picture_pixels(frames, size, size, "bicubic", mean, std)


def picture_pixels(
    frames: NDArray[np.uint8], shorter: int, size: int, how: str, mean: Any, std: Any
) -> torch.Tensor:
    """Return frames as Pillow resizes them: shorter side, centre."""
    steps = transforms.Compose(
        [
            transforms.Resize(shorter, transforms.InterpolationMode(how)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return torch.stack([steps(Image.fromarray(frame)) for frame in frames])


def squashed_pixels(frames: NDArray[np.uint8], size: int, mean: Any, std: Any) -> torch.Tensor:
    """Return frames as VLM-RM gives them: tensors in [0, 1], both sides resized."""
    steps = transforms.Compose(
        [
            transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC),
            transforms.Normalize(mean, std),
        ]
    )
    out: torch.Tensor = steps(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    return out


def embeddings(towers: Any, pixels: torch.Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        return np.asarray(towers.clip.double().encode_image(pixels.double()))


def sentences(towers: Any, *texts: str) -> NDArray[np.float64]:
    import open_clip

    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(towers.name)(list(texts))
        return np.asarray(towers.clip.double().encode_text(tokens))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["tiny-clip-vit", "tiny-clip-rn-quickgelu"])
def test_vlmrm(name: str, alpha: float) -> None:
    scorer = VLMRMScorer(random_clip(name), alpha=alpha, device="cpu")
    got = scorer(CLIP, KNEEL)[0]
    towers = random_clip(name)
    images = embeddings(
        towers, squashed_pixels(CLIP[0], towers.image_size_px, towers.mean, towers.std)
    )
    target, baseline = sentences(towers, KNEEL.instruction, KNEEL.baseline or "")
    expected = reference.vlmrm(images, target[None], baseline[None], alpha)
    assert off(got, expected) < TOLERANCE
    if alpha == 0:
        assert expected.std() > 10 * TOLERANCE


def test_vlmrm_averages_several_prompts_and_does_not_normalise_them_again() -> None:
    targets, baselines = ["kneeling", "a robot on its knees"], ["a robot", "a humanoid robot"]
    name = "tiny-clip-vit"
    scorer = VLMRMScorer(
        random_clip(name), alpha=0.3, targets=targets, baseline=baselines, device="cpu"
    )
    towers = random_clip(name)
    pixels = squashed_pixels(CLIP[0], towers.image_size_px, towers.mean, towers.std)
    expected = reference.vlmrm(
        embeddings(towers, pixels), sentences(towers, *targets), sentences(towers, *baselines), 0.3
    )
    assert off(scorer(CLIP, Task("anything"))[0], expected) < TOLERANCE


@pytest.mark.parametrize("name", ["tiny-clip-vit", "tiny-clip-rn-quickgelu"])
def test_clip_is_the_cosine_of_its_own_preprocessing(name: str) -> None:
    got = ClipScorer(random_clip(name), device="cpu")(CLIP, KNEEL)[0]
    towers = random_clip(name)
    pixels = stock_pixels(CLIP[0], towers.image_size_px, towers.mean, towers.std)
    images, (text,) = embeddings(towers, pixels), sentences(towers, KNEEL.instruction)
    expected = images @ text / np.linalg.norm(images, axis=-1) / np.linalg.norm(text)
    assert off(got, expected) < TOLERANCE
    squashed = VLMRMScorer(random_clip(name), device="cpu")(CLIP, KNEEL)[0]
    assert np.abs(got - squashed).max() > 1e-2


def test_clip_equals_vlmrm_at_alpha_0() -> None:
    clip = ClipScorer(random_clip("tiny-clip-vit"), fit="none", device="cpu")
    vlmrm = VLMRMScorer(random_clip("tiny-clip-vit"), alpha=0.0, fit="none", device="cpu")
    frames = smooth_frames(5, 32, 32, seed=5)[None]
    assert off(clip(frames, KNEEL), vlmrm(frames, KNEEL)) < 1e-6


def test_alpha_1_only_sees_the_way_from_baseline_to_target() -> None:
    generator = torch.Generator().manual_seed(0)
    s, g, b = torch.nn.functional.normalize(torch.randn((3, 8), generator=generator), dim=-1)
    way = (g - b) / (g - b).norm()
    across = torch.randn(8, generator=generator)
    across -= (across @ way) * way
    reward = vlmrm_reward(s[None], g, b, 1.0)
    assert reward.item() == pytest.approx(1 - ((s - g) @ way).item() ** 2 / 2, abs=1e-6)
    assert vlmrm_reward((s + across)[None], g, b, 1.0).item() == pytest.approx(
        reward.item(), abs=1e-5
    )


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("goal", ["text", "image"])
def test_liv(metric: Any, goal: Any) -> None:
    name, picture = "tiny-clip-rn-quickgelu", OTHER[0, 0]
    scorer = LIVScorer(random_clip(name), metric=metric, goal=goal, device="cpu")
    got = scorer(CLIP, Task(KNEEL.instruction, goal_image=picture))[0]
    towers = random_clip(name)
    size = towers.image_size_px
    steps = transforms.Compose(
        [
            transforms.Resize(size, antialias=False),
            transforms.CenterCrop(size),
            transforms.Normalize(towers.mean, towers.std),
        ]
    )

    def see(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return embeddings(
            towers, steps(torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255)
        )

    images = see(CLIP[0])
    (wanted,) = sentences(towers, KNEEL.instruction) if goal == "text" else see(picture[None])
    if metric == "l2":
        expected = -np.linalg.norm(images - wanted, axis=-1)
    else:
        expected = images @ wanted / np.linalg.norm(images, axis=-1) / np.linalg.norm(wanted)
    assert off(got, expected) < TOLERANCE


def test_towers_notice_their_weights_and_their_activation() -> None:
    frames = smooth_frames(3, 32, 32, seed=5)[None]
    towers = random_clip("tiny-clip-vit")
    visual: Any = towers.clip.visual
    assert_sensitive(
        lambda: ClipScorer(towers, fit="none", device="cpu")(frames, KNEEL),
        visual.transformer.resblocks[0],
    )
    plain = random_clip("tiny-clip-vit")
    for block in plain.clip.visual.transformer.resblocks:
        block.mlp.gelu = torch.nn.GELU()
    scores = [ClipScorer(each, fit="none", device="cpu")(frames, KNEEL) for each in (towers, plain)]
    assert off(*scores) > 1e-3


def write_r3m(folder: Path, size: int = 18) -> tuple[Path, Path]:
    """Write a checkpoint as R3M publishes it, with a small DistilBERT, and a small vocabulary."""
    transformers = pytest.importorskip("transformers", reason="needs the extra r3m")
    from tests.official import calibrate, nested, smooth_pixels
    from vlp_gym.models.resnet import R3MNetwork

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "press",
        "button",
        "close",
        "##d",
        "door",
    ]
    config = transformers.DistilBertConfig(
        vocab_size=len(words), dim=64, n_layers=2, n_heads=1, hidden_dim=96
    )
    network = R3MNetwork(size, 32, transformers.DistilBertModel(config))
    draw_weights(network)
    calibrate(network, lambda: network.see(smooth_pixels(8, 64, 0)))
    path, vocabulary = folder / "model.pt", folder / "vocab.txt"
    torch.save(nested(network, "r3m"), path)
    vocabulary.write_text("\n".join(words) + "\n")
    return path, vocabulary


def distilbert(tokens: list[int], w: reference.Weights) -> torch.Tensor:
    """Return the states of DistilBERT (Sanh et al., 2019) with one attention head, plainly."""

    def normed(x: torch.Tensor, at: str) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, unbiased=False, keepdim=True) + 1e-12
        ).sqrt()
        return x * w[at + ".weight"] + w[at + ".bias"]

    def linear(x: torch.Tensor, at: str) -> torch.Tensor:
        return x @ w[at + ".weight"].T + w[at + ".bias"]

    x = w["embeddings.word_embeddings.weight"][tokens]
    x = normed(
        x + w["embeddings.position_embeddings.weight"][: len(tokens)], "embeddings.LayerNorm"
    )
    for i in range(2):
        at = f"transformer.layer.{i}."
        q, k, v = (linear(x, f"{at}attention.{part}_lin") for part in "qkv")
        weights = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1)
        x = normed(x + linear(weights @ v, at + "attention.out_lin"), at + "sa_layer_norm")
        hidden = torch.nn.functional.gelu(linear(x, at + "ffn.lin1"))
        x = normed(x + linear(hidden, at + "ffn.lin2"), at + "output_layer_norm")
    return x


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("size", [18, 50])
def test_r3m(tmp_path: Path, size: int) -> None:
    path, vocabulary = write_r3m(tmp_path, size)
    from vlp_gym.scorers.r3m import R3MScorer

    scorer = R3MScorer.load(path, "cpu", vocabulary=vocabulary)
    task = Task("Close the door", first_frame=OTHER[0, 0])
    got = scorer(CLIP[:, :2], task)[0]
    stored = torch.load(path, weights_only=True)["r3m"]
    weights = reference.double({n.removeprefix("module."): v for n, v in stored.items()})

    def below(prefix: str) -> reference.Weights:
        return {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}

    tokens = [2, 7, 1, 9, 3]  # [CLS] close [UNK] door [SEP]
    assert scorer.tokens(task.instruction)[0].tolist() == tokens
    words = distilbert(tokens, below("lang_enc.model.")).mean(0)
    pictures = np.concatenate([OTHER[0, :1], CLIP[0, :2]])
    pixels = picture_pixels(pictures, 256, 224, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    first, *now = reference.resnet(pixels.double(), below("convnet."))
    expected = torch.stack(
        [
            reference.mlp(torch.cat([first, each, words]), below("lang_rew."), "pred", 5)[0]
            for each in now
        ]
    )
    assert off(got, expected) < TOLERANCE
    # Without a first frame in the task, it is the first of the clip.
    of_clip = scorer(CLIP[:, :2], Task(task.instruction))
    same = scorer(CLIP[:, :2], Task(task.instruction, first_frame=CLIP[0, 0]))
    np.testing.assert_allclose(of_clip, same, rtol=1e-5)
    assert off(of_clip[0], expected) > 1e-2
    # A sentence is read alone, so that nothing depends on what else is asked.
    again = scorer(CLIP[:, :2], task)
    np.testing.assert_array_equal(again[0], got)
