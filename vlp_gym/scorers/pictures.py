"""Pictures and videos that a scorer compares with, as arrays or from files, so that an env's spec can name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from vlp_gym.errors import SettingError
from vlp_gym.scorers.pixels import check_frames


def as_picture(source: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture, uint8 [height, width, 3], from an array or an image file.

    Raises:
        SettingError: it is not such an array, or no image file.
    """
    if isinstance(source, str | Path):
        try:
            with Image.open(source) as image:
                source = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise SettingError(f"{source} is not an image that can be read: {error}") from error
    check_frames(source)
    return np.asarray(source)


def listed(sources: Any) -> list[Any] | None:
    """Return the pictures or videos that a scorer is given as a list; the name of a file is a list of one.

    >>> listed("goal.png"), listed(["near.png", "far.png"]), listed(None)
    (['goal.png'], ['near.png', 'far.png'], None)

    Raises:
        SettingError: the list is empty, as that of a pattern that no file matches.
    """
    if isinstance(sources, str | Path):
        return [sources]
    if sources is not None and len(sources) == 0:
        raise SettingError(
            "a scorer was given an empty list of pictures or videos to compare with; name some, or leave it out"
        )
    return None if sources is None else list(sources)


def pictures_of(sources: Sequence[Any] | None) -> list[UInt8[np.ndarray, "height width 3"]] | None:
    """Return several pictures, if there are any; errors as in `as_picture`."""
    return None if sources is None else [as_picture(each) for each in sources]


def as_video(source: Any) -> UInt8[np.ndarray, "frames height width 3"]:
    """Return a video, uint8 [frames, height, width, 3], from an array or a file (GIF, mp4).

    Raises:
        SettingError: it is not such an array, or no video file.
    """
    if isinstance(source, str | Path):
        import imageio.v3 as imageio  # noqa: PLC0415

        try:
            source = np.asarray(imageio.imread(source, index=None))[..., :3]
        except Exception as error:  # every plugin raises its own kind
            raise SettingError(f"{source} is not a video that can be read: {error}") from error
    check_frames(source)
    video = np.asarray(source)
    if video.ndim != 4:
        raise SettingError(f"a video is [frames, height, width, 3], got {list(video.shape)}")
    return video
