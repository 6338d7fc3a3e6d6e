"""What scorers of frames have in common: batches, device, precision, where weights are from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vlp_gym.errors import SettingError
from vlp_gym.models.device import resolve_device, resolve_precision
from vlp_gym.models.folding import fold_norms
from vlp_gym.models.official import OfficialWeights
from vlp_gym.scorers.identity import identity_of
from vlp_gym.scorers.pictures import as_picture
from vlp_gym.scorers.pixels import Preprocess, check_clips
from vlp_gym.types import Task

FRAMES_AT_ONCE = {"cpu": 16, "cuda": 256}
"""Frames in one call of a network: on a CPU the features of more of them leave its cache."""


class FrameScorer(ABC):
    """Gives every frame a score; a base for what compares embeddings.

    Args:
        network: reads pictures.
        preprocess: what happens to them before.
        weights: where the network's weights are from; None where they are from no file.
        device: where the network runs, "auto" or as torch names it.
        precision: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU, float32 on a CPU.
        n_frames: frames that a labeler draws of every segment.

    Attributes:
        name: which scorer, and the first letters of its file's SHA-256.
        unit: "frame": there is a score for every frame, of which a reward can be made every step.
        n_frames: as given.
        image_size_px: height and width in which frames are best drawn, so that nothing is resized.
        camera: None: the env's own.
        preset: drawing quality.
        preprocess: as given.
        sha256: hash of the weights' file, by role; empty without a file.
    """

    kind: ClassVar[str]
    unit: Literal["frame"] = "frame"
    camera: str | None = None
    preset = "fast"

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        weights: OfficialWeights | None = None,
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        if n_frames < 1:
            raise SettingError(
                f"a scorer draws 1 frame of a segment or more, got n_frames={n_frames}"
            )
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self.preprocess, self.n_frames = preprocess, n_frames
        folded = _folded(network.eval(), self._see, preprocess.size_px)
        self._network: Any = folded.to(self._device, self._dtype)
        self._network.to(memory_format=torch.channels_last)  # convolutions run faster
        # Drawn so large that nothing has to be resized.
        self.image_size_px = preprocess.drawn_px
        self.sha256 = {} if weights is None else {"checkpoint": weights.sha256}
        self.name = self.kind if weights is None else f"{self.kind}:{weights.sha256[:12]}"

    @property
    def identity(self) -> str:
        """The name with all else that scores depend on, beside frames and task."""
        about = {
            "sha256": self.sha256,
            "preprocess": asdict(self.preprocess),
            "precision": str(self._dtype),
        }
        return identity_of(self.name, {**about, **self._settings()})

    def _settings(self) -> dict[str, Any]:
        """Return the settings of a kind of scorer that its scores depend on."""
        return {}

    @torch.inference_mode()
    def __call__(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[np.ndarray, "clips frames"]:
        """Return one score a frame, float32 [clips, frames].

        Raises:
            SettingError: the clips are not uint8 pictures, or the task lacks what this scorer compares with.
            InstructionError: the sentence is longer than the model reads.
        """
        check_clips(clips)
        scores: Float[np.ndarray, "clips frames"] = self._score(clips, task).float().cpu().numpy()
        return scores

    @abstractmethod
    def check(self, task: Task) -> None:
        """Refuse a task that this scorer cannot score frames under, before there are any.

        Raises:
            SettingError: it lacks what frames are compared with.
            InstructionError: the sentence is empty, or longer than the model reads.
        """

    @abstractmethod
    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        """Return the scores, as the network computes them."""

    def embed(
        self, clips: UInt8[np.ndarray, "*clips height width 3"]
    ) -> Float[Tensor, "*clips channels"]:
        """Return the embedding of every frame."""
        flat = torch.from_numpy(np.ascontiguousarray(clips)).flatten(0, -4)
        blocks = torch.split(flat, FRAMES_AT_ONCE.get(self._device.type, 256))
        seen = [self._see(self._network, self._ready(block)) for block in blocks]
        return torch.cat(seen).float().view(*clips.shape[:-3], -1)

    def _ready(
        self, block: UInt8[Tensor, "frames height width 3"]
    ) -> Float[Tensor, "frames 3 size size"]:
        # Sent as uint8, a quarter of the bytes.
        return self.preprocess(block.to(self._device, non_blocking=True)).to(self._dtype)

    @staticmethod
    def _see(
        network: Any, pixels: Float[Tensor, "frames 3 size size"]
    ) -> Float[Tensor, "frames channels"]:
        embedded: Tensor = network.see(pixels)
        return embedded


def _folded(network: nn.Module, see: Callable[[Any, Tensor], Tensor], size_px: int) -> nn.Module:
    # A copy, and of a large transformer a large one: only where there is something to fold.
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    probe = torch.zeros(1, 3, size_px, size_px)
    return fold_norms(network, lambda copy: see(copy, probe))


def goal_pictures(
    goals: Sequence[Any] | UInt8[np.ndarray, "goals height width 3"] | None,
    task: Task,
    clips: UInt8[np.ndarray, "clips frames height width 3"],
    kind: str,
) -> UInt8[np.ndarray, "goals height width 3"]:
    """Return the pictures of the goal: those of the scorer, or the one of the task.

    Raises:
        SettingError: there are none, or they are not pictures of the size of the frames.
    """
    check_goal(goals, task, kind)
    goals = [task.goal_image] if goals is None else goals
    pictures = [as_picture(goal) for goal in goals]
    check_goal_size(pictures, *clips.shape[2:4])
    return np.stack(pictures)


def check_goal_size(
    pictures: Sequence[UInt8[np.ndarray, "height width 3"]], height: int, width: int
) -> None:
    """Refuse pictures of the goal of another size than the frames.

    Raises:
        SettingError: one has another size.
    """
    for picture in pictures:
        if picture.shape != (height, width, 3):
            raise SettingError(
                f"a goal image is {list(picture.shape[:2])} px and the frames are {[height, width]} px; draw or "
                "cut the goal as the frames are, nothing is resized in silence"
            )


def check_goal(goals: Any, task: Task, kind: str) -> None:
    """Refuse a task without a picture of the goal, if the scorer has none.

    Raises:
        SettingError: there is none.
    """
    if task.goal_image is None and (goals is None or len(goals) == 0):
        raise SettingError(
            f"{kind} compares frames with pictures of the goal; give the scorer goal_images=['goal.png'], or the task "
            "a goal_image"
        )
