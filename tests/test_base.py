"""A training that goes on with a whole checkpoint: what stays, what is said of it, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

import vlp_gym
from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    TEST,
    TRAIN,
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from tests.tiny_vlp import tiny_config
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.tasks.splits import SPLITS, Split
from vlp_gym.training.average import average
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.trainer import train


def test_a_training_goes_on_from_a_whole_checkpoint(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    base = train(config(data, cache, tmp_path / "base"))
    still = {"lr": 1e-12, "match_lr": 1e-12, "weight_decay": 0.0, "steps": 2, "seed": 5}
    same = train(config(data, cache, tmp_path / "same", base=str(base), **still))
    before, after = (Checkpoint.from_pretrained(each) for each in (base, same))
    trained = dict(after.model.named_parameters())
    for name, value in before.model.named_parameters():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-6, msg=name)
    further = Checkpoint.from_pretrained(
        train(config(data, cache, tmp_path / "further", base=str(base), steps=2))
    )
    assert not torch.equal(
        further.model.state_dict()["score_head.0.weight"],
        before.model.state_dict()["score_head.0.weight"],
    )
    assert further.training["base"] == before.training
    assert further.training["train_tasks"] == list(TRAIN)
    assert further.training["versions"]["vlp-gym"] == vlp_gym.__version__
    assert further.training["batch"]["windows"] == 3


def test_what_goes_on_from_an_older_model_reads_its_match_as_that_does(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    base = train(config(data, cache, tmp_path / "base", steps=1))
    card = base / "config.json"
    settings = json.loads(card.read_text())
    for name in ("match_margin", "match_sharpness", "match_floor"):
        del settings["model"][name]  # as models before them have none
    card.write_text(json.dumps(settings))
    further = train(config(data, cache, tmp_path / "further", base=str(base), steps=1))
    before, after = (Checkpoint.from_pretrained(each) for each in (base, further))
    mean = average([before, after])
    for each in (before, after, mean):
        read = each.model.config
        assert (read.match_margin, read.match_sharpness, read.match_floor) == (0.0, 1.0, 0.0)


def test_a_base_that_does_not_fit_or_knows_a_test_task_is_refused(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(train(config(data, cache, tmp_path / "base", steps=1)))
    with pytest.raises(CheckpointError, match="--model"):
        train(config(data, cache, tmp_path / "wide", base=base, model=tiny_config(width=32)))
    with pytest.raises(CheckpointError, match="--grid"):
        train(config(data, cache, tmp_path / "slow", base=base, grid=FrameGrid(stride=4)))
    with pytest.raises(CheckpointError, match="expected a folder"):
        train(config(data, cache, tmp_path / "none", base=str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="leave one of them out"):
        config(data, cache, tmp_path / "both", base=base, start=tmp_path / "start.safetensors")
    monkeypatch.setitem(SPLITS, "turned", Split(TEST, TRAIN))
    with pytest.raises(
        CheckpointError, match="trained on DoorOpen, DrawerOpen, WindowClose, test tasks"
    ):
        train(config(data, cache, tmp_path / "leak", base=base, split="turned"))
