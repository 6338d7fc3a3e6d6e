"""The bundled encoder in the place of a CLIP model, where none can be had: small, and trained on Meta-World alone."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlp_gym.errors import CheckpointError
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.towers import Towers


class BundledTowers(Towers):
    """What a single frame shows and what a sentence speaks of, by the match of a VLP checkpoint, as unit vectors.

    It stands in for CLIP in tests and examples: it has the same parts and is none. What happens over time it cannot
    see, and on other worlds than Meta-World its numbers mean nothing.

    Args:
        checkpoint: a VLP checkpoint with a match.

    Raises:
        CheckpointError: the checkpoint has no match.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        model = checkpoint.model
        if model.match is None:
            raise CheckpointError(
                "this VLP checkpoint has no match (match_width 0), so it cannot stand in for CLIP"
            )
        self.encoders, self.match = model.encoders, model.match
        self.name = f"stand-in:{model.config.clip}"
        self.fingerprint = str(checkpoint.training.get("fingerprint", "unknown"))
        self.image_size_px = model.config.image_size_px
        red, green, blue = self.encoders.mean.flatten().tolist()
        self.mean = (red, green, blue)
        red, green, blue = self.encoders.std.flatten().tolist()
        self.std = (red, green, blue)

    @classmethod
    def load(cls, source: Path | str | None = None) -> "BundledTowers":
        """Return the towers of a VLP checkpoint, by default of the bundled one."""
        return cls(Checkpoint.from_pretrained(source, "cpu"))

    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return what normalised pictures show."""
        shown: Tensor = self.match.shown(self.encoders.features(pixels)[:, None])
        return shown.float()

    def read(self, tokens: Int[Tensor, "sentences context"]) -> Float[Tensor, "sentences channels"]:
        """Return what sentences speak of."""
        meant: Tensor = self.match.meant(*self.encoders.table(tokens))
        return meant.float()

    def tokenize(self, sentence: str) -> Int[Tensor, " context"]:
        """Return the tokens of a sentence; errors as in `ClipEncoders.tokenize`."""
        tokens: torch.Tensor = self.encoders.tokenize(sentence)
        return tokens
