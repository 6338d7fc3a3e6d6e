"""The mean of several trainings as one model: a soup (Wortsman et al., 2022, arXiv 2203.05482)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from vlp_gym.errors import CheckpointError, SettingError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.vlp import VLP
from vlp_gym.training.run import shown_in

SAME = ("split", "start", "seed")
"""What trainings have in common whose mean is a model: test tasks, and the weights that they began with."""


@dataclass(frozen=True)
class AverageConfig:
    """Which trainings to average."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `vlp train` wrote; "bundled" is the bundled model."""
    out: Path = Path("runs/average")
    """Folder of the mean."""
    match_margin: float | None = None
    """Another margin for the mean than theirs, see `VLPConfig.match_margin`: it needs no training, and can be chosen on
    tasks held out (`--split paper-dev`)."""


def average_command(config: AverageConfig) -> Path:
    """Write the mean of the weights of several trainings as a checkpoint; return its folder.

    Errors of single trainings that begin with the same weights differ and may cancel out, at no cost when the model is
    used; judge the mean beside its parts. Vary `--order`, the steps, the data or the losses, and keep `--seed` and
    `--start`. A checkpoint and what went on from it (`--base`) begin alike, too.

    Raises:
        CheckpointError: fewer than two, or such as have not begun alike; or one is missing or damaged; or a margin that
            they cannot have.
    """
    found = [Checkpoint.from_pretrained(each) for each in config.checkpoints]
    return average(found, config.match_margin).save_pretrained(config.out)


def average(checkpoints: Sequence[Checkpoint], match_margin: float | None = None) -> Checkpoint:
    """Return a checkpoint whose weights are the mean of those of `checkpoints`; errors as of `average_command`.

    Args:
        checkpoints: two or more.
        match_margin: margin of the mean, see `VLPConfig.match_margin`; None: theirs.
    """
    if len(checkpoints) < 2:
        raise CheckpointError(f"an average is of two checkpoints or more, got {len(checkpoints)}")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _check_alike(first, other)
    states = [each.model.state_dict() for each in checkpoints]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    settings = first.model.config
    if match_margin is not None:
        try:
            settings = settings.with_margin(match_margin)
        except SettingError as error:
            raise CheckpointError(str(error)) from error
    model = VLP(settings)
    model.load_state_dict(mean)
    place = first.model.place.device
    training = _training([each.training for each in checkpoints])
    return Checkpoint(model.eval().to(place), first.view, first.frame_stride, training)


def _check_alike(one: Checkpoint, other: Checkpoint) -> None:
    shapes = (one.model.config, one.view, one.frame_stride)
    if shapes != (other.model.config, other.view, other.frame_stride):
        raise CheckpointError(
            "these checkpoints differ in their model, view or stride of frames, so they have no mean"
        )
    for name in SAME:
        mine, others = (_beginning(each.training).get(name) for each in (one, other))
        if mine != others:
            raise CheckpointError(
                f"these trainings have different {name} ({mine!r} and {others!r}); only models that began with the "
                "same weights, for the same split, have a mean that works: vary --order, not --seed"
            )
    table = "encoders.clip.token_embedding.weight"  # never trained
    if not torch.equal(one.model.state_dict()[table], other.model.state_dict()[table]):
        raise CheckpointError(
            "the encoders of these trainings began with different weights, in files of one name; only models that "
            "began alike have a mean that works"
        )


def _beginning(training: dict[str, Any]) -> dict[str, Any]:
    """Return the training that began with new weights: what a checkpoint's own, or the base of it, goes back to."""
    base: dict[str, Any] | None = training.get("base")
    return training if base is None else _beginning(base)


def _training(trainings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    text = json.dumps(list(trainings), sort_keys=True)
    return {
        **{name: _beginning(trainings[0]).get(name) for name in SAME},
        **shown_in(trainings),  # the mean was shown what any of them was
        "fingerprint": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        "steps": sum(each.get("steps", 0) for each in trainings),
        "seconds": round(sum(each.get("seconds", 0.0) for each in trainings), 1),
        "average_of": list(trainings),
    }
