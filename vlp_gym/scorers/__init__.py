"""Scorers: how well does a clip follow a task?"""

from pathlib import Path
from typing import TYPE_CHECKING

from vlp_gym.errors import UnknownNameError

if TYPE_CHECKING:
    from vlp_gym.scorers.vlp import VLPScorer

SCORERS = ("vlp",)
"""Scorers that have a name."""


def load_scorer(
    name: str, checkpoint: Path | str | None = None, device: str = "auto"
) -> "VLPScorer":
    """Return a scorer by name, with the weights of `checkpoint` (None: what the package ships).

    Raises:
        UnknownNameError: no such scorer.
        CheckpointError: the checkpoint is missing or damaged.
    """
    if name not in SCORERS:
        raise UnknownNameError.of("scorer", name, list(SCORERS))
    from vlp_gym.scorers.vlp import VLPScorer  # noqa: PLC0415

    return VLPScorer.load(checkpoint, device)
