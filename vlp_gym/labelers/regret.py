"""The labeler that knows how good the states are in which a segment begins and ends."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_path
from vlp_gym.errors import CheckpointError, DataError
from vlp_gym.types import Labels, Pair, Segment

Value = Callable[[Float[np.ndarray, "rows obs"]], Float[np.ndarray, " rows"]]
"""The return that can still be had from states."""


class RegretLabeler:
    """Prefers the segment of lower regret (CPL, section 2): of higher rewards and gain in value.

    A segment is worth the sum of its rewards but the last, plus V of its last state less V of its first, undiscounted,
    as in the labels of CPL's public data. Equal segments are a tie, 0.5.

    Args:
        value: the value of states under a good policy.
    """

    name = "regret"

    def __init__(self, value: Value) -> None:
        self._value = value

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs; `extra` holds "first_worth" and "second_worth"."""
        first = self._worth([pair.first for pair in pairs])
        second = self._worth([pair.second for pair in pairs])
        label = (np.sign(second - first) + 1) / 2
        return Labels.of(label, first_worth=first, second_worth=second)

    def _worth(self, segments: Sequence[Segment]) -> Float[np.ndarray, " segments"]:
        ends = np.array([segment.obs[[0, -1]] for segment in segments])
        begin, end = self._value(ends.reshape(-1, ends.shape[-1])).reshape(-1, 2).T
        paid = np.array([segment.env_reward[:-1].sum(dtype=np.float64) for segment in segments])
        worth: NDArray[np.float64] = paid + end - begin
        return worth


class ValueFunction:
    """A perceptron with ReLU inside, as a file: `V(s)` without torch.

    Args:
        weights: of every layer, [in, out].
        biases: of every layer, [out].
    """

    def __init__(
        self, weights: Sequence[NDArray[np.float32]], biases: Sequence[NDArray[np.float32]]
    ) -> None:
        self._weights, self._biases = list(weights), list(biases)

    def __call__(self, obs: Float[np.ndarray, "rows obs"]) -> Float[np.ndarray, " rows"]:
        """Return the value of states."""
        if obs.shape[-1] != len(self._weights[0]):
            raise DataError(
                f"this value function was learned on observations of {len(self._weights[0])} numbers, these have "
                f"{obs.shape[-1]}; learn one on data of this layout"
            )
        hidden: NDArray[np.float32] = obs
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        value: Float[np.ndarray, " rows"] = (hidden @ self._weights[-1] + self._biases[-1])[:, 0]
        return value

    def save(self, path: Path) -> None:
        """Write the layers to a `.npz` file."""
        layers = {f"weight{i}": each for i, each in enumerate(self._weights)}
        layers |= {f"bias{i}": each for i, each in enumerate(self._biases)}
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, **layers)

    @classmethod
    def load(cls, path: Path) -> "ValueFunction":
        """Return the value function of a file that `save` wrote.

        Raises:
            CheckpointError: the file is missing or something else.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                n_layers = len(stored.files) // 2
                weights = [stored[f"weight{i}"] for i in range(n_layers)]
                return cls(weights, [stored[f"bias{i}"] for i in range(n_layers)])
        except (OSError, EOFError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read as a value function ({error}); name the value-seed0.npz of a run of agents.iql"
            ) from error
