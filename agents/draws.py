"""Random numbers of several seeds at once, each drawn as if its seed were alone.

Every draw follows from a seed, a purpose and a step, and from nothing else: no generator has a state that a run
would have to save, and one seed's numbers do not depend on which others are trained beside it.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEVELS = 256
"""Dropout is decided by one random byte a unit."""


def sequence(seed: int, purpose: str, step: int = 0) -> np.random.SeedSequence:
    """Return the source of a seed's numbers for one purpose at one step."""
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), step])


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator of torch, for initial weights."""
    return torch.Generator().manual_seed(int(sequence(seed, purpose).generate_state(1)[0]))


class Batches:
    """Rows in random order, epoch after epoch, in batches of one size; every seed has an order of its own.

    Args:
        seeds: which seeds.
        purpose: tells these batches from others of the same seeds.
        n_rows: rows to draw from.
        size: rows of a batch; more than `n_rows` is allowed, then a batch spans epochs.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, n_rows: int, size: int) -> None:
        self._seeds, self._n_rows, self._size = seeds, n_rows, size

        # The epochs that the present batch touches, for every seed.
        @lru_cache(maxsize=4 * len(seeds) + 2 * (size // n_rows + 2) * len(seeds))
        def order(seed: int, epoch: int) -> Int[np.ndarray, " rows"]:
            return np.random.default_rng(sequence(seed, purpose, epoch)).permutation(n_rows)

        self._order = order

    def at(self, step: int) -> Int[np.ndarray, "seeds size"]:
        """Return the rows of the batch of a step."""
        return np.stack([self._rows(seed, step) for seed in self._seeds])

    def _rows(self, seed: int, step: int) -> Int[np.ndarray, " size"]:
        begin, end = step * self._size, (step + 1) * self._size
        epochs = range(begin // self._n_rows, (end - 1) // self._n_rows + 1)
        rows = np.concatenate([self._order(seed, epoch) for epoch in epochs])
        offset = begin - epochs[0] * self._n_rows
        return rows[offset : offset + self._size]


class Dropout:
    """Masks of dropout for all seeds: 0 for a unit that is left out, 1 / (share kept) for one that stays.

    Args:
        seeds: which seeds.
        rate: share of units left out, rounded to 1/256.
        device: where the masks are needed.
    """

    def __init__(self, seeds: Sequence[int], rate: float, device: torch.device) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), got {rate}")
        self._seeds, self._device = seeds, device
        self._below = round(rate * LEVELS)
        self.rate = self._below / LEVELS
        self.scale = 1 / (1 - self.rate)
        """What stands in a mask for a unit that stays."""

    def at(
        self, step: int, layer: int, n_rows: int, width: int
    ) -> Float[Tensor, "seeds n_rows width"]:
        """Return the mask of a step and layer."""
        masks = torch.empty(len(self._seeds), n_rows, width, device=self._device)
        for mask, seed in zip(masks, self._seeds, strict=True):
            mask.copy_(self._kept(sequence(seed, f"dropout {layer}", step), n_rows, width))
        return masks.mul_(self.scale)

    def _kept(
        self, words: np.random.SeedSequence, n_rows: int, width: int
    ) -> Bool[Tensor, "n_rows width"]:
        if self._device.type != "cpu":
            generator = torch.Generator(self._device)
            generator.manual_seed(int(words.generate_state(1)[0]))
            share = torch.rand(n_rows, width, generator=generator, device=self._device)
            return share >= self.rate
        # NumPy makes eight bytes of a word; torch would spend forty times as long on these masks.
        bits = np.random.Generator(np.random.SFC64(words))
        n_units = n_rows * width
        drawn = bits.integers(0, 2**64, -(-n_units // 8), np.uint64).view(np.uint8)[:n_units]
        return torch.from_numpy(drawn >= self._below).view(n_rows, width)
