"""The two towers of a CLIP model: pictures and sentences in one space, as unit vectors."""

import functools
from typing import Any

import open_clip
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vlp_gym.errors import CheckpointError, UnknownNameError
from vlp_gym.models.encoders import fit_tokens, no_warnings
from vlp_gym.models.official import OfficialWeights
from vlp_gym.models.towers import Towers

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's state dicts hold beside weights, and nobody else's do."""


@functools.cache
def _tokenizer(name: str) -> Any:
    return open_clip.get_tokenizer(name)


class ClipTowers(Towers):
    """An open_clip model with its pooled heads, of those that read CLIP's own tokens.

    Args:
        name: an open_clip config, such as "ViT-B-16", or "ViT-B-16-quickgelu" for OpenAI's weights.

    Raises:
        UnknownNameError: open_clip knows no such config, or it reads other tokens than CLIP's (SigLIP's, for one).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        config = open_clip.get_model_config(name)
        if config is None:
            raise UnknownNameError.of("open_clip config", name, open_clip.list_models())
        if {"hf_model_name", "hf_tokenizer_name"} & set(config["text_cfg"]):
            raise UnknownNameError(
                f"the open_clip config {name!r} reads other tokens than CLIP's own, which have to be fetched; name one "
                "such as 'ViT-B-16' or 'ViT-B-16-quickgelu'"
            )
        with no_warnings():
            self.clip = open_clip.create_model(name, load_weights=False)
        self.name = name
        size = self.clip.visual.image_size
        self.image_size_px = int(size if isinstance(size, int) else size[0])
        preprocess = open_clip.get_model_preprocess_cfg(self.clip)
        self.mean, self.std = tuple(preprocess["mean"]), tuple(preprocess["std"])

    @classmethod
    def of(cls, name: str, weights: OfficialWeights) -> "ClipTowers":
        """Return the towers with the weights of a checkpoint.

        Raises:
            UnknownNameError: open_clip knows no such config.
            CheckpointError: the checkpoint is of another architecture.
        """
        towers = cls(name)
        extras = [each for each in OPENAI_EXTRAS if each in weights.tensors]
        if extras and "quickgelu" not in name:
            raise CheckpointError(
                f"{weights.path} holds OpenAI's weights, which were trained with QuickGELU; name the model "
                f"{name + '-quickgelu'!r} instead of {name!r}"
            )
        weights.load_into(towers.clip, ignore=OPENAI_EXTRAS)
        return towers

    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return the embedding of normalised pictures."""
        features: Tensor = self.clip.encode_image(pixels)
        return self._unit(features)

    def read(self, tokens: Int[Tensor, "sentences context"]) -> Float[Tensor, "sentences channels"]:
        """Return the embedding of sentences."""
        features: Tensor = self.clip.encode_text(tokens)
        return self._unit(features)

    def _unit(self, features: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows channels"]:
        return F.normalize(features.float(), dim=-1) if self.normalizes else features.float()

    def tokenize(self, sentence: str) -> Int[Tensor, " context"]:
        """Return the tokens of a sentence; errors as of `Towers.tokenize`."""
        tokens = _tokenizer(self.name)([sentence], context_length=512)[0]
        return fit_tokens(tokens, int(self.clip.context_length), sentence)
