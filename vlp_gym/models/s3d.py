"""S3D-G with a text tower, as trained on HowTo100M by MIL-NCE (Miech et al., 2020, arXiv 1912.06430).

Names and shapes of the weights are those of the published file, `s3d_howto100m.pth`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 512
"""Dimensions in which video and text are compared."""
MAX_WORDS = 16
"""Words that the text tower reads; what follows is cut off."""
N_WORDS = 66_250
"""Entries of the word table, padding at 0 included."""

BRANCHES = {
    "mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels of every inception block: in; 1x1; reduced and out of the two 3x3; behind the pooling."""


class Conv(nn.Module):
    """A convolution over time and space, or one over space and then one over time, each normalised and rectified."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: tuple[int, int, int],
        padding: tuple[int, int, int] = (0, 0, 0),
        separable: bool = False,
    ) -> None:
        super().__init__()
        space = (1, *kernel[1:]) if separable else kernel
        pad = (0, *padding[1:]) if separable else padding
        self.conv1 = nn.Conv3d(n_in, n_out, space, padding=pad, bias=False)
        self.bn1 = nn.BatchNorm3d(n_out)
        self.is_separable = separable
        if separable:
            time, pad_time = (kernel[0], 1, 1), (padding[0], 0, 0)
            self.conv2 = nn.Conv3d(n_out, n_out, time, padding=pad_time, bias=False)
            self.bn2 = nn.BatchNorm3d(n_out)

    def forward(self, video: Tensor) -> Tensor:
        """Return the rectified video [n, channels, time, height, width]."""
        video = F.relu(self.bn1(self.conv1(video)))
        return F.relu(self.bn2(self.conv2(video))) if self.is_separable else video


class Gate(nn.Module):
    """Weighs every channel by what all channels are on average."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, video: Tensor) -> Tensor:
        """Return the weighed video."""
        weight = torch.sigmoid(self.fc(video.mean((2, 3, 4))))
        return video * weight[:, :, None, None, None]


class Inception(nn.Module):
    """Four branches side by side, each behind a gate."""

    def __init__(
        self, n_in: int, one: int, reduce_1: int, out_1: int, reduce_2: int, out_2: int, pooled: int
    ) -> None:
        super().__init__()
        point, cube, pad = (1, 1, 1), (3, 3, 3), (1, 1, 1)
        self.conv_b0 = Conv(n_in, one, point)
        self.conv_b1_a = Conv(n_in, reduce_1, point)
        self.conv_b1_b = Conv(reduce_1, out_1, cube, pad, separable=True)
        self.conv_b2_a = Conv(n_in, reduce_2, point)
        self.conv_b2_b = Conv(reduce_2, out_2, cube, pad, separable=True)
        self.conv_b3_b = Conv(n_in, pooled, point)
        for branch, width in enumerate((one, out_1, out_2, pooled)):
            setattr(self, f"gating_b{branch}", Gate(width))

    def forward(self, video: Tensor) -> Tensor:
        """Return the channels of all branches."""
        branches = (
            self.conv_b0(video),
            self.conv_b1_b(self.conv_b1_a(video)),
            self.conv_b2_b(self.conv_b2_a(video)),
            self.conv_b3_b(F.max_pool3d(video, 3, stride=1, padding=1)),
        )
        gated = [getattr(self, f"gating_b{i}")(each) for i, each in enumerate(branches)]
        return torch.cat(gated, dim=1)


class TextTower(nn.Module):
    """A bag of words: the maximum over all sixteen places, padding included, between two linear layers."""

    def __init__(self, n_words: int, embedding: int) -> None:
        super().__init__()
        self.word_embd = nn.Embedding(n_words, 300)
        self.fc1 = nn.Linear(300, 2048)
        self.fc2 = nn.Linear(2048, embedding)

    def forward(
        self, tokens: Int[Tensor, "sentences words"]
    ) -> Float[Tensor, "sentences channels"]:
        """Return the embedding of sentences, given as places in the word table."""
        words = F.relu(self.fc1(self.word_embd(tokens)))
        embedded: Tensor = self.fc2(words.amax(1))
        return embedded


class S3D(nn.Module):
    """Video and text in one space; how well they fit is their dot product, which is not normalised.

    Args:
        n_words: entries of the word table, padding included.
        embedding: dimensions of that space.
    """

    def __init__(self, n_words: int = N_WORDS, embedding: int = EMBEDDING) -> None:
        super().__init__()
        self.conv1 = Conv(24, 64, (2, 4, 4), (1, 2, 2))
        self.conv_2b = Conv(64, 64, (1, 1, 1))
        self.conv_2c = Conv(64, 192, (3, 3, 3), (1, 1, 1), separable=True)
        self.gating = Gate(192)
        for name, channels in BRANCHES.items():
            setattr(self, name, Inception(*channels))
        self.fc = nn.Linear(1024, embedding)
        self.text_module = TextTower(n_words, embedding)

    def video(
        self, pixels: Float[Tensor, "videos 3 frames height width"]
    ) -> Float[Tensor, "videos channels"]:
        """Return the embedding of videos; numbers of frames and pixels must be even."""
        video = self.conv1(_space_to_depth(pixels))[:, :, 1:, 1:, 1:]
        video = self.conv_2b(_pool(video, (1, 3, 3), (1, 2, 2)))
        video = _pool(self.gating(self.conv_2c(video)), (1, 3, 3), (1, 2, 2))
        video = self._mixed(video, "3b", "3c")
        video = self._mixed(_pool(video, (3, 3, 3), (2, 2, 2)), "4b", "4c", "4d", "4e", "4f")
        video = self._mixed(_pool(video, (2, 2, 2), (2, 2, 2)), "5b", "5c")
        embedded: Tensor = self.fc(video.mean((2, 3, 4)))
        return embedded

    def text(self, tokens: Int[Tensor, "sentences words"]) -> Float[Tensor, "sentences channels"]:
        """Return the embedding of sentences, given as places in the word table, 0 for padding."""
        embedded: Tensor = self.text_module(tokens)
        return embedded

    def _mixed(self, video: Tensor, *names: str) -> Tensor:
        for name in names:
            video = getattr(self, f"mixed_{name}")(video)
        return video


def _space_to_depth(pixels: Tensor) -> Tensor:
    """Return every 2 x 2 x 2 block of a video as one place of eight times as many channels."""
    n, c, t, h, w = pixels.shape
    blocks = pixels.view(n, c, t // 2, 2, h // 2, 2, w // 2, 2)
    return blocks.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(n, 8 * c, t // 2, h // 2, w // 2)


def _pool(video: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Return the maximum over windows, padded with zeros as TensorFlow's SAME does for even sizes."""
    padding: list[int] = []
    for k, s in zip(reversed(kernel), reversed(stride), strict=True):
        along = max(k - s, 0)
        padding += [along // 2, along - along // 2]
    return F.max_pool3d(F.pad(video, padding), kernel, stride, ceil_mode=True)
