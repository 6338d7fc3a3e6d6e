"""The three preferences of VLP (section 3.2): within a task, across languages, across videos; and the match, ours."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def itp_loss(
    score: Float[Tensor, "tasks clips"],
    label: Float[Tensor, "tasks clips clips"],
    weight: Float[Tensor, "tasks clips clips"],
) -> Float[Tensor, ""]:
    """Return the intra-task preference loss (VLP eq. 4): cross-entropy over all pairs of a task's clips.

    Args:
        score: scores of every task's clips under its own sentence.
        label: `label[t, i, j]` is the probability that clip j is preferred to clip i.
        weight: which pairs count; 0 leaves one out.
    """
    logit = score.unsqueeze(1) - score.unsqueeze(2)  # [tasks, i, j] = score j - score i
    loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def ilp_loss(score: Float[Tensor, "tasks clips"]) -> Float[Tensor, ""]:
    """Return the inter-language loss (VLP eq. 5): under another task's sentence no clip of a task is preferred.

    Its floor is ln 2, which a constant score reaches.

    Args:
        score: scores of each task's clips under a sentence of another task.
    """
    logit = score.unsqueeze(1) - score.unsqueeze(2)
    off_diagonal = ~torch.eye(score.shape[1], dtype=torch.bool, device=score.device)
    # Cross-entropy against one half is ln 2 + ln cosh(d / 2).
    delta = logit[:, off_diagonal].abs()
    return (math.log(2.0) + _log_cosh(delta / 2)).mean()


def ivp_loss(
    own: Float[Tensor, "tasks clips"], other: Float[Tensor, "tasks others"]
) -> Float[Tensor, ""]:
    """Return the inter-video loss (VLP eq. 6): any clip of the task beats a clip of another task under its sentence.

    Args:
        own: scores of each task's clips under its sentence.
        other: scores of other tasks' clips under that sentence.
    """
    return F.softplus(other.unsqueeze(1) - own.unsqueeze(2)).mean()


def match_loss(
    logit: Float[Tensor, "sentences clips"], own: Bool[Tensor, "sentences clips"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of finding the clips that a sentence speaks of; own and foreign clips weigh the same.

    SigLIP's loss (arXiv 2303.15343, eq. 1) without the imbalance. Not in VLP.

    Args:
        logit: of clip j showing what sentence i speaks of.
        own: whether it does.
    """
    loss = F.binary_cross_entropy_with_logits(logit, own.to(logit.dtype), reduction="none")
    return (loss[own].mean() + loss[~own].mean()) / 2


def _log_cosh(value: Tensor) -> Tensor:
    # Written so that large values do not overflow.
    return value.abs() + F.softplus(-2 * value.abs()) - math.log(2.0)
