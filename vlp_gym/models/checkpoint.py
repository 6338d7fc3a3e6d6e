"""A VLP checkpoint on disk: a folder with weights, everything needed to use them rightly, and a model card."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vlp_gym.atomic import atomic_path, atomic_write_text
from vlp_gym.errors import CheckpointError, UnknownNameError
from vlp_gym.models.card import model_card
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.tasks.metaworld import CAMERAS
from vlp_gym.types import View

FORMAT = 1
ABSENT = {"aim": False, "match_margin": 0.0, "match_sharpness": 1.0, "match_floor": 0.0}
"""What is so in a model of an older version, whose config does not say it."""
PRESETS = ("exact", "fast", "draft")
"""At which quality frames are drawn, see `vlp_gym.scenes.renderer.PRESETS`."""
KIND = "vlp"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BUNDLED = "bundled"
"""How the checkpoint that the package ships is named; so is none at all."""
BUNDLED_FOLDER = Path(__file__).parent.parent / "assets" / "vlp-compact"
"""Where it is."""

_HALF = (
    "encoders.clip.token_embedding.weight"  # two thirds of a compact model; kept in half precision
)


LOCAL, HUB = "local-dir:", "hf-hub:"
"""How a checkpoint is named beside a plain path; `hf-hub:OWNER/NAME` or `hf-hub:OWNER/NAME@REVISION`."""


@dataclass(frozen=True)
class Checkpoint:
    """A preference model and what belongs to its weights.

    Attributes:
        model: the network, in evaluation mode.
        view: how its frames are drawn.
        frame_stride: steps between the frames that it was trained on.
        training: where it comes from: data fingerprints, split, recipe, versions; plain JSON.
    """

    model: VLP
    view: View
    frame_stride: int
    training: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_pretrained(cls, source: Path | str | None = None, device: str = "cpu") -> "Checkpoint":
        """Read a checkpoint.

        Args:
            source: a folder that `vlp train` or `save_pretrained` wrote, with or without `local-dir:`; or
                `hf-hub:OWNER/NAME[@REVISION]`, which is fetched because you ask for it; None or "bundled" is the model
                that the package ships.
            device: where the network goes.

        Raises:
            CheckpointError: missing, damaged, of another kind or of a newer format; the message says what to do.
        """
        folder = find_checkpoint(source)
        config = _read_config(folder)
        model, view, stride, training = _described(folder, config)
        _load_weights(model, folder)
        return cls(model.eval().to(torch.device(device)), view, stride, training)

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write weights, model card and config; each file appears whole or not at all, the config last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: value.detach().cpu().contiguous()
            for name, value in self.model.state_dict().items()
        }
        weights[_HALF] = weights[_HALF].half()
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)  # safetensors lets nobody else read
        atomic_write_text(folder / CARD, model_card(self))
        config = {
            "kind": KIND,
            "format": FORMAT,
            "model": asdict(self.model.config),
            "view": asdict(self.view),
            "frame_stride": self.frame_stride,
            "training": self.training,
        }
        atomic_write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
        return folder

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the checkpoint to the Hugging Face Hub and return its address.

        Args:
            repo_id: OWNER/NAME; made if it does not exist.
            private: whether a repository that is made here is private.
            token: a token that may write; None is the one you logged in with.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: the hub refused.
        """
        from huggingface_hub import HfApi  # noqa: PLC0415

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            commit = api.upload_folder(repo_id=repo_id, folder_path=self.save_pretrained(folder))
        return str(commit)


def find_checkpoint(source: Path | str | None) -> Path:
    """Return the folder of a checkpoint, fetching it if its name says `hf-hub:`; nothing else is ever fetched.

    Raises:
        CheckpointError: the hub does not have it, or cannot be reached.
    """
    name = BUNDLED if source is None else str(source)
    if name == BUNDLED:
        return BUNDLED_FOLDER
    if name.startswith(HUB):
        return _fetched(name.removeprefix(HUB))
    return Path(name.removeprefix(LOCAL))


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    repo_id, _, revision = name.partition("@")
    try:
        # Raises ConnectionError or LocalEntryNotFoundError, an OSError, when the hub is out of reach.
        folder = snapshot_download(
            repo_id, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG, CARD]
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{HUB}{name} cannot be fetched ({type(error).__name__}: {error}); check the name and the network, or "
            "download the folder elsewhere and name its path"
        ) from error
    return Path(folder)


def _described(folder: Path, config: dict[str, Any]) -> tuple[VLP, View, int, dict[str, Any]]:
    """Return a model without its weights, and all else that a config says of a checkpoint."""
    try:
        training = _object("training", config.get("training", {}))
        view, stride = _view(config["view"]), _whole("frame_stride", config["frame_stride"])
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in _object("model", config["model"]).items()
        }
        model = VLP(VLPConfig(**(ABSENT | sizes)))
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG} does not say its {error}") from error
    # What is no stage of a vision tower is for open_clip an AssertionError, a picture too small for it a RuntimeError.
    except (AssertionError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a VLP model ({error})"
        ) from error
    if view.size_px != model.config.image_size_px:
        raise CheckpointError(
            f"{folder / CONFIG} draws {view.size_px} px frames for a model that reads {model.config.image_size_px} px"
        )
    return model, view, stride, training


def _view(about: object) -> View:
    view = View(**_object("view", about))
    if view.camera not in CAMERAS:
        raise UnknownNameError.of("camera", str(view.camera), list(CAMERAS))
    if view.preset not in PRESETS:
        raise UnknownNameError.of("drawing preset", str(view.preset), list(PRESETS))
    _whole("view.size_px", view.size_px)
    return view


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a JSON object, got {value!r}")
    return value


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return value


def _load_weights(model: VLP, folder: Path) -> None:
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
    version = config.get("format", FORMAT)
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(
            f"{folder / CONFIG} has the format {version!r}, expected a whole number from 1 to {FORMAT}; it is damaged"
        )
    if version > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a newer vlp-gym (format {version}); upgrade to read it"
        )
    return config
