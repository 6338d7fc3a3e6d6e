"""R3M: how far a sentence is done between the first frame and this one (Nair et al., 2022, arXiv 2203.12601)."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vlp_gym.errors import CheckpointError, MissingExtraError, SettingError
from vlp_gym.models.official import OfficialWeights, file_sha256, locate, read_weights
from vlp_gym.models.resnet import R3MNetwork
from vlp_gym.scorers.frames import FrameScorer
from vlp_gym.scorers.pixels import Fit, check_frames
from vlp_gym.scorers.vip import imagenet_preprocess
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Task


class R3MScorer(FrameScorer):
    """The logit of R3M's language reward head, unbounded; it ranks, and its zero means nothing.

    The first frame is the task's `first_frame`, or else the first of every clip.

    Args:
        network: the network.
        vocabulary: word pieces of DistilBERT, a `vocab.txt`.
        weights: where the network's weights are from.
        fit: how frames of another size are made to fit.
        device: as in `FrameScorer`.
        precision: as in `FrameScorer`.
        n_frames: as in `FrameScorer`.

    Raises:
        CheckpointError: the vocabulary has more entries than the network has.
        MissingExtraError: `transformers`, which brings the tokenizer, is not installed.
    """

    kind: ClassVar[str] = "r3m"
    reads_first_frame = True
    """It compares with the task's `first_frame`, where there is one."""

    def __init__(
        self,
        network: R3MNetwork,
        vocabulary: Path,
        weights: OfficialWeights | None = None,
        fit: Fit = "crop",
        device: str = "auto",
        precision: str = "auto",
        n_frames: int = 8,
    ) -> None:
        preprocess = imagenet_preprocess(fit, by_pillow=True)
        super().__init__(network, preprocess, weights, device, precision, n_frames)
        self._tokenizer = _word_pieces(vocabulary, network)
        self.sha256["vocabulary"] = file_sha256(vocabulary)
        self._sentences: dict[str, Float[Tensor, "1 channels"]] = {}

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "auto",
        *,
        vocabulary: Path | str | None = None,
        sha256: str | None = None,
        **settings: object,
    ) -> "R3MScorer":
        """Return the scorer of R3M's `model.pt`, which must still hold the language head.

        Raises:
            CheckpointError: missing, damaged, of another architecture, or without the language head.
            MissingExtraError: `transformers` is not installed.
        """
        weights = read_weights(locate(cls.kind, given=checkpoint), sha256)
        words = locate(cls.kind, "vocabulary", vocabulary)
        return cls(R3MNetwork.of(weights), words, weights, device=device, **settings)  # type: ignore[arg-type]

    def check(self, task: Task) -> None:
        """Refuse a sentence without words; errors as in `FrameScorer.check`."""
        self.tokens(task.instruction)

    def tokens(self, sentence: str) -> Int[Tensor, "1 words"]:
        """Return the word pieces of a sentence between their marks."""
        return torch.tensor([self._tokenizer.encode(check_instruction(sentence)).ids])

    def _score(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"], task: Task
    ) -> Float[Tensor, "clips frames"]:
        sentence = task.instruction
        if sentence not in self._sentences:
            tokens = self.tokens(sentence).to(self._device)
            self._sentences[sentence] = self._network.read(tokens).float()
        now = self.embed(clips)
        if task.first_frame is None:
            first = now[:, :1].expand_as(now)
        else:
            check_frames(task.first_frame)
            if task.first_frame.shape != clips.shape[2:]:
                raise SettingError(
                    f"the first frame is {list(task.first_frame.shape[:2])} px and the others are "
                    f"{list(clips.shape[2:4])} px; draw or cut it as they are, nothing is resized in silence"
                )
            first = self.embed(task.first_frame[None]).expand_as(now)
        words = self._sentences[sentence].expand(now.shape[0] * now.shape[1], -1)
        parts = (first.flatten(0, 1), now.flatten(0, 1), words)
        logit: Tensor = self._network.progress(*(each.to(self._dtype) for each in parts))
        return logit.view(now.shape[:2])


def _word_pieces(vocabulary: Path, network: R3MNetwork) -> Any:
    try:
        from tokenizers import BertWordPieceTokenizer  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "R3M reads sentences in word pieces; pip install 'vlp-gym[r3m]'"
        ) from error
    try:
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    except Exception as error:  # the library raises bare Exceptions
        raise CheckpointError(f"{vocabulary} is not a vocab.txt of word pieces: {error}") from error
    language: Any = network.lang_enc.model
    rows = len(language.embeddings.word_embeddings.weight)
    if tokenizer.get_vocab_size() > rows:
        raise CheckpointError(
            f"{vocabulary} has {tokenizer.get_vocab_size()} word pieces, the checkpoint has {rows}: it is the "
            "vocabulary of another model; get that of distilbert-base-uncased"
        )
    return tokenizer
