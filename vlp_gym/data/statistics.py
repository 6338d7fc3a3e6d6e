"""What a LeRobotDataset says of the numbers of a feature, for policies to normalise by."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
LEVELS_OF_A_PIXEL = 256

Histogram = Int[np.ndarray, "colours levels"]
"""How often a colour has each of its 256 levels, int64 [3, 256]."""


def statistics(values: NDArray[Any]) -> dict[str, list[Any]]:
    """Return extremes, mean, deviation and quantiles of numbers [steps, ...], and how many steps they are of.

    >>> statistics(np.array([[0.0, 1.0], [2.0, 1.0]]))["mean"]
    [1.0, 1.0]
    """
    numbers = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return {
        "min": numbers.min(0).tolist(),
        "max": numbers.max(0).tolist(),
        "mean": numbers.mean(0).tolist(),
        "std": numbers.std(0).tolist(),
        "count": [len(numbers)],
        **dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
    }


def histogram_of(frames: NDArray[np.uint8]) -> Histogram:
    """Return how often each level of each colour is in frames [..., 3]."""
    colours = frames.reshape(-1, 3).T
    return np.stack([np.bincount(colour, minlength=LEVELS_OF_A_PIXEL) for colour in colours])


def pixel_statistics(histogram: Histogram, size_px: int) -> dict[str, list[Any]]:
    """Return the statistics of frames, in [0, 1] and shaped [3, 1, 1], and how many frames they are of.

    Args:
        histogram: of all their pixels.
        size_px: height and width of a frame.
    """
    level = np.arange(LEVELS_OF_A_PIXEL) / (LEVELS_OF_A_PIXEL - 1)
    n_pixels = int(histogram[0].sum())
    share = histogram / n_pixels
    mean = share @ level
    at: dict[str, Int[np.ndarray, "3"]] = {
        "min": (histogram > 0).argmax(1),
        "max": LEVELS_OF_A_PIXEL - 1 - (histogram[:, ::-1] > 0).argmax(1),
        **{name: (np.cumsum(share, 1) >= q).argmax(1) for name, q in QUANTILES.items()},
    }
    numbers: dict[str, Float[np.ndarray, "3"]] = {
        "mean": mean,
        "std": np.sqrt((share * (level - mean[:, None]) ** 2).sum(1)),
        **{name: level[place] for name, place in at.items()},
    }
    shaped = {name: number.reshape(3, 1, 1).tolist() for name, number in numbers.items()}
    return {**shaped, "count": [n_pixels // size_px**2]}
