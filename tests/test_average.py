"""The mean of several trainings: what it is, and of what there is none."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_training import (  # noqa: F401  fixtures are found by their names
    config,
    tiny_cache,
    tiny_data,
    tiny_split,
)
from tests.tiny_vlp import SIZE_PX, tiny_config
from vlp_gym.cli import main
from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.vlp import VLP
from vlp_gym.training.average import average
from vlp_gym.training.trainer import train
from vlp_gym.types import View


@pytest.fixture
def trainings(data: Path, cache: Path, tmp_path: Path) -> list[Path]:
    """Two trainings that differ in the order of their batches alone."""
    return [train(config(data, cache, tmp_path / str(n), steps=3, order=n)) for n in range(2)]


def test_the_mean_is_of_every_weight(trainings: list[Path], tmp_path: Path) -> None:
    main(["average", *map(str, trainings), "--out", str(tmp_path / "mean")])
    one, other, mean = (
        load_file(each / "model.safetensors") for each in (*trainings, tmp_path / "mean")
    )
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert len(differing) > 20
    for name in one:
        expected = (one[name].double() + other[name].double()) / 2
        torch.testing.assert_close(mean[name].double(), expected, rtol=1e-3, atol=1e-6)
    checkpoint = Checkpoint.from_pretrained(tmp_path / "mean")
    assert checkpoint.training["steps"] == 6
    assert [each["order"] for each in checkpoint.training["average_of"]] == [0, 1]
    assert (
        checkpoint.training["train_tasks"]
        == (Checkpoint.from_pretrained(trainings[0]).training["train_tasks"])
    )
    assert (
        checkpoint.training["words"] == Checkpoint.from_pretrained(trainings[1]).training["words"]
    )
    assert "a mean of 2 trainings" in (tmp_path / "mean" / "README.md").read_text()


def test_the_mean_of_a_training_and_itself_scores_as_it_does(trainings: list[Path]) -> None:
    one = Checkpoint.from_pretrained(trainings[1])
    mean = average([one, one, one])
    size = one.model.config.image_size_px
    frames = torch.randint(0, 255, (2, one.model.config.n_frames, size, size, 3), dtype=torch.uint8)
    tokens = torch.stack([one.model.encoders.tokenize("open the door")] * 2)
    scores = [
        each.model.score(
            each.model.read_video(each.model.see(frames)), each.model.read_words(tokens)
        )
        for each in (one, mean)
    ]
    np.testing.assert_allclose(scores[0].detach(), scores[1].detach(), rtol=1e-4, atol=1e-5)


def test_the_mean_knows_no_words_where_one_training_does_not_say_its_own(
    trainings: list[Path],
) -> None:
    one, older = (Checkpoint.from_pretrained(each) for each in trainings)
    assert {"open", "door"} <= set(one.training["words"])
    del older.training["words"]
    assert average([one, older]).training["words"] == []


def test_the_bundled_model_goes_by_its_name(tmp_path: Path) -> None:
    main(["average", "bundled", "bundled", "--out", str(tmp_path / "mean")])
    bundled, mean = (Checkpoint.from_pretrained(each) for each in (None, tmp_path / "mean"))
    assert mean.model.config == bundled.model.config
    assert mean.training["average_of"] == [bundled.training] * 2
    weights = bundled.model.state_dict()
    for name, weight in mean.model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-6)


def test_the_mean_may_have_another_margin(trainings: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    main(["average", *map(str, trainings), "--out", str(out), "--match-margin", "3.5"])
    without = average([Checkpoint.from_pretrained(each) for each in trainings])
    changed = Checkpoint.from_pretrained(out)
    assert changed.model.config == dataclasses.replace(without.model.config, match_margin=3.5)
    weights = without.model.state_dict()
    for name, weight in changed.model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("margin", "match_width"), [(float("nan"), 8), (2.0, 0)])
def test_a_margin_is_a_number_and_of_a_match(margin: float, match_width: int) -> None:
    model = VLP(tiny_config(match_width=match_width))
    one = Checkpoint(model, View("corner4", SIZE_PX), 16, {})
    with pytest.raises(CheckpointError, match="finite number, of models that have a match"):
        average([one, one], margin)


def test_a_checkpoint_and_what_went_on_from_it_have_a_mean(
    trainings: list[Path], data: Path, cache: Path, tmp_path: Path
) -> None:
    first, other = trainings
    further = train(config(data, cache, tmp_path / "on", base=str(first), steps=2, seed=7))
    mean = average([Checkpoint.from_pretrained(each) for each in (first, further)])
    assert mean.training["seed"] == 0, "that of the weights that both began with"
    again = average([mean, Checkpoint.from_pretrained(other)])
    assert len(again.training["average_of"]) == 2


def test_what_began_differently_has_no_mean(trainings: list[Path]) -> None:
    one, other = (Checkpoint.from_pretrained(each) for each in trainings)
    with pytest.raises(CheckpointError, match="two checkpoints or more"):
        average([one])
    for name, value in (("seed", 5), ("split", "ml45"), ("start", "another.safetensors")):
        changed = dataclasses.replace(other, training={**other.training, name: value})
        with pytest.raises(CheckpointError, match=f"different {name}.*vary --order"):
            average([one, changed])
    with pytest.raises(CheckpointError, match="differ in their model, view or stride"):
        average([one, dataclasses.replace(other, frame_stride=3)])
    with torch.no_grad():
        other.model.encoders.clip.token_embedding.weight.add_(1.0)
    with pytest.raises(CheckpointError, match="files of one name"):
        average([one, other])
