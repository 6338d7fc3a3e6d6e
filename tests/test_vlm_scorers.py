"""Scorers of other people's models: their files as published, and what they refuse."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.official import (
    nested,
    random_clip,
    random_vip,
    register_tiny_clips,
    smooth_frames,
    write_clip,
    write_liv,
    write_s3d,
    write_vip,
)
from tests.test_store import NamedScene, make_pairs
from tests.test_vlm_parity import write_r3m
from vlp_gym.errors import CheckpointError, InstructionError, SettingError, UnknownNameError
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.labelers.store import LabelStore
from vlp_gym.models import official
from vlp_gym.models.device import resolve_precision
from vlp_gym.models.official import OFFICIAL_FILES, file_sha256, read_weights
from vlp_gym.models.resnet import VIPNetwork
from vlp_gym.scorers import SCORERS, load_scorer, parse_settings
from vlp_gym.scorers.pixels import check_clips
from vlp_gym.types import Scorer, Task

FRAMES = smooth_frames(4, 64, 64, seed=1)
TASK = Task("closing the green drawer", "drawer", goal_image=FRAMES[0])
CLIP_MODEL: dict[str, Any] = {"model": "tiny-clip-vit"}
LIV_MODEL: dict[str, Any] = {"model": "tiny-clip-rn-quickgelu"}
S3D: dict[str, Any] = {"n_frames": 4, "picture_px": (64, 64)}


@pytest.fixture(scope="module", name="files")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return an official file of every scorer, and its settings."""
    folder = tmp_path_factory.mktemp("files")
    register_tiny_clips(folder)
    weights, words = write_s3d(folder)
    return {
        "clip": (write_clip(folder), CLIP_MODEL),
        "vlmrm": (write_clip(folder), {**CLIP_MODEL, "alpha": 0.5}),
        "vip": (write_vip(folder), {}),
        "liv": (write_liv(folder), LIV_MODEL),
        "roboclip": (weights, {**S3D, "vocabulary": str(words)}),
    }


NAMES = ("clip", "vlmrm", "vip", "liv", "roboclip")


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_loads_its_file_and_keeps_to_the_protocol(files: Any, name: str) -> None:
    path, settings = files[name]
    scorer = load_scorer(name, path, "cpu", **settings)
    clips = np.stack([FRAMES, FRAMES[::-1]])
    scores = scorer(clips, TASK)
    assert isinstance(scorer, Scorer) and scorer.name == f"{name}:{file_sha256(path)[:12]}"
    assert scorer.sha256["checkpoint"] == file_sha256(path)
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    assert scores.shape == ((2, 1) if scorer.unit == "clip" else (2, 4))
    if scorer.unit == "frame":
        np.testing.assert_allclose(scores[0], scores[1, ::-1], rtol=1e-4, atol=1e-5)
    again = np.concatenate([scorer(clip[None], TASK) for clip in clips])
    np.testing.assert_allclose(scores, again, rtol=1e-4, atol=1e-5)  # batches change nothing


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_of_a_file_is_checked(files: Any, name: str) -> None:
    path, settings = files[name]
    load_scorer(name, path, "cpu", sha256=file_sha256(path), **settings)
    with pytest.raises(CheckpointError, match="damaged or another version"):
        load_scorer(name, path, "cpu", sha256="0" * 64, **settings)


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_r3m_needs_its_language_head(tmp_path: Path) -> None:
    path, vocabulary = write_r3m(tmp_path)
    scorer = load_scorer("r3m", path, "cpu", vocabulary=vocabulary)
    assert scorer(FRAMES[None], TASK).shape == (1, 4)
    stripped = {n: v for n, v in torch.load(path)["r3m"].items() if "lang" not in n}
    torch.save({"r3m": stripped}, tmp_path / "stripped.pt")
    with pytest.raises(CheckpointError, match="no language reward head"):
        load_scorer("r3m", tmp_path / "stripped.pt", "cpu", vocabulary=vocabulary)
    with pytest.raises(SettingError, match=r"the first frame is \[32, 64\] px"):
        scorer(FRAMES[None], Task("close the door", first_frame=FRAMES[0, :32]))
    vocabulary.write_text("\n".join(f"word{i}" for i in range(99)) + "\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(CheckpointError, match="vocabulary of another model"):
        load_scorer("r3m", path, "cpu", vocabulary=vocabulary)


def test_weights_are_read_nested_or_flat_with_a_prefix_or_without(tmp_path: Path) -> None:
    network = random_vip()
    plain = network.state_dict()
    prefixed = nested(network, "vip")["vip"]
    shapes = [
        {"vip": plain},
        {"vip": prefixed},
        plain,
        prefixed,
        {"state_dict": prefixed, "epoch": 3},
    ]
    for number, content in enumerate(shapes):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        loaded = VIPNetwork.of(read_weights(path)).state_dict()
        assert all(torch.equal(loaded[name], plain[name]) for name in plain)


def test_a_file_of_another_architecture_is_named(files: Any, tmp_path: Path) -> None:
    for name, other in (("clip", "vip"), ("vip", "clip"), ("liv", "vip"), ("roboclip", "clip")):
        with pytest.raises(CheckpointError, match="another architecture"):
            load_scorer(name, files[other][0], "cpu", **files[name][1])
    wide = VIPNetwork(18, 24).state_dict()
    wide["convnet.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    torch.save(wide, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match=r"conv1.weight is \(64, 4, 7, 7\) instead of"):
        load_scorer("vip", tmp_path / "wide.pt", "cpu")


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "ViT-B-32.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(archive)
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        read_weights(archive)
    damaged = tmp_path / "half.pt"
    damaged.write_bytes(b"PK" + bytes(50))
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(damaged)
    whole = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), whole)  # a module is code
    with pytest.raises(
        CheckpointError, match="more than tensors.*Unsupported global.*get it anew"
    ) as told:
        read_weights(whole)
    assert "weights_only" not in str(told.value)  # torch's advice is to run the code of the file
    whole.write_text("<!DOCTYPE html><html>Too many have viewed this file</html>")
    with pytest.raises(CheckpointError, match="get it anew") as told:
        read_weights(whole)
    assert "weights_only" not in str(told.value)
    torch.save({"epoch": 3}, whole)
    with pytest.raises(CheckpointError, match="does not hold weights by name"):
        read_weights(whole)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        read_weights(tmp_path / "nothing.pt")


def test_openais_weights_want_their_activation(files: Any, tmp_path: Path) -> None:
    content = torch.load(files["clip"][0])
    torch.save({**content, "input_resolution": torch.tensor(32)}, tmp_path / "openai.pt")
    with pytest.raises(CheckpointError, match="'tiny-clip-vit-quickgelu'"):
        load_scorer("clip", tmp_path / "openai.pt", "cpu", **CLIP_MODEL)


def test_files_are_looked_for_and_missing_ones_say_where_to_get_them(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(official.FOLDER_VARIABLE, raising=False)
    with pytest.raises(CheckpointError, match="hf.co/jasonyma/LIV"):
        load_scorer("liv", device="cpu", **LIV_MODEL)
    with pytest.raises(CheckpointError, match="no file at"):
        load_scorer("liv", tmp_path / "away.pt", "cpu", **LIV_MODEL)
    monkeypatch.setenv(official.FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "liv.pt").symlink_to(files["liv"][0])
    assert load_scorer("liv", device="cpu", **LIV_MODEL).n_frames == 8
    (tmp_path / ".vip" / "resnet50").mkdir(parents=True)
    (tmp_path / ".vip" / "resnet50" / "model.pt").symlink_to(files["vip"][0])
    assert load_scorer("vip", device="cpu").n_frames == 8


def test_every_official_file_belongs_to_a_scorer() -> None:
    assert {each.scorer for each in OFFICIAL_FILES} == set(SCORERS) - {"vlp"}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'roboclip'"):
        load_scorer("robo-clip")
    with pytest.raises(UnknownNameError, match="other tokens than CLIP's own"):
        random_clip("ViT-B-16-SigLIP")
    with pytest.raises(UnknownNameError, match="open_clip config"):
        random_clip("ViT-B-17")


def test_settings_of_a_command_line() -> None:
    words = ["alpha=0.5", "model=RN50", 'targets=["a", "b"]', "baseline=a robot"]
    settings = {"alpha": 0.5, "model": "RN50", "targets": ["a", "b"], "baseline": "a robot"}
    assert parse_settings(words) == settings


@pytest.mark.parametrize("name", NAMES)
def test_a_single_clip_is_not_taken_for_several(files: Any, name: str) -> None:
    path, settings = files[name]
    scorer = load_scorer(name, path, "cpu", **settings)
    for frames in (FRAMES[None, :0], FRAMES[None][:0]):
        with pytest.raises(SettingError, match=r"expected clips \[clips, frames"):
            scorer(frames, TASK)
    with pytest.raises(SettingError, match=r"one clip is clip\[None\]"):
        check_clips(FRAMES)


def test_frames_are_drawn_so_large_that_nothing_is_resized(files: Any) -> None:
    sizes = {n: load_scorer(n, p, "cpu", **s).image_size_px for n, (p, s) in files.items()}
    assert sizes == {"clip": 32, "vlmrm": 32, "vip": 256, "liv": 64, "roboclip": (64, 64)}


def test_target_and_baseline_must_differ(files: Any) -> None:
    path, settings = files["vlmrm"]
    scorer = load_scorer("vlmrm", path, "cpu", **settings)
    for refuses in (scorer.check, lambda task: scorer(FRAMES[None], task)):
        with pytest.raises(InstructionError, match="target and baseline are both 'a robot'"):
            refuses(Task("a robot", "a robot"))
    with pytest.raises(SettingError, match="from a baseline to the target"):
        scorer(FRAMES[None], Task("a robot"))
    cosine = load_scorer("vlmrm", path, "cpu", **CLIP_MODEL)  # alpha 0
    assert np.isfinite(cosine(FRAMES[None], Task("a robot"))).all()
    with pytest.raises(InstructionError, match="target and baseline are both"):
        cosine.check(Task("a robot", "a robot"))
    with pytest.raises(SettingError, match=r"alpha must lie in \[0, 1\]"):
        load_scorer("vlmrm", path, "cpu", **{**settings, "alpha": 1.5})


def test_prompts_are_read_as_they_are(files: Any) -> None:
    scorer = load_scorer("clip", files["clip"][0], "cpu", **CLIP_MODEL)
    with pytest.raises(InstructionError, match="no words"):
        scorer(FRAMES[None], Task("  "))
    with pytest.raises(InstructionError, match="tokens, this model reads 77"):
        scorer(FRAMES[None], Task(" ".join(["counterrevolutionaries"] * 40)))


def test_pictures_of_the_goal_are_not_left_unseen(files: Any) -> None:
    path, settings = files["liv"]
    with pytest.raises(SettingError, match="goal='image', or leave them out"):
        load_scorer("liv", path, "cpu", goal_images=[FRAMES[0]], **settings)


@pytest.mark.parametrize("name", ["vip", "liv"])
def test_goal_images_are_those_of_the_frames(files: Any, name: str, tmp_path: Path) -> None:
    path, settings = files[name]
    image = {"goal": "image"} if name == "liv" else {}
    scorer = load_scorer(name, path, "cpu", **settings, **image)
    for refuses in (
        lambda: scorer(FRAMES[None], Task("close")),
        lambda: scorer.check(Task("close")),
    ):
        with pytest.raises(SettingError, match="pictures of the goal"):
            refuses()
    with pytest.raises(SettingError, match=r"a goal image is \[32, 64\] px"):
        scorer(FRAMES[None], Task("close", goal_image=FRAMES[0, :32]))
    best = scorer(FRAMES[None], Task("close", goal_image=FRAMES[2]))[0]
    assert best.argmax() == 2
    from PIL import Image

    Image.fromarray(FRAMES[2]).save(tmp_path / "goal.png")
    named = load_scorer(
        name, path, "cpu", goal_images=[str(tmp_path / "goal.png")], **settings, **image
    )
    np.testing.assert_allclose(named(FRAMES[None], Task("close"))[0], best, rtol=1e-5)
    with pytest.raises(SettingError, match="not an image"):
        load_scorer(name, path, "cpu", goal_images=[str(path)], **settings, **image)(
            FRAMES[None], Task("close")
        )


def test_one_sentence_picture_or_video_needs_no_list(files: Any, tmp_path: Path) -> None:
    """A command line names one without brackets; its letters are no prompts and no files."""
    import imageio.v3 as imageio

    picture, video = str(tmp_path / "goal.png"), tmp_path / "demo.gif"
    imageio.imwrite(picture, FRAMES[2])
    imageio.imwrite(video, FRAMES, loop=0)
    for name, setting, one in (
        ("vlmrm", "targets", "closing the drawer"),
        ("vip", "goal_images", picture),
        ("liv", "goal_images", picture),
        ("roboclip", "demonstrations", video),
    ):
        path, settings = files[name]
        settings = {**settings, "goal": "image"} if name == "liv" else settings
        alone, listed = (
            load_scorer(name, path, "cpu", **settings, **{setting: given}) for given in (one, [one])
        )
        task = Task("anything", "drawer")
        np.testing.assert_array_equal(alone(FRAMES[None], task), listed(FRAMES[None], task))
        assert alone.identity == listed.identity


@pytest.mark.parametrize("name", ["vip", "liv", "roboclip"])
def test_an_empty_list_is_not_taken_for_none(files: Any, name: str) -> None:
    path, settings = files[name]
    setting = "demonstrations" if name == "roboclip" else "goal_images"
    with pytest.raises(SettingError, match="an empty list"):
        load_scorer(name, path, "cpu", **settings, **{setting: []})


@pytest.mark.parametrize("name", NAMES)
def test_the_identity_is_of_all_that_scores_depend_on(
    files: Any, name: str, tmp_path: Path
) -> None:
    from PIL import Image

    path, settings = files[name]
    image = str(tmp_path / "goal.png")
    Image.fromarray(FRAMES[2]).save(image)
    pictures = {"goal": "image", "goal_images": [image], "metric": "l2"}
    video = {"demonstrations": [FRAMES], "crop_px": 32, "crop_demonstrations": True}
    changes: dict[str, list[dict[str, Any]]] = {
        "clip": [{"fit": "squash"}],
        "vlmrm": [{"alpha": 1.0}, {"baseline": "drawer"}, {"targets": ["a"]}, {"antialias": False}],
        "vip": [{"goal_images": [FRAMES[2]]}],
        "liv": [pictures, {**pictures, "metric": "cosine"}],
        "roboclip": [video, {**video, "crop_demonstrations": False}, {"value_range": "released"}],
    }
    made = [load_scorer(name, path, "cpu", **{**settings, **each}) for each in [{}, *changes[name]]]
    assert len({each.identity for each in made}) == len(made)
    assert all(each.identity.startswith(f"{each.name} {{") for each in made)
    if name == "vip":  # told by what is on a picture, not by how it came or is called
        (same, other) = (load_scorer(name, path, "cpu", goal_images=[image]) for _ in range(2))
        assert same.identity == made[1].identity
        Image.fromarray(FRAMES[1]).save(image)
        assert other.identity != made[1].identity


def test_two_alphas_share_a_store_and_no_score(files: Any, tmp_path: Path) -> None:
    path, settings = files["vlmrm"]
    pairs = make_pairs(n_pairs=2, task=Task("closing the drawer", "drawer"))
    scores = []
    for alpha in (0.0, 1.0):
        scorer = load_scorer("vlmrm", path, "cpu", **{**settings, "alpha": alpha, "n_frames": 2})
        labeler = ScoreLabeler(scorer, NamedScene(), store=LabelStore(tmp_path / "scores.sqlite"))
        scores.append(labeler(pairs).extra["first_score"])
        assert labeler.store is not None and len(labeler.store) == 4 * len(scores)
        np.testing.assert_array_equal(
            scores[-1], ScoreLabeler(scorer, NamedScene())(pairs).extra["first_score"]
        )
    assert not np.isclose(*scores).any()


def test_half_precision_is_refused_where_it_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == resolve_precision("float32", cpu) == torch.float32
    assert resolve_precision("auto", torch.device("cuda")) == torch.bfloat16
    monkeypatch.setattr(
        "vlp_gym.models.device._cpu_computes", lambda precision: precision == "float32"
    )
    for precision in ("bfloat16", "float16"):
        with pytest.raises(SettingError, match="does not compute with"):
            resolve_precision(precision, cpu)
    with pytest.raises(SettingError, match="precision must be auto or one of"):
        resolve_precision("half", cpu)


@pytest.mark.parametrize("name", ["vip", "liv"])
@pytest.mark.parametrize("role", ["reward", "labeler"])
def test_a_goal_of_another_size_is_refused_before_an_env_is_stepped(
    name: str, role: str, files: Any
) -> None:
    path, settings = files[name]
    image = {"goal": "image"} if name == "liv" else {}
    side = {"vip": 256, "liv": 64}[name]
    for wrong in (0, 1):
        goal = np.zeros((side + wrong, side, 3), np.uint8)
        scorer = {**settings, **image, "goal_images": [goal]}
        asked: dict[str, Any] = {
            role: name,
            "checkpoint": str(path),
            "device": "cpu",
            "scorer": scorer,
        }
        if wrong:
            with pytest.raises(SettingError, match="nothing is resized in silence"):
                gym.make("vlp/DoorClose", **asked)
        else:
            gym.make("vlp/DoorClose", **asked).close()
