"""Official checkpoint files of other people's models: where they are looked for, and how they are read.

No file is ever fetched. What is read is only tensors (`weights_only`): no code of a checkpoint runs.
"""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vlp_gym.errors import CheckpointError

FOLDER_VARIABLE = "VLP_GYM_WEIGHTS"
"""Environment variable that names the folder in which official files are looked for first."""
NESTED = ("r3m", "vip", "liv", "state_dict", "model_state_dict")
"""Keys under which official files keep their weights; a flat file is read as it is."""
PARALLEL = "module."
"""What `DataParallel` puts before every name."""


@dataclass(frozen=True)
class OfficialFile:
    """A file that its authors publish and a user has to bring.

    Attributes:
        scorer: the scorer that reads it.
        role: what it is to the scorer: "checkpoint", or the name of a setting.
        names: where it is looked for, in this order: below the folder of `FOLDER_VARIABLE`, then as they stand.
        source: where a user gets it.
    """

    scorer: str
    role: str
    names: tuple[str, ...]
    source: str

    def find(self) -> Path | None:
        """Return the first of the places where there is a file; None if there is none."""
        folder = os.environ.get(FOLDER_VARIABLE)
        for name in self.names:
            path = Path(name).expanduser()
            if not path.is_absolute() and folder:
                path = Path(folder).expanduser() / name
            if path.is_absolute() and path.is_file():
                return path
        return None


_CLIP_SOURCE = (
    "any open_clip state dict, such as open_clip_model.safetensors of hf.co/laion/CLIP-ViT-bigG-14-laion2B-39B-b160k "
    "(VLM-RM's) or of hf.co/timm/vit_base_patch16_clip_224.openai (VLP's backbone)"
)

OFFICIAL_FILES = (
    OfficialFile("clip", "checkpoint", ("clip.safetensors", "clip.pt"), _CLIP_SOURCE),
    OfficialFile("vlmrm", "checkpoint", ("clip.safetensors", "clip.pt"), _CLIP_SOURCE),
    OfficialFile(
        "r3m",
        "checkpoint",
        ("r3m_50.pt", "~/.r3m/r3m_50/model.pt", "~/.r3m/r3m_34/model.pt", "~/.r3m/r3m_18/model.pt"),
        "github.com/facebookresearch/r3m: `load_r3m` puts it there; it must still hold lang_enc and lang_rew",
    ),
    OfficialFile(
        "r3m",
        "vocabulary",
        ("distilbert-vocab.txt", "~/.r3m/vocab.txt"),
        "vocab.txt of hf.co/distilbert/distilbert-base-uncased",
    ),
    OfficialFile(
        "vip",
        "checkpoint",
        ("vip.pt", "~/.vip/resnet50/model.pt"),
        "github.com/facebookresearch/vip: `load_vip` puts it there (CC BY-NC 4.0)",
    ),
    OfficialFile(
        "liv",
        "checkpoint",
        ("liv.pt", "~/.liv/resnet50/model.pt"),
        "model.pt of hf.co/jasonyma/LIV",
    ),
    OfficialFile(
        "roboclip",
        "checkpoint",
        ("s3d_howto100m.pth",),
        "github.com/antoine77340/S3D_HowTo100M",
    ),
    OfficialFile(
        "roboclip",
        "vocabulary",
        ("s3d_dict.npy",),
        "github.com/antoine77340/S3D_HowTo100M",
    ),
)
"""All files that the scorers of other people's models read."""


def locate(scorer: str, role: str = "checkpoint", given: Path | str | None = None) -> Path:
    """Return the path of an official file: the one that is given, or where it is looked for.

    Raises:
        CheckpointError: there is no such file; the message says where a user gets it.
    """
    file = next(each for each in OFFICIAL_FILES if (each.scorer, each.role) == (scorer, role))
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file():
            return path
        raise CheckpointError(f"no file at {path}; get it from {file.source}")
    found = file.find()
    if found is None:
        folder = os.environ.get(FOLDER_VARIABLE) or f"${FOLDER_VARIABLE}"
        places = ", ".join(n if n.startswith("~") else f"{folder}/{n}" for n in file.names)
        raise CheckpointError(
            f"the scorer {scorer!r} needs a file that vlp-gym does not ship: name its path as `{role}`, or put it at "
            f"one of {places}. Source: {file.source}"
        )
    return found


@dataclass(frozen=True)
class OfficialWeights:
    """What a checkpoint file holds.

    Attributes:
        tensors: weights by name, without `module.` before them.
        path: the file.
        sha256: its hash, in hexadecimal.
    """

    tensors: dict[str, Tensor]
    path: Path
    sha256: str

    def below(self, prefix: str) -> "OfficialWeights":
        """Return the weights whose names begin with `prefix`, without it; all of them if none does."""
        inner = {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }
        return OfficialWeights(inner or self.tensors, self.path, self.sha256)

    def load_into(self, network: nn.Module, ignore: Sequence[str] = ()) -> None:
        """Fill a network, every weight of it, in float32.

        Args:
            network: what the file should be of.
            ignore: names in the file that are no weights of the network.

        Raises:
            CheckpointError: the file is of another architecture.
        """
        given = {
            name: value.float() if value.is_floating_point() else value
            for name, value in self.tensors.items()
            if name not in ignore
        }
        wanted = network.state_dict()
        # Counters of training steps, which older files lack, are no weights.
        missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
        unknown = [name for name in given if name not in wanted]
        shaped = [
            f"{name} is {tuple(given[name].shape)} instead of {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in given and given[name].shape != value.shape
        ]
        if missing or unknown or shaped:
            parts = [
                _some("without", missing),
                _some("with unknown", unknown),
                _some("where", shaped),
            ]
            raise CheckpointError(
                f"{self.path} is a checkpoint of another architecture: "
                + "; ".join(filter(None, parts))
            )
        network.load_state_dict({**wanted, **given})


def _some(word: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}"


def file_sha256(path: Path, expected: str | None = None) -> str:
    """Return the SHA-256 of a file.

    Raises:
        CheckpointError: it is not the expected one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower():
        raise CheckpointError(
            f"{path} has SHA-256 {digest}, expected {expected}: the file is damaged or another version"
        )
    return digest


def read_weights(path: Path, sha256: str | None = None) -> OfficialWeights:
    """Return the weights of a `.pt`, `.pth`, `.bin` or `.safetensors` file.

    Read as they are: nested under one of `NESTED` or flat, with or without `module.` before every name.

    Args:
        path: the file.
        sha256: refuse any other file.

    Raises:
        CheckpointError: missing, damaged, another hash, a TorchScript archive, or something else than weights.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file at {path}")
    digest = file_sha256(path, sha256)
    found = _innermost(_read(path))
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        kinds = sorted({type(value).__name__ for value in found.values()})
        raise CheckpointError(
            f"{path} does not hold weights by name but {', '.join(kinds) or 'nothing'}; expected a state dict, flat or "
            f"under one of {', '.join(NESTED)}"
        )
    if all(name.startswith(PARALLEL) for name in found):
        found = {name.removeprefix(PARALLEL): value for name, value in found.items()}
    return OfficialWeights(found, path, digest)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code and not only weights; write its weights to a file "
            f"once: torch.save(torch.jit.load('{path.name}', 'cpu').state_dict(), 'weights.pt')"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which is not loaded ({_reason(error)}); get it anew, or "
            "have its authors' code save the state dict alone"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, expected weights by name (a state dict)"
        )
    return content


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, without torch's advice to load it and run its code."""
    text = str(error)
    refused = re.search(
        r"WeightsUnpickler error:\s*([^\n]+?)(?: was not an allowed global|\n|$)", text
    )
    if refused:
        return refused[1]
    if not text or text.startswith("Weights only load failed"):
        return type(error).__name__
    return text.splitlines()[0]


def _innermost(content: Mapping[str, Any]) -> dict[str, Any]:
    for key in NESTED:
        if isinstance(content.get(key), Mapping):
            return dict(content[key])
    return dict(content)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
