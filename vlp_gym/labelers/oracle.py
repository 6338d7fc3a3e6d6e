"""The labeler that knows the simulator's reward."""

import numpy as np

from vlp_gym.types import Labels, Pair


class OracleLabeler:
    """Prefers the segment of higher return (BPref's oracle teacher); equal returns are a tie, 0.5."""

    name = "oracle"

    def __call__(self, pairs: list[Pair]) -> Labels:
        """Label pairs by `Segment.env_return`."""
        gap = np.array([pair.second.env_return - pair.first.env_return for pair in pairs])
        return Labels.of((np.sign(gap) + 1) / 2)
