"""VIP: how far a frame is from a picture of the goal (Ma et al., 2023, arXiv 2210.00030); it reads no sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vlp_gym.models.official import OfficialWeights, locate, read_weights
from vlp_gym.models.resnet import VIPNetwork
from vlp_gym.scorers.frames import FrameScorer, check_goal, check_goal_size, goal_pictures
from vlp_gym.scorers.pictures import listed, pictures_of
from vlp_gym.scorers.pixels import IMAGENET_MEAN, IMAGENET_STD, Fit, Preprocess
from vlp_gym.types import Task

SIZE_PX, RESIZE_PX = 224, 256
"""Side of the square that R3M and VIP read, and of the shorter side that it is cut from."""


def imagenet_preprocess(fit: Fit, by_pillow: bool = False) -> Preprocess:
    """Return what R3M and VIP do with frames: shorter side to 256, the centre of 224, ImageNet's mean and deviation.

    VIP's network resizes tensors of any numbers, R3M's example resizes pictures (`by_pillow`).
    """
    return Preprocess(
        SIZE_PX,
        IMAGENET_MEAN,
        IMAGENET_STD,
        fit,
        RESIZE_PX,
        interpolation="bilinear",
        antialias=True,
        by_pillow=by_pillow,
    )


class VIPScorer(FrameScorer):
    """V(o; g) = -|phi(o) - phi(g)|, in (-inf, 0]; with several goal images phi(g) is the mean of theirs.

    VIP's own reward is the difference of two such values; a reward "potential" pays that.

    Args:
        network: the network.
        weights: where its weights are from.
        goal_images: pictures of the goal, uint8 [height, width, 3] or files; None takes the task's.
        fit: "crop" is what the official model does to every frame, also to one of 224 x 224 pixels.
        device: as in `FrameScorer`.
        precision: as in `FrameScorer`.
        n_frames: as in `FrameScorer`.
    """

    kind: ClassVar[str] = "vip"

    def __init__(
        self,
        network: VIPNetwork,
        weights: OfficialWeights | None = None,
        goal_images: str | Path | Sequence[Any] | None = None,
        fit: Fit = "crop",
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        self._goal_images = listed(goal_images)
        super().__init__(network, imagenet_preprocess(fit), weights, device, precision, n_frames)

    def _settings(self) -> dict[str, Any]:
        return {"goal_images": pictures_of(self._goal_images)}

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        *,
        sha256: str | None = None,
        **settings: object,
    ) -> "VIPScorer":
        """Return the scorer of VIP's `model.pt`.

        Raises:
            CheckpointError: missing, damaged or of another architecture.
        """
        weights = read_weights(locate(cls.kind, given=checkpoint), sha256)
        return cls(VIPNetwork.of(weights), weights, device=device, **settings)  # type: ignore[arg-type]

    def check_size(self, height: int, width: int) -> None:
        """Refuse frames of another size than the pictures of the goal; errors as in `check_goal_size`."""
        check_goal_size(pictures_of(self._goal_images) or [], height, width)

    def check(self, task: Task) -> None:
        """Refuse a task without a picture of the goal; errors as in `FrameScorer.check`."""
        check_goal(self._goal_images, task, "VIP")

    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        goals = goal_pictures(self._goal_images, task, clips, "VIP")
        off = self.embed(clips) - self.embed(goals).mean(0)
        distance: Tensor = torch.linalg.vector_norm(off, dim=-1)
        return -distance
