"""LIV: a CLIP tuned on videos of people; likeness of frame and goal is a value (Ma et al., 2023, arXiv 2306.00958)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vlp_gym.errors import SettingError
from vlp_gym.models.clip import ClipTowers
from vlp_gym.models.official import OfficialWeights, locate, read_weights
from vlp_gym.models.towers import Towers
from vlp_gym.scorers.clip import ClipScorer
from vlp_gym.scorers.frames import check_goal, check_goal_size, goal_pictures
from vlp_gym.scorers.pictures import listed, pictures_of
from vlp_gym.scorers.pixels import Fit, Preprocess
from vlp_gym.types import Task

MODEL = "RN50-quickgelu"
"""open_clip's name of LIV's architecture, OpenAI's RN50."""


class LIVScorer(ClipScorer):
    """Likeness of a frame and the sentence, or a picture of the goal.

    Args:
        towers: the model.
        weights: where its weights are from.
        goal: whether "text" (the instruction) or "image" (the task's goal image, or `goal_images`) is compared with.
        metric: "cosine" in [-1, 1], or "l2": minus the distance of the embeddings before they are normalised.
        goal_images: pictures of the goal, uint8 [height, width, 3] or files, whose embeddings are averaged.
        fit: LIV keeps proportions and cuts out the centre.
        antialias: whether a picture that shrinks is smoothed first; LIV's tensors are not.
        device: as in `FrameScorer`.
        precision: as in `FrameScorer`.
        n_frames: as in `FrameScorer`.
    """

    kind: ClassVar[str] = "liv"

    def __init__(
        self,
        towers: ClipTowers,
        weights: OfficialWeights | None = None,
        goal: Literal["text", "image"] = "text",
        metric: Literal["cosine", "l2"] = "cosine",
        goal_images: str | Path | Sequence[Any] | None = None,
        fit: Fit = "crop",
        antialias: bool = False,
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        if goal not in ("text", "image") or metric not in ("cosine", "l2"):
            raise SettingError(
                f"LIV compares with goal='text' or 'image' by metric='cosine' or 'l2', got {goal!r} and {metric!r}"
            )
        pictures = listed(goal_images)
        if goal == "text" and pictures is not None:
            raise SettingError(
                "LIV was given goal_images and compares with goal='text', so that nobody would look at them; choose "
                "goal='image', or leave them out"
            )
        self._goal, self._metric, self._goal_images = goal, metric, pictures
        self._antialias = antialias
        towers.normalizes = metric == "cosine"
        super().__init__(towers, weights, fit, device, precision, n_frames)

    def _settings(self) -> dict[str, Any]:
        goal = {"goal": self._goal, "goal_images": pictures_of(self._goal_images)}
        return {**super()._settings(), "metric": self._metric, **goal}

    def _preprocess_of(self, towers: Towers) -> Preprocess:
        return Preprocess(
            towers.image_size_px,
            towers.mean,
            towers.std,
            self._fit,
            interpolation="bilinear",
            antialias=self._antialias,
        )

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        *,
        model: str = MODEL,
        sha256: str | None = None,
        **settings: object,
    ) -> "LIVScorer":
        """Return the scorer of LIV's `model.pt`; arguments and errors as in `ClipScorer.load`."""
        weights = read_weights(locate(cls.kind, given=checkpoint), sha256).below("model.")
        return cls(ClipTowers.of(model, weights), weights, device=device, **settings)  # type: ignore[arg-type]

    def check_size(self, height: int, width: int) -> None:
        """Refuse frames of another size than the pictures of the goal; errors as in `check_goal_size`."""
        check_goal_size(pictures_of(self._goal_images) or [], height, width)

    def check(self, task: Task) -> None:
        """Refuse a task without what frames are compared with; errors as in `FrameScorer.check`."""
        if self._goal == "text":
            self.read(task.instruction)
        else:
            check_goal(self._goal_images, task, "LIV")

    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        seen = self.embed(clips)
        if self._goal == "text":
            goal = self.read(task.instruction)
        else:
            goal = self.embed(goal_pictures(self._goal_images, task, clips, "LIV")).mean(0)
        if self._metric == "l2":
            distance: Tensor = torch.linalg.vector_norm(seen - goal, dim=-1)
            return -distance
        return seen @ F.normalize(goal, dim=-1)
