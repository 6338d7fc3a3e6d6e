"""Frame and word features of open_clip models whose text tower is CLIP's own, token by token."""

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.models.folding import fold_norms

CONFIGS = Path(__file__).parent / "configs"

for _path in sorted(CONFIGS.glob("*.json")):
    open_clip.add_model_config(_path)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence open_clip, which warns that no weights were loaded; ours come from a checkpoint, right after."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@functools.cache
def _tokenizer(name: str) -> Any:
    # Of every model the same, and a quarter of a second to make.
    return open_clip.get_tokenizer(name)


def _config_of(name: str) -> dict[str, Any]:
    """Return the open_clip config of a model with a text tower that `ClipEncoders` reads.

    Raises:
        UnknownNameError: open_clip knows no such config, or its text tower is another one.
    """
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise UnknownNameError.of("open_clip config", name, open_clip.list_models())
    text = config["text_cfg"]
    if config.get("custom_text") or "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise UnknownNameError(
            f"the text tower or the tokens of the open_clip config {name!r} are not CLIP's own, which is what the "
            "preference model reads; name a config such as 'ViT-B-16', 'RN50' or 'convnext_base'"
        )
    return config


class ClipEncoders(nn.Module):
    """The two towers of an open_clip model, read at the level of patches and words.

    Args:
        name: an open_clip config with CLIP's own text tower and tokens: one of ours ("vlp-compact") or of open_clip's
            ("ViT-B-16", "RN50", "convnext_base"; not those of SigLIP, CoCa, or with a text tower of Hugging Face).
        stages: which intermediate features of the vision tower make a patch, as in timm's `out_indices`; finer ones
            are folded into the grid of the coarsest, so that nothing of them is lost.
        image_size_px: height and width of the frames.

    Raises:
        UnknownNameError: open_clip knows no such config, or its text tower is another one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, stages: Sequence[int], image_size_px: int) -> None:
        super().__init__()
        self._config = _config_of(name)
        with no_warnings():
            self.clip = open_clip.create_model(
                name, load_weights=False, force_image_size=image_size_px
            )
        self.clip.visual.to(
            memory_format=torch.channels_last
        )  # convolutions run twice as fast on a CPU
        self.stages, self.image_size_px = list(stages), image_size_px
        self._name = name
        self.context_length: int = self.clip.context_length
        self._drop_unused()
        preprocess = open_clip.get_model_preprocess_cfg(self.clip)
        self.register_buffer(
            "mean", torch.tensor(preprocess["mean"]).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(preprocess["std"]).view(1, 3, 1, 1), persistent=False
        )
        with torch.no_grad():
            probe = self.frames(torch.zeros(1, image_size_px, image_size_px, 3, dtype=torch.uint8))
        self.n_patches, self.frame_width = int(probe.shape[1]), int(probe.shape[2])
        self.word_width = int(self.clip.token_embedding.embedding_dim)

    @property
    def _tokenize(self) -> Any:
        return _tokenizer(self._name)

    @property
    def architecture(self) -> str:
        """What features depend on beside frames and weights: open_clip's config, the stages, and the norm of pixels.

        Models of the same weights may compute differently: ViT-B-16-quickgelu has another activation than ViT-B-16.
        """
        norm = [self.mean.flatten().tolist(), self.std.flatten().tolist()]
        return json.dumps([self._config, self.stages, norm], sort_keys=True)

    def _drop_unused(self) -> None:
        # What lies behind the last stage, and the pooled heads, would only make the checkpoint larger.
        trunk = getattr(self.clip.visual, "trunk", None)
        if trunk is not None and hasattr(trunk, "prune_intermediate_layers"):
            trunk.prune_intermediate_layers(self.stages, prune_norm=True, prune_head=True)
        self.clip.text_projection = None
        self.clip.logit_scale.requires_grad_(False)

    def frames(
        self, frames: UInt8[Tensor, "frames height width 3"]
    ) -> Float[Tensor, "frames patches channels"]:
        """Return the patch features of upright RGB frames, normalised as the open_clip config says."""
        pixels = frames.permute(0, 3, 1, 2).to(self.mean.dtype).div(255)
        return self.features(pixels.sub(self.mean).div(self.std))

    def features(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames patches channels"]:
        """Return the patch features of pictures that are normalised already."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps = self.clip.visual.forward_intermediates(
            pixels, indices=self.stages, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )["image_intermediates"]
        coarsest = maps[-1].shape[-1]
        folded = [
            F.pixel_unshuffle(m, m.shape[-1] // coarsest) for m in maps
        ]  # each [frames, c * f * f, grid, grid]
        return torch.cat(folded, dim=1).flatten(2).transpose(1, 2)

    @property
    def frames_at_once(self) -> int:
        """Frames to encode in one call: on a CPU the features of more of them leave its cache, at half the speed."""
        return 16 if self.mean.device.type == "cpu" else 256

    def for_inference(self) -> "ClipEncoders":
        """Return a faster copy that only encodes: its batch norms are folded into the convolutions.

        Its text tower is this one's, whose table of words may be most of a model.
        """
        side = self.image_size_px
        probe = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=self.mean.device)
        copy = fold_norms(self, lambda encoders: encoders.frames(probe))
        # The weights are new, and the order of their numbers in memory with them.
        copy.clip.visual.to(memory_format=torch.channels_last)
        for name, part in self.clip.named_children():
            if name != "visual":
                setattr(copy.clip, name, part)
        return copy

    def tokenize(self, sentence: str) -> Int[Tensor, " context"]:
        """Return the tokens of a sentence between its start and end marks, padded to the context length.

        Raises:
            InstructionError: the sentence is longer than the text tower reads; nothing is cut off in silence.
        """
        tokens = self._tokenize([sentence], context_length=512)[0]
        return fit_tokens(tokens, self.context_length, sentence)

    def pieces(self, tokens: Int[Tensor, " tokens"]) -> list[str]:
        """Return the piece of text that every token stands for."""
        return [self._tokenize.decode([int(token)]).strip() for token in tokens]

    def words(
        self, tokens: Int[Tensor, "sentences context"]
    ) -> tuple[Float[Tensor, "sentences words channels"], Bool[Tensor, "sentences words"]]:
        """Return the features of every word, and which of them are words and not padding."""
        is_word = _is_word(tokens)
        longest = int(is_word.sum(1).max())
        mask = self.clip.attn_mask
        # Under a causal mask nobody reads the padding, most of the context: it need not be computed.
        n_read = tokens.shape[1] if mask is None else longest
        features = (
            self.clip.token_embedding(tokens[:, :n_read]) + self.clip.positional_embedding[:n_read]
        )
        mask = None if mask is None else mask[:n_read, :n_read]
        features = self.clip.transformer(features, attn_mask=mask)
        return self.clip.ln_final(features)[:, :longest], is_word[:, :longest]

    def table(
        self, tokens: Int[Tensor, "sentences context"]
    ) -> tuple[Float[Tensor, "sentences words channels"], Bool[Tensor, "sentences words"]]:
        """Return the entries of the token table, read out of context, and which of them are words.

        The mark at the start is none here, the mark at the end is.
        """
        is_word = _is_word(tokens)
        is_word[:, 0] = False
        return self.clip.token_embedding(tokens), is_word


def fit_tokens(
    tokens: Int[Tensor, " long"], context_length: int, sentence: str
) -> Int[Tensor, " context"]:
    """Return the tokens of a sentence, between their start and end marks, padded to the context length.

    Raises:
        InstructionError: the sentence is longer than that; nothing is cut off in silence.
    """
    tokens = tokens[: int(tokens.argmax()) + 1]  # the end mark has the largest number
    if len(tokens) > context_length:
        raise InstructionError(
            f"the instruction has {len(tokens)} tokens, this model reads {context_length}: {sentence!r}"
        )
    return F.pad(tokens, (0, context_length - len(tokens)))


def _is_word(tokens: Int[Tensor, "sentences context"]) -> Bool[Tensor, "sentences context"]:
    # The end mark has the largest number; padding comes after it.
    return torch.arange(tokens.shape[1], device=tokens.device) <= tokens.argmax(dim=1, keepdim=True)
