"""Small chance changes of camera and colours between the episodes of a training set. Ours, not in VLP."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True)
class Jitter:
    """How far the look of an episode may be from that of the next; all deviations, 0 leaves a thing as it is.

    A model that has seen one camera only reads a scene that it does not know by chance: moving the camera by 4 cm
    turned as many of its labels as another scene would. Every episode is drawn with one look of its own, whose size is
    a share of these, uniform in [0, 1], so that some are nearly still.
    """

    move_m: float = 0.05
    """Of the camera's place, metres, along every axis."""
    turn_deg: float = 1.5
    """Of its direction, degrees, about every axis."""
    zoom: float = 0.06
    """Of the logarithm of its field of view."""
    tint: float = 0.08
    """Of the logarithm of the brightness of every colour."""
    seed: int = 0
    """Another one gives every episode another look."""

    def __post_init__(self) -> None:
        """Refuse deviations below 0."""
        for name in ("move_m", "turn_deg", "zoom", "tint"):
            if getattr(self, name) < 0:
                raise ValueError(f"Jitter.{name} must be 0 or more, got {getattr(self, name)}")

    @property
    def is_still(self) -> bool:
        """Whether nothing changes."""
        return not (self.move_m or self.turn_deg or self.zoom or self.tint)

    def of_episode(self, seed: int) -> "Jolt":
        """Return what happens to the frames of the episode with this seed."""
        rng = np.random.default_rng([self.seed, seed])
        share = rng.uniform()
        return Jolt(
            move=share * self.move_m * rng.normal(size=3),
            turn=share * np.radians(self.turn_deg) * rng.normal(size=3),
            zoom=float(np.exp(share * self.zoom * rng.normal())),
            gain=np.exp(share * self.tint * rng.normal(size=3)),
        )


STILL = Jitter(0.0, 0.0, 0.0, 0.0)
"""Every episode as the view says, which is how segments are scored."""


@dataclass(frozen=True)
class Jolt:
    """What a `Jitter` does to one episode.

    Attributes:
        move: of the camera, metres, float64 [3].
        turn: of the camera, rotation vector, radians, float64 [3].
        zoom: factor of its field of view.
        gain: factor of every colour, float64 [3].
    """

    move: Float[np.ndarray, "3"]
    turn: Float[np.ndarray, "3"]
    zoom: float
    gain: Float[np.ndarray, "3"]

    def camera(self, model: object, camera: int) -> dict[str, NDArray[np.float64]]:
        """Return the arrays of a MuJoCo model that say where its cameras are, with this one changed.

        Args:
            model: the `MjModel`, which is left as it is.
            camera: number of the camera.
        """
        arrays = {
            name: np.array(getattr(model, name)) for name in ("cam_pos", "cam_quat", "cam_fovy")
        }
        arrays["cam_pos"][camera] += self.move
        # MuJoCo writes a quaternion's real part first.
        before = Rotation.from_quat(np.roll(arrays["cam_quat"][camera], -1))
        after = Rotation.from_rotvec(self.turn) * before
        arrays["cam_quat"][camera] = np.roll(after.as_quat(), 1)
        arrays["cam_fovy"][camera] *= self.zoom
        return arrays

    def tinted(self, frames: Frames) -> Frames:
        """Return the frames with every colour brighter or darker."""
        out: Frames = np.clip(frames * self.gain, 0, 255).round().astype(np.uint8)
        return out
