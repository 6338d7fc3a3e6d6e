"""What is made of several evaluations, seeds and tasks: the papers' number, and honest ones beside it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

Curve = Float[np.ndarray, "evaluations seeds"]


@dataclass(frozen=True)
class Summary:
    """One training of several seeds in numbers.

    Attributes:
        last: mean over seeds of the last evaluation.
        mean_of_last: mean over seeds of the last few evaluations.
        papers: the largest mean over seeds of evaluations averaged with their neighbours (CPL, VLP); being the
            best of many on the same episodes, it is too high by an unknown amount.
        papers_std: deviation over seeds there.
        per_seed: `mean_of_last` of every seed.
    """

    last: float
    mean_of_last: float
    papers: float
    papers_std: float
    per_seed: tuple[float, ...]


def summarise(curve: Curve, window: int, n_last: int) -> Summary:
    """Return the numbers of a training.

    Args:
        curve: what every evaluation measured, the one before training not among them.
        window: evaluations averaged with each other before the maximum; fewer where there are not so many.
        n_last: evaluations of `mean_of_last`; fewer where there are not so many.

    >>> summarise(np.array([[0.0], [1.0], [0.5]]), window=2, n_last=2)
    Summary(last=0.5, mean_of_last=0.75, papers=0.75, papers_std=0.0, per_seed=(0.75,))
    """
    smooth = moving_average(curve, min(window, len(curve)))
    best = int(smooth.mean(1).argmax())
    per_seed = curve[-n_last:].mean(0)
    return Summary(
        last=float(curve[-1].mean()),
        mean_of_last=float(per_seed.mean()),
        papers=float(smooth[best].mean()),
        papers_std=float(smooth[best].std()),
        per_seed=tuple(per_seed.tolist()),
    )


def moving_average(curve: Curve, window: int) -> Float[np.ndarray, "averages seeds"]:
    """Return the mean of every `window` neighbouring evaluations.

    >>> moving_average(np.array([[0.0], [1.0], [3.0]]), 2).ravel().tolist()
    [0.5, 2.0]
    """
    smooth: Float[np.ndarray, "averages seeds"]
    smooth = np.lib.stride_tricks.sliding_window_view(curve, window, axis=0).mean(-1)
    return smooth


def interquartile_mean(values: Float[np.ndarray, "*any"]) -> float:
    """Return the mean of the middle half of all values (Agarwal et al., 2021).

    >>> interquartile_mean(np.array([0.0, 0.5, 0.7, 100.0]))
    0.6
    """
    return float(trim_mean(values, 0.25, axis=None))


def bootstrap_interval(
    values: Float[np.ndarray, "tasks seeds"],
    coverage: float = 0.95,
    n_draws: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return an interval of the interquartile mean: seeds drawn anew with replacement, each task's among its own.

    Args:
        values: one number a task and seed.
        coverage: share of the draws that lies inside.
        n_draws: how often is drawn.
        seed: decides the draws.

    >>> bootstrap_interval(np.ones((2, 3)))
    (1.0, 1.0)
    """
    n_tasks, n_seeds = values.shape
    drawn = np.random.default_rng(seed).integers(n_seeds, size=(n_draws, n_tasks, n_seeds))
    samples = values[np.arange(n_tasks)[:, None], drawn].reshape(n_draws, -1)
    tail = (1 - coverage) / 2
    low, high = np.quantile(trim_mean(samples, 0.25, axis=1), [tail, 1 - tail])
    return float(low), float(high)
