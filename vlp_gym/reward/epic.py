"""How far two rewards are from each other, whatever their scale (EPIC, Gleave et al., 2021, arXiv 2006.13900)."""

import numpy as np
from jaxtyping import Float


def epic_distance(
    first: Float[np.ndarray, " states"], second: Float[np.ndarray, " same_states"]
) -> float:
    """Return the distance of two rewards of states, from 0 (the same but for scale and offset) to 1 (opposite).

    D = sqrt((1 - rho) / 2) with Pearson's rho over sampled states, as VLM-RM has it (arXiv 2310.12921, appendix A):
    both rewards are of the next state alone, so that nothing has to be made canonical. Its states are uniform
    (CartPole, MountainCar) or those that an expert visits (humanoid).

    >>> reward = np.array([0.0, 1.0, 3.0])
    >>> epic_distance(reward, 2 * reward + 5), epic_distance(reward, -reward)
    (0.0, 1.0)

    Raises:
        ValueError: fewer than two states, a reward that is the same everywhere, which is no reward, or NaN or infinity.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"EPIC compares two rewards of the same states, two or more of them, got {len(first)} and {len(second)}"
        )
    bad = sum(int((~np.isfinite(each)).sum()) for each in (first, second))
    if bad:
        raise ValueError(
            f"EPIC compares finite rewards, got {bad} that are NaN or infinite; leave those states out"
        )
    spreads = first.std(), second.std()
    if not min(spreads) > 0:
        raise ValueError("a reward that is the same in every state has no distance to another")
    rho = np.mean((first - first.mean()) * (second - second.mean())) / (spreads[0] * spreads[1])
    return float(np.sqrt(max(0.0, (1 - min(1.0, float(rho))) / 2)))
