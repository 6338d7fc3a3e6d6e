"""Labelled pairs of segments of equal length, as offline preference learning wants them: checked once, here."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from vlp_gym.errors import DataError

ACTION_SLACK = 1e-5
"""How far beyond [-1, 1] an action may lie: what float32 makes of a clipped one."""


@dataclass(frozen=True)
class Comparisons:
    """Segments, and which of two of them is preferred.

    Attributes:
        obs: observation before each action, float32 [segments, steps, obs].
        action: action in [-1, 1], float32 [segments, steps, action].
        pairs: rows of the first and the second segment of every pair, int64 [pairs, 2].
        label: probability that the second is preferred, in [0, 1], float32 [pairs].
        weight: how much a pair counts, float32 [pairs]; 0: its label says nothing (PLARE's "unsure").
        task_name: the task that was judged, as in `vlp/<name>`; None where the source does not say.
        about: where they are from, in words, for results and error messages.

    Raises:
        DataError: nothing can be learned from them as they are; the message says why and what to do.
    """

    obs: Float[np.ndarray, "segments steps obs"]
    # Lengths that do not fit are told in words that help, below.
    action: Float[np.ndarray, "_ _ action"]
    pairs: Int[np.ndarray, "pairs 2"]
    label: Float[np.ndarray, " _"]
    weight: Float[np.ndarray, " _"]
    task_name: str | None = None
    about: str = "pairs"

    def __post_init__(self) -> None:
        """Refuse what would only fail, or silently teach nothing, in the middle of a training."""
        self._check_shapes()
        check_steps(self.obs, self.action, self.about)
        self._check_labels()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.label)

    @property
    def n_steps(self) -> int:
        """Steps of every segment."""
        return int(self.action.shape[1])

    def flipped(self) -> "Comparisons":
        """Return the same pairs with every label turned round: a policy learned from them must be worse."""
        return Comparisons(
            self.obs, self.action, self.pairs, 1 - self.label, self.weight, self.task_name, f"{self.about}, flipped"
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Return a hash of segments, pairs, labels and weights."""
        return hash_of(self.obs, self.action, self.pairs, self.label, self.weight)

    def _check_shapes(self) -> None:
        if self.obs.shape[:2] != self.action.shape[:2]:
            raise DataError(
                f"{self.about}: observations and actions must be of the same segments and steps, got "
                f"{self.obs.shape[:2]} and {self.action.shape[:2]}; cut both at the same places"
            )
        if len(self.label) != len(self.pairs) or len(self.weight) != len(self.pairs):
            raise DataError(
                f"{self.about}: {len(self.pairs)} pairs need as many labels and weights, got {len(self.label)} "
                f"and {len(self.weight)}"
            )
        if not len(self.pairs):
            raise DataError(f"{self.about}: there is no pair; label some with `vlp label`")
        missing = (self.pairs < 0) | (self.pairs >= len(self.obs))
        if missing.any():
            pair = int(missing.any(1).argmax())
            raise DataError(
                f"{self.about}: pair {pair} is of segments {self.pairs[pair].tolist()}, but there are only "
                f"{len(self.obs)}; label the trajectories again with `vlp label`"
            )
        if self.n_steps < 2:
            raise DataError(
                f"{self.about}: segments have {self.n_steps} step, and a transition takes two; cut longer ones"
            )

    def _check_labels(self) -> None:
        if not ((self.label >= 0) & (self.label <= 1)).all():
            raise DataError(
                f"{self.about}: a label is the probability of the second segment, in [0, 1]; a pair without a "
                "label has weight 0 and label 0.5"
            )
        if not (np.isfinite(self.weight) & (self.weight >= 0)).all() or not self.weight.any():
            raise DataError(
                f"{self.about}: weights must be 0 or more, and at least one above 0; no pair was labelled"
            )
        counted = self.label[self.weight > 0]
        if (counted == counted[0]).all():
            raise DataError(
                f"{self.about}: all {len(counted)} labels are {counted[0]:g}, which prefers nothing to anything "
                "but the order of the pairs; look at the labeler, and draw which segment comes first"
            )


def hash_of(*arrays: NDArray[Any]) -> str:
    """Return a hash of what arrays hold."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_steps(
    obs: Float[np.ndarray, "*rows obs"], action: Float[np.ndarray, "*rows action"], about: str
) -> None:
    """Refuse observations that are not finite and actions outside of [-1, 1].

    Raises:
        DataError: there are such.
    """
    if not np.isfinite(obs).all():
        raise DataError(
            f"{about}: {int((~np.isfinite(obs)).sum())} numbers of observations are not finite; leave the "
            "episodes out that have them"
        )
    beyond = ~(np.abs(action) <= 1 + ACTION_SLACK)
    if beyond.any():
        raise DataError(
            f"{about}: {int(beyond.sum())} numbers of actions lie outside of [-1, 1] or are not finite; store what "
            "the env was given, clipped and scaled to [-1, 1]"
        )
