"""Cross-attention between two sequences: each reads the other, and what was read can be looked at."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


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
        *,
        pooled: bool = False,
    ) -> tuple[Float[Tensor, "clips *tokens width"], Float[Tensor, "clips words width"]]:
        """Return video that has read the words, and words that have seen the video.

        Args:
            video: tokens of the clips.
            words: tokens of the sentence of every clip.
            is_word: which of them are no padding.
            pooled: of the video only the mean over its tokens, which costs less.
        """
        read = self.to_words.mean if pooled else self.to_words
        return read(video, words, ~is_word), self.to_video(words, video, None)

    def read(
        self,
        video: Float[Tensor, "clips tokens width"],
        words: Float[Tensor, "clips words width"],
        is_word: Bool[Tensor, "clips words"],
    ) -> tuple[Float[Tensor, "clips tokens words"], Float[Tensor, "clips words tokens"]]:
        """Return how much video reads of every word, and how much the words read of every video token."""
        return (
            self.to_words.weights(video, words, ~is_word),
            self.to_video.weights(words, video, None),
        )


class _Attend(nn.Module):
    """One side reads the other: cross-attention, then an MLP, each added to what was there."""

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
        query = self._read(query, context, ignore)
        out: Tensor = query + self.mlp(query)
        return out

    def mean(self, query: Tensor, context: Tensor, ignore: Tensor | None) -> Tensor:
        """Return the mean of what `forward` returns over tokens, [clips, width], at half the cost of its MLP."""
        query = self._read(query, context, ignore)
        *before, last = self.mlp  # the last is linear: of a mean, or the mean of it
        hidden = query
        for layer in before:
            hidden = layer(hidden)
        out: Tensor = query.mean(1) + last(hidden.mean(1))
        return out

    def _read(self, query: Tensor, context: Tensor, ignore: Tensor | None) -> Tensor:
        context = self.norm_context(context)
        read, _ = self.attention(
            self.norm_query(query), context, context, key_padding_mask=ignore, need_weights=False
        )
        out: Tensor = query + read
        return out

    def weights(self, query: Tensor, context: Tensor, ignore: Tensor | None) -> Tensor:
        """Return how much every query reads of every context token, mean over heads, [clips, queries, contexts]."""
        context = self.norm_context(context)
        _, weights = self.attention(
            self.norm_query(query), context, context, key_padding_mask=ignore, need_weights=True
        )
        read: Tensor = weights
        return read
