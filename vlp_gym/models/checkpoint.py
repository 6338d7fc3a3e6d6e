"""A VLP checkpoint on disk: a folder with weights, everything needed to use them rightly, and a model card."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.errors import CheckpointError
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.types import View

FORMAT = 1
KIND = "vlp"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BUNDLED = Path(__file__).parent.parent / "assets" / "vlp-compact"
"""The checkpoint that the package ships."""

_HALF = (
    "encoders.clip.token_embedding.weight"  # two thirds of a compact model; kept in half precision
)


@dataclass(frozen=True)
class Checkpoint:
    """A preference model and what belongs to its weights.

    Attributes:
        model: the network, in evaluation mode.
        view: how its frames are drawn.
        frame_stride: steps between the frames that it was trained on.
        training: where it comes from: data fingerprints, split, recipe, commit; plain JSON.
    """

    model: VLP
    view: View
    frame_stride: int
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, card: str) -> None:
    """Write a checkpoint; each file appears whole or not at all, the config last."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in checkpoint.model.state_dict().items()
    }
    weights[_HALF] = weights[_HALF].half()
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    atomic_write_text(folder / CARD, card)
    config = {
        "kind": KIND,
        "format": FORMAT,
        "model": asdict(checkpoint.model.config),
        "view": asdict(checkpoint.view),
        "frame_stride": checkpoint.frame_stride,
        "training": checkpoint.training,
    }
    atomic_write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def load_checkpoint(folder: Path | str | None = None, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: what `vlp train` wrote; None is the bundled model. Nothing is ever fetched.
        device: where the network goes.

    Raises:
        CheckpointError: missing, damaged, of another kind or of a newer format; the message says what to do.
    """
    folder = BUNDLED if folder is None else Path(folder)
    config = _read_config(folder)
    try:
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config["model"].items()
        }
        model, view = VLP(VLPConfig(**sizes)), View(**config["view"])
        stride = int(config["frame_stride"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a VLP model ({error})"
        ) from error
    if view.size_px != model.config.image_size_px:
        raise CheckpointError(
            f"{folder / CONFIG} draws {view.size_px} px frames for a model that reads {model.config.image_size_px} px"
        )
    try:
        weights = load_file(folder / WEIGHTS)
        model.load_state_dict(
            {
                name: value.float() if value.is_floating_point() else value
                for name, value in weights.items()
            }
        )
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has a config but no {WEIGHTS}; copy the whole folder"
        ) from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"the weights in {folder / WEIGHTS} are damaged or of another model: {error}"
        ) from error
    return Checkpoint(
        model.eval().to(torch.device(device)), view, stride, config.get("training", {})
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"no VLP checkpoint at {folder}: expected a folder with {CONFIG} and {WEIGHTS}, as `vlp train` writes it; "
            "leave the checkpoint out to use the bundled one"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} is not JSON ({error}); the checkpoint is damaged"
        ) from error
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise CheckpointError(f"{folder / CONFIG} is not the config of a VLP checkpoint")
    if config.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a newer vlp-gym (format {config['format']}); upgrade to read it"
        )
    return config
