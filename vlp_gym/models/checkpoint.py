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
from vlp_gym.errors import CheckpointError
from vlp_gym.models.card import model_card
from vlp_gym.models.vlp import VLP, VLPConfig
from vlp_gym.types import View

FORMAT = 1
ABSENT = {"aim": False, "match_margin": 0.0, "match_sharpness": 1.0, "match_floor": 0.0}
"""What is so in a model of an older version, whose config does not say it."""
KIND = "vlp"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BUNDLED = Path(__file__).parent.parent / "assets" / "vlp-compact"
"""The checkpoint that the package ships."""

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
                `hf-hub:OWNER/NAME[@REVISION]`, which is fetched because you ask for it; None is the bundled model.
            device: where the network goes.

        Raises:
            CheckpointError: missing, damaged, of another kind or of a newer format; the message says what to do.
        """
        folder = find_checkpoint(source)
        config = _read_config(folder)
        model, view, stride = _empty_model(folder, config)
        _load_weights(model, folder)
        return cls(model.eval().to(torch.device(device)), view, stride, config.get("training", {}))

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
    if source is None:
        return BUNDLED
    name = str(source)
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


def _empty_model(folder: Path, config: dict[str, Any]) -> tuple[VLP, View, int]:
    try:
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config["model"].items()
        }
        model, view = VLP(VLPConfig(**(ABSENT | sizes))), View(**config["view"])
        stride = int(config["frame_stride"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a VLP model ({error})"
        ) from error
    if view.size_px != model.config.image_size_px:
        raise CheckpointError(
            f"{folder / CONFIG} draws {view.size_px} px frames for a model that reads {model.config.image_size_px} px"
        )
    return model, view, stride


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
    if config.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a newer vlp-gym (format {config['format']}); upgrade to read it"
        )
    return config
