"""RoboCLIP: how alike a whole trajectory is to a sentence or to a video (Sontakke et al., 2023, arXiv 2310.07899)."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vlp_gym.errors import CheckpointError, InstructionError, SettingError
from vlp_gym.models.device import resolve_device, resolve_precision
from vlp_gym.models.folding import fold_norms
from vlp_gym.models.official import OfficialWeights, file_sha256, locate, read_weights
from vlp_gym.models.s3d import EMBEDDING, MAX_WORDS, S3D
from vlp_gym.scorers.identity import identity_of
from vlp_gym.scorers.pictures import as_video, listed
from vlp_gym.scorers.pixels import check_clips
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Task

logger = logging.getLogger(__name__)

CLIPS_AT_ONCE = {"cpu": 1, "cuda": 16}
"""Videos in one call of the network: one fills the memory caches of a CPU many times over."""
RELEASED_PX, RELEASED_CROP_PX = (480, 640), 250
"""Height and width that RoboCLIP's code draws, and the side of the square that it cuts out of the middle."""

ValueRange = Literal["unit", "released"]
"""`unit`: colours in [0, 1], as S3D was trained. `released`: 0 to 255, as the code that RoboCLIP published feeds it."""


class RoboCLIPScorer:
    """The dot product of S3D's embeddings of a trajectory and of what is wanted; unbounded, one number a clip.

    Args:
        network: the network.
        words: its dictionary, without the padding at 0.
        weights: where the network's weights are from.
        demonstrations: videos of what is wanted, uint8 [frames, height, width, 3] or files; with several, their dot
            products are added. None compares with the instruction.
        value_range: see `ValueRange`; it holds for demonstrations as well.
        picture_px: height and width of the frames as they are drawn; the released code draws 480 x 640.
        crop_px: side of the square that is cut out of the middle, without resizing, or None; the released code cuts
            out 250.
        crop_demonstrations: whether it is cut out of demonstrations, too: the released code does so with those of
            robots, and not with those of people.
        n_frames: frames of a clip, even.
        keeps_last: whether the last frame of a trajectory is among them. In the released code it is not: it takes every
            fourth frame from the first on, so that the last three of 128 are never seen.
        device: where the network runs, "auto" or as torch names it.
        precision: as in `FrameScorer`.

    Attributes:
        unit: "clip": there is one score for a whole clip, at its end.

    Raises:
        SettingError: odd numbers of frames or pixels, of which S3D cannot make blocks of two.
    """

    unit: Literal["clip"] = "clip"
    camera: str | None = None
    preset = "fast"

    def __init__(
        self,
        network: S3D,
        words: Sequence[str],
        weights: OfficialWeights | None = None,
        demonstrations: str | Path | Sequence[Any] | None = None,
        value_range: ValueRange = "unit",
        picture_px: tuple[int, int] | list[int] = (224, 224),
        crop_px: int | None = None,
        crop_demonstrations: bool = False,
        n_frames: int = 32,
        keeps_last: bool = True,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        if value_range not in ("unit", "released"):
            raise SettingError(f"value_range must be 'unit' or 'released', got {value_range!r}")
        height, width = (crop_px, crop_px) if crop_px else picture_px
        _check_even(n_frames, height, width)
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        probe = torch.zeros(1, 3, 2, 32, 32)
        folded = fold_norms(network, lambda net: net.video(probe))
        self._network: S3D = folded.to(self._device, self._dtype)
        self._place = {word: place for place, word in enumerate(words, start=1)}
        self.value_range, self._crop_px = value_range, crop_px
        self.image_size_px: tuple[int, int] = (int(picture_px[0]), int(picture_px[1]))
        self.n_frames, self.keeps_last = n_frames, keeps_last
        self.sha256 = {} if weights is None else {"checkpoint": weights.sha256}
        self.name = "roboclip" if weights is None else f"roboclip:{weights.sha256[:12]}"
        self._targets: dict[str, Float[Tensor, " channels"]] = {}
        self._demonstrations = listed(demonstrations)
        self._crop_demonstrations = crop_demonstrations

    @property
    def identity(self) -> str:
        """The name with all else that scores depend on, beside frames and task."""
        videos = self._demonstrations
        about = {
            "sha256": self.sha256,
            "precision": str(self._dtype),
            "value_range": self.value_range,
            "crop_px": self._crop_px,
            "demonstrations": None if videos is None else [as_video(each) for each in videos],
            "crop_demonstrations": self._crop_demonstrations,
        }
        return identity_of(self.name, about)

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        *,
        vocabulary: Path | str | None = None,
        sha256: str | None = None,
        **settings: object,
    ) -> "RoboCLIPScorer":
        """Return the scorer of `s3d_howto100m.pth` and `s3d_dict.npy`.

        Raises:
            CheckpointError: missing, damaged or of another architecture.
        """
        weights = read_weights(locate("roboclip", given=checkpoint), sha256)
        path = locate("roboclip", "vocabulary", vocabulary)
        words = read_words(path)
        rows = len(weights.tensors.get("text_module.word_embd.weight", ()))
        if rows and len(words) + 1 != rows:
            raise CheckpointError(
                f"{path} has {len(words)} words, {weights.path} has {rows - 1}: they do not belong together"
            )
        out = len(weights.tensors.get("fc.weight", range(EMBEDDING)))
        network = S3D(rows or len(words) + 1, out)
        weights.load_into(network)
        scorer = cls(network, words, weights, device=device, **settings)  # type: ignore[arg-type]
        scorer.sha256["vocabulary"] = file_sha256(path)
        return scorer

    @torch.inference_mode()
    def __call__(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[np.ndarray, "clips 1"]:
        """Return one score a clip, float32 [clips, 1].

        Raises:
            SettingError: the clips are not uint8 pictures, or have odd numbers of frames or pixels.
            InstructionError: no word of the sentence is in the dictionary.
        """
        score = self.embed(self._cropped(clips)) @ self._target(task)
        scores: Float[np.ndarray, "clips 1"] = score.float().unsqueeze(1).cpu().numpy()
        return scores

    def check(self, task: Task) -> None:
        """Refuse a sentence that the dictionary has no word of, unless videos are compared with.

        Raises:
            InstructionError: see `tokens`.
        """
        if self._demonstrations is None:
            self.tokens(task.instruction)

    @torch.inference_mode()
    def embed(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"]
    ) -> Float[Tensor, "clips channels"]:
        """Return the embedding of clips."""
        _check_even(*clips.shape[1:4])
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3)
        blocks = torch.split(pixels, CLIPS_AT_ONCE.get(self._device.type, 1))
        return torch.cat([self._network.video(self._scaled(each)) for each in blocks]).float()

    def _scaled(self, pixels: UInt8[Tensor, "clips 3 frames height width"]) -> Tensor:
        values = pixels.to(self._device).float()
        if self.value_range == "unit":
            values = values.div_(255)
        return values.to(self._dtype).contiguous()

    def _cropped(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"]
    ) -> UInt8[np.ndarray, "clips frames rows columns 3"]:
        check_clips(clips)
        if self._crop_px is None:
            return clips
        height, width = clips.shape[2:4]
        if min(height, width) < self._crop_px:
            raise SettingError(
                f"crop_px={self._crop_px} does not fit into frames of {height} x {width} px; draw larger ones"
            )
        top, left = (height - self._crop_px) // 2, (width - self._crop_px) // 2
        return clips[:, :, top : top + self._crop_px, left : left + self._crop_px]

    def _target(self, task: Task) -> Float[Tensor, " channels"]:
        key = "" if self._demonstrations is not None else task.instruction
        if key not in self._targets:
            if self._demonstrations is None:
                tokens = self.tokens(task.instruction)[None].to(self._device)
                self._targets[key] = self._network.text(tokens)[0].float()
            else:
                self._targets[key] = self._demonstrated()
        return self._targets[key]

    def _demonstrated(self) -> Float[Tensor, " channels"]:
        videos = [as_video(each)[None] for each in self._demonstrations or ()]
        if self._crop_demonstrations:
            videos = [self._cropped(each) for each in videos]
        return torch.cat([self.embed(each) for each in videos]).sum(0)

    def coverage(self, sentence: str) -> tuple[list[str], list[str]]:
        """Return which words of a sentence are in the dictionary, and which are not and will not be read."""
        words = re.findall(r"[\w']+", sentence.lower())
        return [w for w in words if w in self._place], [w for w in words if w not in self._place]

    def tokens(self, sentence: str) -> Int[Tensor, " words"]:
        """Return the places of a sentence's words in the dictionary, padded with 0 to sixteen.

        Raises:
            InstructionError: none of its words is in the dictionary, or more than sixteen are.
        """
        known, unknown = self.coverage(check_instruction(sentence))
        if not known:
            raise InstructionError(
                f"no word of {sentence!r} is in S3D's dictionary of {len(self._place):,} words; say it in others"
            )
        if len(known) > MAX_WORDS:
            raise InstructionError(f"S3D reads {MAX_WORDS} words, {sentence!r} has {len(known)}")
        if unknown:
            logger.warning(
                "S3D's dictionary lacks %s, so that %r is read as %r",
                ", ".join(unknown),
                sentence,
                " ".join(known),
            )
        places = [self._place[word] for word in known]
        return torch.tensor(places + [0] * (MAX_WORDS - len(places)))


def read_words(path: Path) -> list[str]:
    """Return the words of `s3d_dict.npy`, in order.

    Raises:
        CheckpointError: the file holds no words.
    """
    try:
        words = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path} is not S3D's dictionary: {error}") from error
    if words.ndim != 1 or words.dtype.kind != "U":
        raise CheckpointError(
            f"{path} is not S3D's dictionary: expected a list of words, got {words.dtype} {list(words.shape)}"
        )
    return [str(word) for word in words]


def _check_even(n_frames: int, height: int, width: int) -> None:
    if n_frames % 2 or height % 2 or width % 2 or n_frames < 2:
        raise SettingError(
            "S3D reads blocks of 2 x 2 x 2, so frames, height and width must be even, got "
            f"{n_frames} frames of {height} x {width} px"
        )
