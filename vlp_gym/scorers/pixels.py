"""From upright uint8 frames to what a network reads: how they are fitted to its size, and normalised.

Each original does this in a way of its own, and some guess it from the numbers that they are given. Here nothing is
guessed: frames are uint8 [frames, height, width, RGB], and a `Preprocess` says all the rest.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vlp_gym.errors import SettingError

Fit = Literal["squash", "crop", "none"]
"""`squash`: both sides are resized to the network's, whatever becomes of the proportions. `crop`: the shorter side is
resized, then the centre is cut out. `none`: frames must have the network's size already."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """What happens to frames before a network sees them.

    Attributes:
        size_px: height and width that the network reads.
        mean: of every colour in [0, 1].
        std: the same.
        fit: how frames of another size are made to fit.
        resize_px: of `crop`: length of the shorter side before the centre is cut out.
        interpolation: "bicubic" or "bilinear".
        antialias: whether a picture that shrinks is smoothed first.
        by_pillow: whether Pillow resizes, in whole numbers from 0 to 255, as where the authors' callers hand pictures
            over, or torch in any numbers. The two round otherwise: an embedding moves by a thousandth of itself.
    """

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "crop"
    resize_px: int | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    by_pillow: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.by_pillow and not self.antialias:
            raise SettingError(
                "Pillow always smooths a picture that shrinks; leave antialias on, or by_pillow off"
            )
        if self.fit not in ("squash", "crop", "none"):
            raise SettingError(f"fit must be 'squash', 'crop' or 'none', got {self.fit!r}")
        if self.resize_px is not None and self.resize_px < self.size_px:
            raise SettingError(
                f"resize_px must be {self.size_px} or more, so that a square of that size can be cut out, got "
                f"{self.resize_px}"
            )

    @property
    def drawn_px(self) -> int:
        """Side of the square frames of which nothing has to be resized."""
        return (self.resize_px or self.size_px) if self.fit == "crop" else self.size_px

    def __call__(
        self, frames: UInt8[Tensor, "frames height width 3"]
    ) -> Float[Tensor, "frames 3 size size"]:
        """Return pictures as a network reads them, float32.

        Raises:
            SettingError: `fit` is "none" and the frames have another size.
        """
        pixels = frames.permute(0, 3, 1, 2)
        if self.by_pillow:
            pixels = self._fitted(pixels).float().div(255)
        else:
            pixels = self._fitted(pixels.float().div(255))
        mean, std = (pixels.new_tensor(each).view(1, 3, 1, 1) for each in (self.mean, self.std))
        return pixels.sub(mean).div_(std).contiguous(memory_format=torch.channels_last)

    def _fitted(self, pixels: Tensor) -> Tensor:
        square = (self.size_px, self.size_px)
        if self.fit == "none":
            if tuple(pixels.shape[-2:]) != square:
                raise SettingError(
                    f"this scorer reads {self.size_px} x {self.size_px} px and fit='none' resizes nothing, got "
                    f"{pixels.shape[-2]} x {pixels.shape[-1]}; draw them so, or choose fit='crop' or 'squash'"
                )
            return pixels
        target = list(square) if self.fit == "squash" else [self.resize_px or self.size_px]
        resized = pixels
        if self.fit == "squash" or min(pixels.shape[-2:]) != target[0]:
            resized = (self._by_pillow if self.by_pillow else self._by_torch)(pixels, target)
        cropped: Tensor = transforms.center_crop(resized, list(square))
        return cropped

    def _by_torch(self, pixels: Tensor, target: list[int]) -> Tensor:
        how = InterpolationMode(self.interpolation)
        resized: Tensor = transforms.resize(pixels, target, how, antialias=self.antialias)
        return resized

    def _by_pillow(
        self, pixels: UInt8[Tensor, "frames 3 height width"], target: list[int]
    ) -> Tensor:
        how = InterpolationMode(self.interpolation)
        pictures = [transforms.to_pil_image(each) for each in pixels.cpu()]
        resized = [
            transforms.pil_to_tensor(transforms.resize(each, target, how)) for each in pictures
        ]
        return torch.stack(resized).to(pixels.device)


def check_clips(clips: object) -> None:
    """Refuse anything but clips of uint8 pictures, one or more of each.

    Raises:
        SettingError: another dtype, layout or number of axes, or no picture at all.
    """
    check_frames(clips)
    shape: tuple[int, ...] = getattr(clips, "shape", ())
    if len(shape) != 5 or 0 in shape:
        raise SettingError(
            f"expected clips [clips, frames, height, width, 3] with a picture or more, got {list(shape)}; one clip is "
            "clip[None]"
        )


def check_frames(frames: object) -> None:
    """Refuse anything but uint8 pictures whose last axis is colour; layout and range are never guessed.

    Raises:
        SettingError: another dtype or layout.
    """
    dtype = getattr(frames, "dtype", None)
    shape: tuple[int, ...] = getattr(frames, "shape", ())
    if str(dtype).removeprefix("torch.") != "uint8" or len(shape) < 3 or shape[-1] != 3:
        raise SettingError(
            f"expected uint8 pictures [..., height, width, 3] with values from 0 to 255, got {dtype} {list(shape)}; "
            "nothing is rescaled or transposed in silence"
        )
