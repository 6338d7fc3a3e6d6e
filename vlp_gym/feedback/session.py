"""What one feedback session did."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vlp_gym.feedback.table import agreement_with_return
from vlp_gym.types import Labels, Pair, Status


@dataclass(frozen=True)
class SessionRecord:
    """Counts, accuracies and times of one feedback session; plain JSON by `to_dict`."""

    session: int
    """Number of the session, from 0."""
    step: int
    """Env step at which it took place."""
    queries: int
    """Pairs that were asked about; all of them count against the budget."""
    labelled: int
    """Pairs that got a label."""
    abstained: int
    """Pairs that the labeler would not decide."""
    failed: int
    """Pairs for which labelling broke."""
    total_labels: int
    """Labels so far, this session's included."""
    budget_left: int
    """Queries that may still be asked."""
    label_accuracy: float | None
    """Share of this session's labels that agree with the simulator's return, see `label_accuracy`."""
    label_share: float | None
    """Share of this session's labels above 0.5: far from a half, accuracy alone says little."""
    fit_accuracy: float | None
    """Share of all labels that the members agree with, in the last epoch of the fit."""
    fit_loss: float | None
    """Preference loss in the last epoch of the fit."""
    spread: float | None
    """Deviation over members of the probability of a label, mean over this session's pairs, after the fit."""
    agreement: float | None
    """Share of this session's pairs of which all members prefer the same side, after the fit."""
    fit_updates: int
    """Updates of the fit; 0 when there was nothing new to fit to."""
    version: int
    """Fits so far; the reward changed if this one is higher than before."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each part: "query", "draw" and "score" (where the labeler tells), "label" (all of the
    labeler), "fit"."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return asdict(self)


def label_accuracy(pairs: Sequence[Pair], labels: Labels) -> float | None:
    """Return the share of labels that agree with the simulator's return, as `agreement_with_return` counts them."""
    gap = np.array([pair.second.env_return - pair.first.env_return for pair in pairs])
    return agreement_with_return(np.where(labels.labelled, labels.value, np.nan), gap)


def label_share(labels: Labels) -> float | None:
    """Return the share of labels that prefer the second segment, ties left out; None if all are."""
    decided = labels.value[labels.labelled & (labels.value != 0.5)]
    return float((decided > 0.5).mean()) if len(decided) else None


def counts(labels: Labels) -> dict[str, int]:
    """Return how many pairs were labelled, abstained from, and failed."""
    return {each.name.lower(): int((labels.status == each).sum()) for each in Status}
