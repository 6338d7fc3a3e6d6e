"""A scene for envs that can only draw themselves, now: its snapshot is the picture."""

from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from vlp_gym.errors import RenderingError
from vlp_gym.types import Frames


class EagerScene:
    """Takes `env.render()` as the state of an env, resized at once to what labels are made from.

    A stored step costs height * width * 3 bytes, 49 kB at 128 pixels, and a step takes as long as the env needs
    to draw itself. MuJoCo envs have `MujocoScene`, which does neither.

    Args:
        env: an env made with `render_mode="rgb_array"`.
        height: height of a frame in pixels; None: as the env draws it.
        width: width of a frame in pixels; None: as the env draws it.

    Raises:
        RenderingError: the env was not made to draw `rgb_array`.
    """

    def __init__(
        self, env: gym.Env[Any, Any], height: int | None = 224, width: int | None = 224
    ) -> None:
        require_pictures(env)
        self._height, self._width = height, width

    @property
    def identity(self) -> str:
        """What is drawn and how, apart from the states: here they are the pictures."""
        return f"picture {self._height}x{self._width}"

    def constants(self, env: gym.Env[Any, Any]) -> dict[str, NDArray[Any]]:
        """Return nothing: a picture needs nothing else to be drawn."""
        return {}

    def snapshot(self, env: gym.Env[Any, Any]) -> UInt8[np.ndarray, " bytes"]:
        """Return the picture of the present state, as one flat array [height * width * 3].

        Raises:
            RenderingError: the env drew something else than uint8 [height, width, 3].
        """
        frame = np.asarray(env.render())
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise RenderingError(
                f"{env}.render() must return uint8 [height, width, 3] in mode rgb_array, "
                f"got {frame.dtype} {list(frame.shape)}"
            )
        if self._height is None or self._width is None:
            self._height, self._width = frame.shape[:2]
        if frame.shape[:2] != (self._height, self._width):
            # Reduced by area, or thin things vanish between the sampled pixels.
            picture = Image.fromarray(frame).resize(
                (self._width, self._height), Image.Resampling.BOX
            )
            frame = np.asarray(picture)
        return frame.ravel()

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[Any]) -> Frames:
        """Return the pictures that the snapshots [frames, bytes] are."""
        assert self._height is not None and self._width is not None, (
            "a snapshot was taken, and with it the size"
        )
        return snapshots.reshape(-1, self._height, self._width, 3)

    def close(self) -> None:
        """Do nothing: the env draws, and closes its own window."""


def require_pictures(env: gym.Env[Any, Any]) -> None:
    """Refuse an env that was not made to draw itself.

    Raises:
        RenderingError: its render mode is not "rgb_array".
    """
    if env.render_mode != "rgb_array":
        raise RenderingError(
            f"{env} has render_mode={env.render_mode!r}, so labels have no pictures to look at; "
            "make it with render_mode='rgb_array'"
        )
