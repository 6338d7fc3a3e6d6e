"""Stands for the preference model on real envs: quick, and there before one is trained."""

import numpy as np
from numpy.typing import NDArray

from vlp_gym.types import Task


class Brightness:
    """Prefers the brighter clip."""

    name, n_frames, image_size_px, camera, preset = "brightness", 2, 32, "corner4", "draft"

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        return clips.mean((1, 2, 3, 4), dtype=np.float32)[:, None]
