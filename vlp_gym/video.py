"""An mp4 with a sentence written under its frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vlp_gym.atomic import atomic_path

INK = (32, 33, 36)
PAPER = (250, 250, 248)
GREEN = (24, 128, 56)
MARGIN_PX = 8


def write_video(
    path: Path,
    frames: Sequence[UInt8[np.ndarray, "height width 3"]],
    instruction: str,
    successes: Sequence[bool],
    frames_per_second: int = 30,
) -> None:
    """Write frames as H.264 with the instruction below, and "success" once it is reached."""
    import imageio.v2 as imageio  # noqa: PLC0415

    # The default macro block of 16 would stretch the frames; H.264 itself only asks for even sides.
    settings: dict[str, Any] = {"fps": frames_per_second, "codec": "libx264", "macro_block_size": 2}
    with atomic_path(path) as draft:
        video: Any = imageio.get_writer(draft, **settings)
        with video:
            for frame, success in zip(frames, successes, strict=True):
                video.append_data(captioned(frame, instruction, success))


def captioned(
    frame: UInt8[np.ndarray, "height width 3"], instruction: str, success: bool
) -> UInt8[np.ndarray, "captioned_height width 3"]:
    """Return the frame with the instruction in a bar below it."""
    height, width, _ = frame.shape
    size_px = max(12, width // 20)
    font = ImageFont.load_default(size_px)
    lines = wrapped(instruction, font, width - 2 * MARGIN_PX)
    line_px = round(1.3 * size_px)
    # The bar's height does not depend on success, or the frames of a video would differ in size.
    bar_px = 2 * MARGIN_PX + line_px * (len(lines) + 1)
    picture = Image.new("RGB", (width, height + bar_px + (height + bar_px) % 2), PAPER)
    picture.paste(Image.fromarray(frame))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate([*lines, "success" if success else ""]):
        place = (MARGIN_PX, height + MARGIN_PX + number * line_px)
        draw.text(place, line, fill=GREEN if success else INK, font=font)
    return np.asarray(picture)


def wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> list[str]:
    """Return the text in lines of at most `width_px`, unless one word is wider."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
