"""CLIP and VLM-RM: how alike a frame and a sentence are, plain or along the way from a baseline to the goal.

VLM-RM is Rocamonde et al., 2023, arXiv 2310.12921, definition 1. LIV is a CLIP of its own weights, see `liv.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vlp_gym.errors import InstructionError, SettingError
from vlp_gym.models.clip import ClipTowers
from vlp_gym.models.official import OfficialWeights, locate, read_weights
from vlp_gym.models.stand_in import BundledTowers
from vlp_gym.models.towers import Towers
from vlp_gym.scorers.frames import FrameScorer
from vlp_gym.scorers.pixels import Fit, Preprocess
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Task

DEFAULT_MODEL = "ViT-B-16-quickgelu"
"""open_clip's name of VLP's backbone with OpenAI's weights; which one its CLIP and VLM-RM had is not said."""
BUNDLED = "bundled"
"""Names, in the place of a file, the encoder that the package ships: a stand-in for CLIP, and called so."""
SAME = 1e-6
"""Prompts whose embeddings are closer than this are one prompt."""


def vlmrm_reward(
    frames: Float[Tensor, "*frames channels"],
    target: Float[Tensor, " channels"],
    baseline: Float[Tensor, " channels"] | None = None,
    alpha: float = 0.0,
) -> Float[Tensor, "*frames"]:
    """Return VLM-RM's reward of frames: 1 - |P (s - g)|^2 / 2, P = alpha d d' / |d|^2 + (1 - alpha) I, d = g - b.

    P has two eigenvalues, 1 along d and 1 - alpha across it, so no matrix is needed:
    |P x|^2 = (1 - alpha)^2 |x|^2 + (1 - (1 - alpha)^2) (x d / |d|)^2.

    Args:
        frames: s, unit vectors.
        target: g, a unit vector, or the mean of several, which is shorter than 1 and stays so.
        baseline: b, the same of the baseline; None only where alpha is 0.
        alpha: 0: cosine (for one prompt); 1: only the way from baseline to target counts.

    Raises:
        SettingError: alpha is outside of [0, 1], or above 0 without a baseline, or baseline and target are the same.
    """
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha must lie in [0, 1], got {alpha}")
    off = frames - target
    squared = (1 - alpha) ** 2 * off.square().sum(-1)
    if alpha > 0:
        if baseline is None:
            raise SettingError(
                f"alpha={alpha} projects on the way from a baseline to the target; say what the scene looks like "
                "without the goal (baseline), or use alpha=0"
            )
        direction = target - baseline
        length = direction.norm()
        if length < SAME:
            raise SettingError(
                "target and baseline are the same prompt, between which there is no direction to project on"
            )
        squared = squared + (1 - (1 - alpha) ** 2) * (off @ (direction / length)).square()
    return 1 - squared / 2


class ClipScorer(FrameScorer):
    """Cosine of a frame and the instruction, in [-1, 1]: VLM-RM's reward at alpha 0.

    Args:
        towers: the model.
        weights: where its weights are from.
        fit: how frames of another size are made to fit; stock CLIP keeps proportions and cuts out the centre ("crop").
        device: as in `FrameScorer`.
        precision: as in `FrameScorer`.
        n_frames: as in `FrameScorer`.
    """

    kind: ClassVar[str] = "clip"

    def __init__(
        self,
        towers: Towers,
        weights: OfficialWeights | None = None,
        fit: Fit = "crop",
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        self._fit: Fit = fit
        super().__init__(towers, self._preprocess_of(towers), weights, device, precision, n_frames)
        self._fingerprint = towers.fingerprint
        if towers.fingerprint is not None:
            self.name = f"{self.kind}:{towers.name}"
        self._sentences: dict[str, Float[Tensor, " channels"]] = {}

    def _settings(self) -> dict[str, Any]:
        return {"model": self._network.name, "fingerprint": self._fingerprint}

    def _preprocess_of(self, towers: Towers) -> Preprocess:
        # open_clip hands over pictures.
        return Preprocess(
            towers.image_size_px, towers.mean, towers.std, self._fit, antialias=True, by_pillow=True
        )

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        *,
        model: str = DEFAULT_MODEL,
        sha256: str | None = None,
        **settings: object,
    ) -> "ClipScorer":
        """Return the scorer of an open_clip state dict.

        Args:
            checkpoint: the file; None looks for it, see `vlp_gym.models.official`; "bundled" is the encoder that the
                package ships, a stand-in for CLIP.
            device: where it runs.
            model: open_clip's name of the architecture.
            sha256: refuse any other file.
            settings: further arguments of the constructor.

        Raises:
            CheckpointError: missing, damaged or of another architecture.
            UnknownNameError: open_clip knows no such model.
        """
        if checkpoint == BUNDLED:
            return cls(BundledTowers.load(), device=device, **settings)  # type: ignore[arg-type]
        weights = read_weights(locate(cls.kind, given=checkpoint), sha256)
        return cls(ClipTowers.of(model, weights), weights, device=device, **settings)  # type: ignore[arg-type]

    def check(self, task: Task) -> None:
        """Refuse a sentence that cannot be read; errors as in `FrameScorer.check`."""
        self.read(task.instruction)

    @torch.inference_mode()
    def read(self, sentence: str) -> Float[Tensor, " channels"]:
        """Return a sentence as a unit vector.

        Raises:
            InstructionError: it is empty, or longer than the text tower reads.
        """
        if sentence not in self._sentences:
            tokens = self._network.tokenize(check_instruction(sentence))[None]
            self._sentences[sentence] = self._network.read(tokens.to(self._device))[0]
        return self._sentences[sentence]

    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        return self.embed(clips) @ self.read(task.instruction)


class VLMRMScorer(ClipScorer):
    """VLM-RM: what a frame and the goal have in common, projected on the way from the baseline to the goal.

    Args:
        towers: the model.
        weights: where its weights are from.
        alpha: share of the projection, in [0, 1]; the paper's humanoids have 0.
        baseline: what the scene looks like without the goal, one sentence or several; None takes the task's.
        targets: the goal in one sentence, or several whose embeddings are averaged; None takes the task's instruction.
        fit: "squash" is VLM-RM's: proportions are lost, nothing is cut off.
        antialias: whether a picture that shrinks is smoothed first. VLM-RM leaves that to torchvision, which did not
            when it was published (0.15) and does today.
        device: as in `FrameScorer`.
        precision: as in `FrameScorer`.
        n_frames: as in `FrameScorer`.

    Raises:
        SettingError: alpha is outside of [0, 1].
    """

    kind: ClassVar[str] = "vlmrm"

    def __init__(
        self,
        towers: Towers,
        weights: OfficialWeights | None = None,
        alpha: float = 0.0,
        baseline: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        fit: Fit = "squash",
        antialias: bool = True,
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise SettingError(f"alpha must lie in [0, 1], got {alpha}")
        self.alpha, self._antialias = alpha, antialias
        self._baseline = [baseline] if isinstance(baseline, str) else baseline
        self._targets = [targets] if isinstance(targets, str) else targets
        super().__init__(towers, weights, fit, device, precision, n_frames)

    def _settings(self) -> dict[str, Any]:
        prompts = {"baseline": self._baseline, "targets": self._targets}
        return {**super()._settings(), "alpha": self.alpha, **prompts}

    def _preprocess_of(self, towers: Towers) -> Preprocess:
        size, mean, std = towers.image_size_px, towers.mean, towers.std
        return Preprocess(size, mean, std, self._fit, antialias=self._antialias)

    def check(self, task: Task) -> None:
        """Refuse prompts that cannot be read or are the same; errors as in `FrameScorer.check`."""
        target, baseline = self._prompts(task)
        vlmrm_reward(target[None], target, baseline, self.alpha)

    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        return vlmrm_reward(self.embed(clips), *self._prompts(task), self.alpha)

    def _prompts(
        self, task: Task
    ) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"] | None]:
        """Return the embeddings of target and baseline."""
        targets = list(self._targets or [task.instruction])
        baselines = list(self._baseline or ([task.baseline] if task.baseline else []))
        if set(targets) == set(baselines):
            raise InstructionError(
                f"target and baseline are both {targets[0]!r}; the baseline describes the scene without the goal"
            )
        return self._mean(targets), self._mean(baselines) if baselines else None

    def _mean(self, sentences: Sequence[str]) -> Float[Tensor, " channels"]:
        # Not normalised again, as in VLM-RM.
        return torch.stack([self.read(each) for each in sentences]).mean(0)
