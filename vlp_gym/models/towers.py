"""What a scorer of CLIP's kind needs of a network: pictures and sentences in one space."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

Colour = tuple[float, float, float]


class Towers(nn.Module, ABC):
    """Two towers, one that sees and one that reads; a base for networks of your own in CLIP's place.

    Attributes:
        name: which network.
        image_size_px: height and width of the pictures that it reads.
        mean: mean of every colour in [0, 1] that pictures are normalised by.
        std: the same for the standard deviation.
        normalizes: whether embeddings are unit vectors; they are unless somebody needs their length.
        fingerprint: tells weights apart that are from no file of their own; None where they are from one.
    """

    name: str
    image_size_px: int
    mean: Colour
    std: Colour
    normalizes: bool = True
    fingerprint: str | None = None

    @abstractmethod
    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return the embedding of normalised pictures."""

    @abstractmethod
    def read(self, tokens: Int[Tensor, "sentences context"]) -> Float[Tensor, "sentences channels"]:
        """Return the embedding of sentences."""

    @abstractmethod
    def tokenize(self, sentence: str) -> Int[Tensor, " context"]:
        """Return the tokens of a sentence.

        Raises:
            InstructionError: the sentence is longer than the text tower reads; nothing is cut off in silence.
        """
