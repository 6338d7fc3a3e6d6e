"""The preference model as a scorer."""

import copy
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.models.vlp import Words
from vlp_gym.scorers.pixels import check_clips
from vlp_gym.tasks.instructions import COLOURS, check_instruction, words_of
from vlp_gym.types import Task

logger = logging.getLogger(__name__)

OPEN_MARGIN = 3.0
"""`VLPConfig.match_margin` with which nearly every clip counts as one that is about its sentence."""


class VLPScorer:
    """Scores clips by how well they follow a sentence: one number a clip, of which only differences count.

    Attributes:
        name: which scorer, and which weights.
        identity: that, and how it reads its match: what scores are kept by.
        unit: "clip": there is one score for a whole clip, at its end.
        n_frames: frames of a clip.
        image_size_px: height and width of a frame.
        camera: the camera that the model was trained on.
        preset: the drawing quality that it was trained on.
    """

    unit: Literal["clip"] = "clip"
    is_log_odds = True
    """A difference of scores is the log-odds of a preference (Bradley-Terry)."""

    def __init__(self, checkpoint: Checkpoint, match_margin: float | int | None = None) -> None:
        self._checkpoint, self._match_margin = checkpoint, match_margin
        self._model = copy.copy(checkpoint.model)  # the same weights, read in another way
        if match_margin is not None:
            self._model.config = checkpoint.model.config.with_margin(match_margin)
        config = self._model.config
        self._encoders = checkpoint.model.encoders.for_inference()
        self._device = checkpoint.model.place.device
        self._words: dict[str, Words] = {}
        self.name = f"vlp:{checkpoint.training.get('fingerprint', 'unknown')}"
        self.identity = f"{self.name}; {config.reading if config.match_width else 'no match'}"
        self.n_frames = config.n_frames
        self.image_size_px = checkpoint.view.size_px
        self.camera = checkpoint.view.camera
        self.preset = checkpoint.view.preset

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        match_margin: float | int | None = None,
    ) -> "VLPScorer":
        """Return the scorer of a checkpoint; None is the bundled model.

        Args:
            checkpoint: as of `Checkpoint.from_pretrained`.
            device: "auto" or as torch names it.
            match_margin: another margin than the model's, see `VLPConfig.match_margin`.

        Raises:
            CheckpointError: the checkpoint is missing or damaged.
            SettingError: a margin that is no finite number, or of a model without a match.
        """
        found = Checkpoint.from_pretrained(checkpoint, str(resolve_device(device)))
        return cls(found, match_margin)

    def of_one_scene(self) -> "VLPScorer":
        """Return the scorer of the same model for clips that are all of one scene, whatever it looks like.

        The match tells scenes apart, and is not sure of one under a camera or in colours that it does not know. Where
        there is one scene there is nothing to tell apart: a margin of `OPEN_MARGIN` stands in the place of the model's,
        unless another one was named.
        """
        if self._match_margin is not None or not self._model.config.match_width:
            return self
        return VLPScorer(self._checkpoint, OPEN_MARGIN)

    @torch.inference_mode()
    def check(self, task: Task) -> None:
        """Refuse a sentence that the model cannot read, and warn of words in it that training did not have.

        Raises:
            InstructionError: as when clips are scored.
        """
        self._read(task.instruction)

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that were in none of training, colours aside.

        The model reads such words by what its encoder knew of them before, and may take them for their opposites. Of a
        checkpoint that does not say what it was trained on, none.
        """
        trained = self._checkpoint.training.get("words", ())
        if not trained:
            return []
        known = COLOURS.union(trained)
        return [word for word in dict.fromkeys(words_of(sentence)) if word not in known]

    @torch.inference_mode()
    def __call__(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[np.ndarray, "clips 1"]:
        """Return one score a clip, float32 [clips, 1].

        Raises:
            SettingError: they are no clips of uint8 pictures, or none at all.
            ValueError: the clips are not of the size and number of frames that the model reads.
            InstructionError: the sentence is longer than the model reads, or none that it can read.
        """
        self._check(clips)
        words = self._read(task.instruction)
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(self._device)
        # A block goes through the whole model before the next: features of all clips are never held at once.
        at_once = max(1, self._encoders.frames_at_once // self.n_frames)
        score = torch.cat([self._score(block, words) for block in torch.split(pixels, at_once)])
        scores: Float[np.ndarray, "clips 1"] = score.float().unsqueeze(1).cpu().numpy()
        return scores

    def _score(
        self, clips: UInt8[Tensor, "clips frames height width 3"], words: Words
    ) -> Float[Tensor, " clips"]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            features = self._encoders.frames(clips.flatten(0, 1))
            features = features.view(*clips.shape[:2], *features.shape[1:])
            same = torch.zeros(len(clips), dtype=torch.long, device=self._device)
            return self._model.score(self._model.read_video(features), words[same])

    def _read(self, sentence: str) -> Words:
        if sentence not in self._words:
            tokens = self._model.encoders.tokenize(check_instruction(sentence))[None].to(
                self._device
            )
            self._words[sentence] = self._model.read_words(tokens)
            if unknown := self.unknown_words(sentence):
                logger.warning(
                    "the preference model was not trained with %s, and may read %r as the opposite: say it in words "
                    "that it knows (`vlp instructions TASK`), or look at labels before you trust them (`vlp label`)",
                    ", ".join(map(repr, unknown)),
                    sentence,
                )
        return self._words[sentence]

    def _check(self, clips: UInt8[np.ndarray, "clips frames height width 3"]) -> None:
        check_clips(clips)
        expected = (self.n_frames, self.image_size_px, self.image_size_px, 3)
        if clips.shape[1:] != expected:
            raise ValueError(
                f"this model reads uint8 clips of {expected} (frames, height, width, RGB), got {clips.shape[1:]}; draw "
                f"them with camera {self.camera!r} at {self.image_size_px} px"
            )
