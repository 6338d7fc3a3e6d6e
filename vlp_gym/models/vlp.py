"""The vision-language preference model: one score for a clip under a sentence (VLP, arXiv 2502.11918, section 3).

Video and words go through self-attention apart, then attend to each other, are averaged, joined and scored.
Two clips are compared by the difference of their scores (Bradley-Terry, VLP eq. 3).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vlp_gym.models.encoders import ClipEncoders


@dataclass(frozen=True)
class VLPConfig:
    """Sizes of the model. Defaults are the bundled compact model; the paper's values stand in the notes."""

    clip: str = "vlp-compact"
    """open_clip config of the encoders; paper: ViT-B-16."""
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
    score_head: Literal["linear", "sigmoid", "match"] = "linear"
    """`linear`: any number; `sigmoid`: within (0, 1), as the published loss values suggest; `match` (ours): a number
    for progress plus a bounded one for whether the video shows what the sentence speaks of. Bounded, so that it
    should not drown out who got further; it was not better in the recipes that were tried."""


MATCH = 4.0
"""Most that the match of a scene and a sentence adds to a score or takes from it."""


class CrossBlock(nn.Module):
    """Video attends to words and words to video, both reading the state before this layer."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.to_words = _Attend(width, heads, mlp_ratio, dropout)
        self.to_video = _Attend(width, heads, mlp_ratio, dropout)

    def forward(
        self,
        video: Float[Tensor, "clips tokens width"],
        words: Float[Tensor, "clips words width"],
        is_word: Bool[Tensor, "clips words"],
    ) -> tuple[Float[Tensor, "clips tokens width"], Float[Tensor, "clips words width"]]:
        """Return video that has read the words, and words that have seen the video."""
        return self.to_words(video, words, ~is_word), self.to_video(words, video, None)


class _Attend(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.norm_query, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        hidden = mlp_ratio * width
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, query: Tensor, context: Tensor, ignore: Tensor | None) -> Tensor:
        context = self.norm_context(context)
        read, _ = self.attention(
            self.norm_query(query), context, context, key_padding_mask=ignore, need_weights=False
        )
        query = query + read
        out: Tensor = query + self.mlp(query)
        return out


class VLP(nn.Module):
    """f(video | sentence): how well a clip follows a sentence.

    The parts are public, so that frames and sentences are encoded once and reused: `encoders.frames` ->
    `video_tokens`, `encoders.words` -> `word_tokens`, then `score_tokens` for every combination that is asked.
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
        n_out = 2 if config.score_head == "match" else 1
        self.score_head = _mlp(2 * width, config.head, n_out, config.dropout)

    def forward(
        self,
        clips: UInt8[Tensor, "clips frames height width 3"],
        tokens: Int[Tensor, "clips context"],
    ) -> Float[Tensor, " clips"]:
        """Return the score of every clip under its own sentence."""
        features = self.encoders.frames(clips.flatten(0, 1))
        video = self.video_tokens(features.view(*clips.shape[:2], *features.shape[1:]))
        return self.score_tokens(video, *self.word_tokens(tokens))

    def video_tokens(
        self, features: Float[Tensor, "clips frames patches channels"]
    ) -> Float[Tensor, "clips tokens width"]:
        """Return the tokens of clips after self-attention, from the encoder's features of their frames."""
        features = self.norm_frames(features)
        if self.config.frames == "stack":
            features = (
                features.transpose(1, 2).flatten(2).unsqueeze(1)
            )  # [clips, 1, patches, frames * channels]
        embedded = (
            self.embed_frames(features) + self.place + self.time[:, None]
        )  # [clips, frames, patches, width]
        tokens: Tensor = self.video_layers(embedded.flatten(1, 2))
        return tokens

    def word_tokens(
        self, tokens: Int[Tensor, "sentences context"]
    ) -> tuple[Float[Tensor, "sentences words width"], Bool[Tensor, "sentences words"]]:
        """Return the tokens of sentences after self-attention, and which of them are words."""
        features, is_word = self.encoders.words(tokens)
        return self.word_layers(self.embed_words(features), src_key_padding_mask=~is_word), is_word

    def score_tokens(
        self,
        video: Float[Tensor, "clips tokens width"],
        words: Float[Tensor, "clips words width"],
        is_word: Bool[Tensor, "clips words"],
    ) -> Float[Tensor, " clips"]:
        """Return the score of every clip under the sentence in the same row."""
        for layer in self.cross_layers:
            video, words = layer(video, words, is_word)
        weight = is_word.unsqueeze(-1).to(words.dtype)
        mean_word = (words * weight).sum(1) / weight.sum(1)
        out = self.score_head(torch.cat([video.mean(1), mean_word], dim=-1))  # [clips, 1 or 2]
        if self.config.score_head == "match":
            out = out[:, :1] + MATCH * torch.tanh(out[:, 1:])
        score: Tensor = out[:, 0]
        return torch.sigmoid(score) if self.config.score_head == "sigmoid" else score


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


def _mlp(n_in: int, hidden: tuple[int, ...], n_out: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LayerNorm(n_in)]
    for width in hidden:
        layers += [nn.Linear(n_in, width), nn.ReLU(), nn.Dropout(dropout)]
        n_in = width
    # Without a bias: only differences of scores mean anything.
    return nn.Sequential(*layers, nn.Linear(n_in, n_out, bias=False))
