"""The vision-language preference model: one score for a clip under a sentence (VLP, arXiv 2502.11918, section 3).

Video and words go through self-attention apart, then attend to each other, are averaged, joined and scored.
Two clips are compared by the difference of their scores (Bradley-Terry, VLP eq. 3). Ours adds a second, much
simpler question, whether the clip shows what the sentence speaks of at all.
"""

import math
from dataclasses import dataclass, fields, replace
from inspect import formatannotation
from typing import Any, Literal, get_args, get_origin

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vlp_gym.errors import SettingError
from vlp_gym.models.aim import Aim
from vlp_gym.models.cross_attention import CrossBlock
from vlp_gym.models.encoders import ClipEncoders


@dataclass(frozen=True)
class VLPConfig:
    """Sizes of the model. Defaults are the bundled compact model; the paper's values stand in the notes."""

    clip: str = "vlp-compact"
    """open_clip config of the encoders, with CLIP's own text tower; paper: ViT-B-16."""
    stages: tuple[int, ...] = (2, 3)
    """Intermediate features that make a patch; paper: the last layer of the ViT, (11,)."""
    image_size_px: int = 128
    """Height and width of a frame; paper: 224."""
    n_frames: int = 4
    """Frames of a clip, uniformly spaced; paper: 8."""
    frames: Literal["stack", "sequence"] = "stack"
    """`stack` joins the frames of one place into one token (the camera is fixed); `sequence` keeps a token for every
    place and frame. Which of the two the paper used is not said."""
    width: int = 96
    """Width of a token; paper: 512."""
    self_layers: int = 2
    """Self-attention layers of each modality; paper: 2."""
    cross_layers: int = 1
    """Layers in which video and words attend to each other."""
    heads: int = 4
    """Attention heads; LAPP, which VLP builds on: 16."""
    mlp_ratio: int = 2
    """Hidden width of a layer's MLP over its width; LAPP: 4."""
    dropout: float = 0.1
    """LAPP: 0; ours was not compared with it."""
    head: tuple[int, ...] = (256, 128)
    """Hidden layers of the score head; paper: (512, 256)."""
    score_head: Literal["linear", "sigmoid"] = "linear"
    """`linear`: any number; `sigmoid`: within (0, 1), as the published loss values suggest."""
    aim: bool = True
    """Whether the score head also reads which way the sentence wants things moved, and how far they are that way
    (ours; False: the score is made as published)."""
    match_width: int = 64
    """Width in which what a clip shows and what a sentence speaks of are compared (ours); 0: no such comparison, the
    score is the head's alone, as published."""
    match_worth: float = 14.0
    """Score of a clip that shows what the sentence speaks of and has got nowhere yet; of a linear head."""
    match_margin: float = 0.5
    """Added to the logit of a match before it is sharpened: with more of it a clip that might be of the task counts as
    one that is."""
    match_sharpness: float = 12.0
    """What that logit is multiplied with: what clips of one task show differs a little, and where it decides nothing it
    should order nothing."""
    match_floor: float = 0.05
    """Share of the worth that a clip of something else keeps: it loses to every clip that matches, and under a sentence
    that nothing seems to match clips are in the order of their progress still."""

    def __post_init__(self) -> None:
        """Refuse values of another kind, sizes of which no model can be made, and a match that turns scores round."""
        for each in fields(self):
            value, kind = getattr(self, each.name), each.type
            if not _is_of(kind, value):
                expected = "a finite number" if kind is float else formatannotation(kind)
                raise SettingError(f"{each.name} must be {expected}, got {value!r}")
            # Progress is made from one frame to another, and a model may have no match.
            least = {"n_frames": 2, "match_width": 0}.get(each.name, 1)
            if kind is int and value < least:
                raise SettingError(f"{each.name} must be {least} or more, got {value}")
        if not self.stages or min(self.head, default=1) < 1:
            raise SettingError(
                f"stages must name one or more, and head widths of 1 or more; got {self.stages} and {self.head}"
            )
        if self.width % self.heads:
            raise SettingError(f"width {self.width} must be a multiple of heads, {self.heads}")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be 0 or more and below 1, got {self.dropout}")
        if not (self.match_sharpness > 0 and 0 <= self.match_floor < 1):
            raise SettingError(
                "match_sharpness must be above 0, and match_floor 0 or more and below 1; got "
                f"{self.match_sharpness} and {self.match_floor}"
            )

    @property
    def reading(self) -> dict[str, Any]:
        """How a match is read, which has nothing to do with the shape of weights."""
        return {
            "match_margin": self.match_margin,
            "match_sharpness": self.match_sharpness,
            "match_floor": self.match_floor,
        }

    def with_margin(self, margin: float | int) -> "VLPConfig":
        """Return the same model with another `match_margin`.

        Raises:
            SettingError: it is no finite number, or the model has no match.
        """
        if not self.match_width or not math.isfinite(margin):
            raise SettingError(
                f"match_margin is a finite number, of models that have a match; got {margin} for match_width "
                f"{self.match_width}"
            )
        return replace(self, match_margin=float(margin))


def _is_of(kind: Any, value: Any) -> bool:
    """Return whether a value is of the kind that a field of `VLPConfig` names; a bool is no number."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(int, each) for each in value)
    if kind is float:
        return _is_of(int, value) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


@dataclass(frozen=True)
class Video:
    """Clips as the model has read them.

    Attributes:
        tokens: after self-attention.
        shown: what the clips show, whatever happens in them; unit vectors, of width 0 in a model without a match.
    """

    tokens: Float[Tensor, "clips tokens width"]
    shown: Float[Tensor, "clips match"]

    def __getitem__(self, rows: Int[Tensor, " rows"]) -> "Video":
        """Return these clips, in this order."""
        return Video(self.tokens[rows], self.shown[rows])


@dataclass(frozen=True)
class Words:
    """Sentences as the model has read them.

    Attributes:
        tokens: after self-attention.
        is_word: which tokens are words and not padding.
        meant: what the sentences speak of; unit vectors, of width 0 in a model without a match.
    """

    tokens: Float[Tensor, "sentences words width"]
    is_word: Bool[Tensor, "sentences words"]
    meant: Float[Tensor, "sentences match"]

    @property
    def mean(self) -> Float[Tensor, "sentences width"]:
        """The mean word of every sentence."""
        weight = self.is_word.unsqueeze(-1).to(self.tokens.dtype)
        return (self.tokens * weight).sum(1) / weight.sum(1)

    def __getitem__(self, rows: Int[Tensor, " rows"]) -> "Words":
        """Return these sentences, in this order."""
        return Words(self.tokens[rows], self.is_word[rows], self.meant[rows])


class Match(nn.Module):
    """Whether a clip shows what a sentence speaks of: a cosine of two small embeddings, as in CLIP (ours).

    What progress looks like, one network has to find out from pairs within a task; that a clip belongs to the task at
    all, from pairs across tasks. In one number each spoils the other, so this part sees only what stays the same
    while a task is done: the mean over all patches and frames, and the words one by one, out of the fixed token table.
    """

    def __init__(self, frame_width: int, word_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.standardize = nn.BatchNorm1d(frame_width, affine=False, momentum=0.02)
        self.see = nn.Linear(frame_width, width, bias=False)
        self.read = nn.Linear(word_width, width, bias=False)
        self.attend = nn.Linear(word_width, 1)
        self.dropout = nn.Dropout(dropout)
        self.log_scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.0))

    def shown(
        self, features: Float[Tensor, "clips frames patches channels"]
    ) -> Float[Tensor, "clips match"]:
        """Return what clips show."""
        pooled = F.layer_norm(features, features.shape[-1:]).mean((1, 2))
        return F.normalize(self.see(self.dropout(self.standardize(pooled))), dim=-1)

    def meant(
        self,
        words: Float[Tensor, "sentences words channels"],
        is_word: Bool[Tensor, "sentences words"],
    ) -> Float[Tensor, "sentences match"]:
        """Return what sentences speak of; words that name things weigh more."""
        words = F.layer_norm(words, words.shape[-1:])
        weight = self.attend(words).squeeze(-1).masked_fill(~is_word, -torch.inf).softmax(1)
        return F.normalize(self.read(torch.einsum("swc,sw->sc", words, weight)), dim=-1)

    def forward(
        self, shown: Float[Tensor, "*#rows match"], meant: Float[Tensor, "*#rows match"]
    ) -> Float[Tensor, "*rows"]:
        """Return the logit of every row's clip showing what its sentence speaks of, in float32 under autocast, too."""
        return self.log_scale.exp() * (shown.float() * meant.float()).sum(-1) + self.bias


class VLP(nn.Module):
    """f(video | sentence): how well a clip follows a sentence.

    The parts are public, so that frames and sentences are encoded once and reused: `encoders.frames` ->
    `read_video`, `encoders.tokenize` -> `read_words`, then `score` for every combination that is asked.
    """

    def __init__(self, config: VLPConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = ClipEncoders(config.clip, config.stages, config.image_size_px)
        width, stacked = config.width, config.n_frames if config.frames == "stack" else 1
        self.norm_frames = nn.LayerNorm(self.encoders.frame_width)
        self.embed_frames = nn.Linear(stacked * self.encoders.frame_width, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.encoders.n_patches, width))
        self.time = nn.Parameter(0.02 * torch.randn(config.n_frames // stacked, width))
        self.embed_words = nn.Linear(self.encoders.word_width, width)
        self.video_layers = _self_attention(config)
        self.word_layers = _self_attention(config)
        self.cross_layers = nn.ModuleList(
            CrossBlock(width, config.heads, config.mlp_ratio, config.dropout)
            for _ in range(config.cross_layers)
        )
        self.aim = Aim(width, config.n_frames) if config.aim else None
        n_aimed = 0 if self.aim is None else self.aim.n_features
        self.score_head = _mlp(2 * width + n_aimed, config.head, config.dropout)
        self.match = (
            Match(
                self.encoders.frame_width,
                self.encoders.word_width,
                config.match_width,
                config.dropout,
            )
            if config.match_width
            else None
        )

    def forward(
        self,
        clips: UInt8[Tensor, "clips frames height width 3"],
        tokens: Int[Tensor, "clips context"],
    ) -> Float[Tensor, " clips"]:
        """Return the score of every clip under its own sentence."""
        return self.score(self.read_video(self.see(clips)), self.read_words(tokens))

    def see(
        self,
        clips: UInt8[Tensor, "clips frames height width 3"]
        | Float[Tensor, "clips frames patches channels"],
    ) -> Float[Tensor, "clips frames patches channels"]:
        """Return the encoder's features of the frames of clips, float32; what are features already only becomes so."""
        if clips.is_floating_point():
            return clips.float()
        frames = clips.flatten(0, 1)
        # A tower in training has batch norms that look at all of them.
        trained = self.encoders.clip.visual.training
        at_once = len(frames) if trained else self.encoders.frames_at_once
        blocks = torch.split(frames, at_once)
        features = torch.cat([self.encoders.frames(block) for block in blocks])
        return features.view(*clips.shape[:2], *features.shape[1:])

    def read_video(self, features: Float[Tensor, "clips frames patches channels"]) -> Video:
        """Return clips as the model reads them, from the encoder's features of their frames."""
        shown = (
            features.new_zeros(len(features), 0)
            if self.match is None
            else self.match.shown(features)
        )
        embedded = (
            self._embed(features) + self.place + self.time[:, None]
        )  # [clips, frames, patches, width]
        return Video(self.video_layers(embedded.flatten(1, 2)), shown)

    def _embed(
        self, features: Float[Tensor, "clips frames patches channels"]
    ) -> Float[Tensor, "clips stacks patches width"]:
        """Return `embed_frames(norm_frames(features))`, in stacks of frames.

        What the norm learns goes into the weights: else training would spend a third of the embedding on gradients of
        features that nobody asks for.
        """
        norm, embed = self.norm_frames, self.embed_frames
        features = F.layer_norm(features, norm.normalized_shape, eps=norm.eps)
        if self.config.frames == "stack":
            features = (
                features.transpose(1, 2).flatten(2).unsqueeze(1)
            )  # [clips, 1, patches, frames * channels]
        n_stacked = embed.in_features // norm.weight.numel()
        scale, shift = norm.weight.repeat(n_stacked), norm.bias.repeat(n_stacked)
        return F.linear(features, embed.weight * scale, F.linear(shift, embed.weight, embed.bias))

    def read_words(self, tokens: Int[Tensor, "sentences context"]) -> Words:
        """Return sentences as the model reads them."""
        features, is_word = self.encoders.words(tokens)
        if self.match is None:
            meant = features.new_zeros(len(features), 0)
        else:
            meant = self.match.meant(*self.encoders.table(tokens))
        read = self.word_layers(self.embed_words(features), src_key_padding_mask=~is_word)
        return Words(read, is_word, meant)

    def match_logit(
        self,
        features: Float[Tensor, "clips frames patches channels"],
        tokens: Int[Tensor, "sentences context"],
    ) -> Float[Tensor, "sentences clips"]:
        """Return the logit of every clip showing what every sentence speaks of; only of a model with a match."""
        assert self.match is not None, "match_width is 0: this model does not say what clips show"
        meant = self.match.meant(*self.encoders.table(tokens))
        logit: Tensor = self.match(self.match.shown(features)[None], meant[:, None])
        return logit

    def score(self, video: Video, words: Words) -> Float[Tensor, " clips"]:
        """Return the score of every clip under the sentence in the same row."""
        return self.join(self.progress(video, words), video, words)

    def progress(self, video: Video, words: Words) -> Float[Tensor, " clips"]:
        """Return how far every clip got, if it is about the sentence in the same row: the published score."""
        tokens, read, last = self._before_last(video, words)
        seen, read = last(tokens, read, words.is_word, pooled=True)
        parts = [seen, Words(read, words.is_word, words.meant).mean]
        if self.aim is not None:
            parts.append(self.aim(video.tokens, words.mean))
        # From here on in float32: near `match_worth` bfloat16 knows every sixteenth only, and clips would tie.
        with torch.autocast(seen.device.type, enabled=False):
            out: Tensor = self.score_head(torch.cat([part.float() for part in parts], dim=-1))
        return out.squeeze(1)

    def attention(
        self, video: Video, words: Words
    ) -> tuple[Float[Tensor, "clips tokens words"], Float[Tensor, "clips words tokens"]]:
        """Return what the last cross-attention reads, mean over heads; each row sums to 1.

        The first tells how much every video token reads of every word, the second how much every word reads of every
        video token (VLP, figure 4).
        """
        tokens, read, last = self._before_last(video, words)
        return last.read(tokens, read, words.is_word)

    def _before_last(self, video: Video, words: Words) -> tuple[Tensor, Tensor, CrossBlock]:
        """Return video and word tokens as the last of the cross layers reads them, and that layer."""
        tokens, read = video.tokens, words.tokens
        *before, last = self.cross_layers
        for layer in before:
            tokens, read = layer(tokens, read, words.is_word)
        assert isinstance(last, CrossBlock)
        return tokens, read, last

    def join(
        self, progress: Float[Tensor, " clips"], video: Video, words: Words
    ) -> Float[Tensor, " clips"]:
        """Return the score that `progress` makes: next to nothing for a clip of something else."""
        if self.match is None:
            return self.worth(progress)
        config = self.config
        logit = self.match(video.shown, words.meant) + config.match_margin
        matches = torch.sigmoid(config.match_sharpness * logit)
        return (config.match_floor + (1 - config.match_floor) * matches) * self.worth(progress)

    def worth(self, progress: Float[Tensor, "*clips"]) -> Float[Tensor, "*clips"]:
        """Return the score that `progress` makes of a clip that is certainly about its sentence, in float32."""
        progress = progress.float()
        if self.config.score_head == "sigmoid":
            # Above 0 by itself; with the worth of a match inside it, it would always be 1.
            return torch.sigmoid(progress)
        return progress if self.match is None else progress + self.config.match_worth


def _self_attention(config: VLPConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.width,
        config.heads,
        config.mlp_ratio * config.width,
        config.dropout,
        "gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(layer, config.self_layers, enable_nested_tensor=False)


def _mlp(n_in: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LayerNorm(n_in)]
    for width in hidden:
        layers += [nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(dropout)]
        n_in = width
    # Without a bias: only differences of scores mean anything.
    return nn.Sequential(*layers, nn.Linear(n_in, 1, bias=False))
