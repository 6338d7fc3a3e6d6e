"""Batches of labelled pairs for several seeds, on the device where they are learned from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from agents.draws import Batches, sequence
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.transitions import Transitions
from vlp_gym.errors import DataError

Rows = tuple[
    Float[Tensor, "seeds rows obs"],
    Float[Tensor, "seeds rows action"],
    Float[Tensor, "seeds rows obs"],
]
"""Observation, action and next observation of transitions."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs of all seeds; axis 1 of the segments is first, second.

    Attributes:
        obs: observation before each action.
        action: action in [-1, 1].
        label: probability that the second segment is preferred.
        weight: how much a pair counts.
    """

    obs: Float[Tensor, "seeds 2 pairs steps obs"]
    action: Float[Tensor, "seeds 2 pairs steps action"]
    label: Float[Tensor, "seeds pairs"]
    weight: Float[Tensor, "seeds pairs"]


class PairSampler:
    """Draws batches of pairs, a seed's as if it were alone.

    Args:
        data: the pairs.
        seeds: which seeds.
        size: pairs of a batch.
        device: where batches are wanted.
        window: steps that are cut from both segments of a pair at one random place (IPL); None: whole segments.
    """

    def __init__(
        self,
        data: Comparisons,
        seeds: Sequence[int],
        size: int,
        device: torch.device,
        window: int | None = None,
    ) -> None:
        if window is not None and not 2 <= window <= data.n_steps:
            raise ValueError(
                f"a window has 2 to {data.n_steps} steps, those of a segment; got {window}"
            )
        self._obs, self._action = on(device, data.obs), on(device, data.action)
        self._pairs = on(device, data.pairs)
        self._label, self._weight = on(device, data.label), on(device, data.weight)
        self._batches = Batches(seeds, "pairs", len(data), size)
        self._seeds, self._device = seeds, device
        self._window, self._n_steps = window, data.n_steps

    def at(self, step: int) -> PairBatch:
        """Return the batch of a step."""
        pair = on(self._device, self._batches.at(step))
        segment = self._pairs[pair].transpose(1, 2)  # [seeds, 2, pairs]
        steps = self._steps(step, pair.shape[1])
        rows = segment[..., None]
        return PairBatch(
            self._obs[rows, steps], self._action[rows, steps], self._label[pair], self._weight[pair]
        )

    def _steps(self, step: int, n_pairs: int) -> Tensor:
        if self._window is None:
            return torch.arange(self._n_steps, device=self._device)
        last = self._n_steps - self._window
        start = np.stack([
            np.random.default_rng(sequence(seed, "windows", step)).integers(0, last + 1, n_pairs)
            for seed in self._seeds
        ])  # fmt: skip
        steps: NDArray[np.int64] = start[:, None, :, None] + np.arange(self._window)
        return on(self._device, steps)


class ReplaySampler:
    """Draws transitions without labels beside the pairs, a seed's as if it were alone.

    Args:
        replay: the transitions.
        data: the pairs that they stand beside.
        seeds: which seeds.
        size: transitions of a batch.
        device: where batches are wanted.

    Raises:
        DataError: they are of another task or layout than the pairs.
    """

    def __init__(
        self,
        replay: Transitions,
        data: Comparisons,
        seeds: Sequence[int],
        size: int,
        device: torch.device,
    ) -> None:
        shapes = [(each.obs.shape[-1], each.action.shape[-1]) for each in (data, replay)]
        if shapes[0] != shapes[1] or data.task_name not in (None, replay.task_name):
            raise DataError(
                f"{data.about} are of {data.task_name} with {shapes[0]} numbers of observation and action, "
                f"{replay.about} of {replay.task_name} with {shapes[1]}; name trajectories of the same task and layout"
            )
        self._obs, self._action = on(device, replay.obs), on(device, replay.action)
        self._next_obs = on(device, replay.next_obs)
        self._batches, self._device = Batches(seeds, "replay", len(replay), size), device

    def at(self, step: int) -> Rows:
        """Return the batch of a step."""
        rows = on(self._device, self._batches.at(step))
        return self._obs[rows], self._action[rows], self._next_obs[rows]


def on(device: torch.device, array: NDArray[np.generic]) -> Tensor:
    """Return an array on a device; the copy does not make the host wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def transitions_of(batch: PairBatch) -> Rows:
    """Return observation, action and next observation of all steps but the last of every segment."""
    obs, action = batch.obs[..., :-1, :], batch.action[..., :-1, :]
    return obs.flatten(1, 3), action.flatten(1, 3), batch.obs[..., 1:, :].flatten(1, 3)
