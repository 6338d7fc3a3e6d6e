"""Checkpoints: what is saved comes back, and what is damaged says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_vlp import SIZE_PX, tiny_checkpoint, tiny_model
from vlp_gym.errors import CheckpointError, InstructionError
from vlp_gym.models.card import model_card
from vlp_gym.models.checkpoint import BUNDLED_FOLDER, PRESETS, Checkpoint
from vlp_gym.scorers import load_scorer
from vlp_gym.tasks.metaworld import CAMERAS
from vlp_gym.types import Task

CLOSE = Task("close the door")


def some_clips(n_clips: int = 3) -> np.ndarray:
    shape = (n_clips, 3, SIZE_PX, SIZE_PX, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_loaded_model_scores_as_the_saved_one(tmp_path: Path) -> None:
    loaded = Checkpoint.from_pretrained(tiny_checkpoint(tmp_path / "c")).model
    model = tiny_model()
    words = torch.stack([model.encoders.tokenize("close the door")] * 3)
    clips = torch.from_numpy(some_clips())
    # The token table is kept in half precision.
    torch.testing.assert_close(loaded(clips, words), model(clips, words), rtol=1e-2, atol=1e-3)


def test_saving_what_was_loaded_changes_nothing(tmp_path: Path) -> None:
    first = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    second = load_scorer("vlp", tmp_path / "c", device="cpu")
    np.testing.assert_array_equal(first(some_clips(), CLOSE), second(some_clips(), CLOSE))


def test_the_scorer_gives_one_score_a_clip_and_does_not_mix_clips(tmp_path: Path) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    scores = scorer(some_clips(), CLOSE)
    assert scores.shape == (3, 1) and scores.dtype == np.float32
    np.testing.assert_allclose(
        scorer(some_clips()[::-1], CLOSE), scores[::-1], rtol=1e-4, atol=1e-6
    )


def test_the_scorer_reads_in_blocks_what_the_model_reads_at_once(tmp_path: Path) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    model = Checkpoint.from_pretrained(tmp_path / "c").model
    clips = some_clips(13)  # more than two blocks
    words = torch.stack([model.encoders.tokenize(CLOSE.instruction)] * len(clips))
    with torch.no_grad():
        at_once = model(torch.from_numpy(clips), words)[:, None].numpy()
    np.testing.assert_allclose(scorer(clips, CLOSE), at_once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "clips",
    [np.zeros((1, 3, 16, 16, 3), np.uint8), np.zeros((1, 3, SIZE_PX, SIZE_PX, 3), np.float32)],
)
def test_clips_of_wrong_size_or_range_are_refused(tmp_path: Path, clips: np.ndarray) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    with pytest.raises(Exception, match=r"uint8|UInt8"):
        scorer(clips, CLOSE)


@pytest.mark.parametrize("clips", [[], np.zeros((0, 3, SIZE_PX, SIZE_PX, 3), np.uint8), None])
def test_what_is_no_clip_is_refused(tmp_path: Path, clips: Any) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    with pytest.raises(Exception, match=r"expected|UInt8"):
        scorer(clips, CLOSE)


@pytest.mark.parametrize("sentence", ["", " \n", "12 !", "关上门", "закрой дверь"])
def test_what_is_no_english_sentence_is_refused(tmp_path: Path, sentence: str) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    with pytest.raises(InstructionError, match="close the door"):
        scorer(some_clips(1), Task(sentence))


def test_a_checkpoint_that_does_not_say_its_words_knows_of_no_unknown_ones(tmp_path: Path) -> None:
    scorer = load_scorer("vlp", tiny_checkpoint(tmp_path / "c"), device="cpu")
    assert scorer.unknown_words("obfuscate the door") == []


def test_a_model_from_before_there_was_an_aim_has_none(tmp_path: Path) -> None:
    saved = Checkpoint.from_pretrained(tiny_checkpoint(tmp_path, aim=False)).model
    path = tmp_path / "config.json"
    about = json.loads(path.read_text())
    del about["model"]["aim"]
    path.write_text(json.dumps(about))
    assert Checkpoint.from_pretrained(tmp_path).model.config == saved.config
    assert saved.aim is None


def test_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave the checkpoint out"):
        Checkpoint.from_pretrained(tmp_path / "nowhere")


def test_cut_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "c")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.from_pretrained(folder)


def test_weights_without_their_file_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "c")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="copy the whole folder"):
        Checkpoint.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "newer"),
        ({"format": "2"}, "format '2', expected a whole number"),
        ({"format": 0}, "format 0, expected a whole number"),
        ({"training": None}, "training must be a JSON object"),
        ({"model": None}, "model must be a JSON object"),
        ({"view": ["corner4", SIZE_PX]}, "view must be a JSON object"),
        ({"frame_stride": -3}, "frame_stride must be a whole number of 1 or more, got -3"),
        ({"frame_stride": 0}, "got 0"),
        ({"frame_stride": 16.5}, "got 16.5"),
        ({"kind": "gpt"}, "not the config of a VLP"),
        ({"model": {"width": "wide", "colour": 3}}, "does not describe"),
        ({"model": {"match_floor": 2.0}}, "does not describe"),
        ({"model": {"heads": 5}}, "width 96 must be a multiple of heads, 5"),
        ({"model": {"stages": [99]}}, "does not describe"),
        ({"model": {"clip": "ViT-B-16-SigLIP"}}, "not CLIP's own"),
        ({"view": {"camera": "corner4", "size_px": 64}}, "64 px"),
        ({"view": {"camera": "corner9", "size_px": SIZE_PX}}, "did you mean 'corner"),
        ({"view": {"camera": "corner", "size_px": SIZE_PX, "preset": "slow"}}, "unknown drawing"),
    ],
)
def test_a_foreign_config_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.from_pretrained(folder)


@pytest.mark.parametrize("part", ["model", "view", "frame_stride"])
def test_a_config_without_one_of_its_parts_is_refused(tmp_path: Path, part: str) -> None:
    path = tiny_checkpoint(tmp_path) / "config.json"
    about = json.loads(path.read_text())
    del about[part]
    path.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=f"does not say its '{part}'"):
        Checkpoint.from_pretrained(tmp_path)


def test_a_checkpoint_may_name_the_cameras_and_presets_that_there_are() -> None:
    from vlp_gym.scenes.metaworld import make_sawyer
    from vlp_gym.scenes.renderer import FREE
    from vlp_gym.scenes.renderer import PRESETS as DRAWN

    model = make_sawyer("Reach").model
    assert {*CAMERAS} == {model.camera(i).name for i in range(model.ncam)} | {FREE}
    assert {*PRESETS} == {*DRAWN}


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "c")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        Checkpoint.from_pretrained(folder)


def test_the_bundled_checkpoint_is_small_and_never_saw_the_test_tasks() -> None:
    from vlp_gym.tasks.splits import SPLITS

    assert sum(file.stat().st_size for file in BUNDLED_FOLDER.iterdir()) <= 40e6
    training = Checkpoint.from_pretrained().training
    assert not set(training["train_tasks"]) & set(SPLITS["paper"].test)
    assert len(training["train_tasks"]) == 45


def test_the_bundled_card_is_of_the_bundled_model() -> None:
    assert (BUNDLED_FOLDER / "README.md").read_text() == model_card(Checkpoint.from_pretrained())


def test_a_folder_may_be_named_as_open_clip_names_it(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "c")
    plain, named = (Checkpoint.from_pretrained(s) for s in (folder, f"local-dir:{folder}"))
    assert plain.training == named.training


def test_what_is_saved_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    first = tiny_checkpoint(tmp_path / "first")
    second = Checkpoint.from_pretrained(first).save_pretrained(tmp_path / "second")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing@v1", "not a name", ""])
def test_a_hub_that_does_not_answer_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="name its path"):
        Checkpoint.from_pretrained(f"hf-hub:{name}")


def test_a_checkpoint_comes_out_of_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The layout of huggingface_hub's cache: refs name a commit, snapshots hold its files.
    repo, commit = tmp_path / "models--me--vlp", "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    tiny_checkpoint(repo / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert Checkpoint.from_pretrained("hf-hub:me/vlp").training["train_tasks"] == ["DoorOpen"]


def test_a_push_uploads_the_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: dict[str, bytes] = {}
    made: dict[str, object] = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            made["token"] = token

        def create_repo(self, repo_id: str, **options: object) -> None:
            made[repo_id] = options

        def upload_folder(self, repo_id: str, folder_path: Path) -> str:
            uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    folder = tiny_checkpoint(tmp_path / "c")
    address = Checkpoint.from_pretrained(folder).push_to_hub("me/vlp", token="secret")
    assert address == "https://hub/me/vlp"
    assert made == {"token": "secret", "me/vlp": {"private": True, "exist_ok": True}}
    assert uploaded == {path.name: path.read_bytes() for path in folder.iterdir()}
