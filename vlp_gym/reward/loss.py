"""The preference loss."""

from jaxtyping import Float
from torch import Tensor, nn


def preference_loss(
    first: Float[Tensor, "*members pairs steps"],
    second: Float[Tensor, "*members pairs steps"],
    label: Float[Tensor, "*members pairs"],
    weight: Float[Tensor, "*members pairs"] | None = None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of labels under Bradley-Terry (VLP eq. 1-2), mean over pairs.

    Args:
        first: predicted reward of every step of the first segments.
        second: the same for the second segments.
        label: probability that the second is preferred; 0, 0.5, 1 or in between.
        weight: what each pair counts; None: 1. The mean is over all pairs, also those that count 0.
    """
    logit = second.sum(-1) - first.sum(-1)
    return nn.functional.binary_cross_entropy_with_logits(logit, label, weight)
