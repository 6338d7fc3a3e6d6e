"""How well scores order pairs as the truth does: shares, what a constant answer would get, calibration."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

Scores = Float[np.ndarray, " clips"]
Pairs = Int[np.ndarray, "pairs 2"]


@dataclass(frozen=True)
class Agreement:
    """Share of pairs that the scores order as the truth does, ties of the truth left out.

    Attributes:
        all_pairs: over all pairs.
        clear_half: over the half of the pairs in which the truth differs more.
        n_pairs: how many pairs were compared.
    """

    all_pairs: float
    clear_half: float
    n_pairs: int


def agreement(score: Scores, truth: Float[np.ndarray, " clips"], pairs: Pairs) -> Agreement:
    """Return how often `score` and `truth` order pairs alike; equal scores count one half.

    Raises:
        ValueError: the truth ties in every pair.

    >>> agreement(np.array([1.0, 2.0, 3.0]), np.array([0.0, 5.0, 4.0]), np.array([[0, 1], [1, 2], [0, 2]])).all_pairs
    0.6666666666666666
    """
    pairs, gap = _without_ties(truth, pairs)
    said = score[pairs[:, 1]] - score[pairs[:, 0]]
    right = np.where(said == 0, 0.5, np.sign(said) == np.sign(gap))
    clear = np.abs(gap) >= np.median(np.abs(gap))
    return Agreement(float(right.mean()), float(right[clear].mean()), len(pairs))


@dataclass(frozen=True)
class LabelQuality:
    """Hard labels of ordered pairs against the truth, with what makes an accuracy look better than it is.

    Attributes:
        accuracy: share of right labels.
        constant: share that the better constant answer gets right.
        balanced: mean of the accuracies on pairs whose first, and whose second, is truly better; None where all pairs
            are of one kind.
        phi: correlation of labels and truth (Matthews), 0 where either is constant.
        n_pairs: how many pairs were labelled, ties of the truth left out.
    """

    accuracy: float
    constant: float
    balanced: float | None
    phi: float
    n_pairs: int

    @classmethod
    def of(
        cls, said: Float[np.ndarray, " pairs"], right: Bool[np.ndarray, " pairs"]
    ) -> "LabelQuality":
        """Return the quality of what was said, where there is something to be right about.

        Args:
            said: 1 where the second of a pair is called better, 0 where the first is; 0.5, neither, is half right.
            right: whether the second is truly better.

        >>> LabelQuality.of(np.array([1.0, 0.0, 0.5]), np.array([True, True, False])).balanced
        0.5
        """
        hit = 1 - np.abs(said - right)
        one_sided = bool(right.all() or not right.any())
        says_one_thing = bool((said == said[0]).all())
        return cls(
            accuracy=float(hit.mean()),
            constant=float(max(right.mean(), 1 - right.mean())),
            balanced=None if one_sided else float(hit[right].mean() + hit[~right].mean()) / 2,
            phi=0.0 if one_sided or says_one_thing else float(np.corrcoef(said, right)[0, 1]),
            n_pairs=len(right),
        )


def label_quality(score: Scores, truth: Float[np.ndarray, " clips"], pairs: Pairs) -> LabelQuality:
    """Return the quality of labels that call the clip of the higher score better, and neither where scores are equal.

    Raises:
        ValueError: the truth ties in every pair.
    """
    pairs, gap = _without_ties(truth, pairs)
    said = np.sign(score[pairs[:, 1]] - score[pairs[:, 0]])
    return LabelQuality.of((said + 1) / 2, gap > 0)


@dataclass(frozen=True)
class Calibration:
    """What came of predicted probabilities, in bins of equal width from 0 to 1.

    Attributes:
        predicted: mean predicted probability of each bin, NaN where it is empty.
        observed: share of pairs in the bin whose second clip was truly better.
        count: pairs in the bin.
        error: mean |predicted - observed| over pairs.
    """

    predicted: Float[np.ndarray, " bins"]
    observed: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]
    error: float


def calibration(
    scores: Float[np.ndarray, "sentences clips"],
    truth: Float[np.ndarray, " clips"],
    pairs: Pairs,
    n_bins: int = 10,
) -> Calibration:
    """Return how the Bradley-Terry probabilities of pairs compare with the truth; its ties are left out.

    Args:
        scores: under one or more sentences, whose pairs are counted together.
        truth: what is truly better.
        pairs: which clips are compared; both ways round, so that the order of a pair cannot matter.
        n_bins: number of bins.

    Raises:
        ValueError: the truth ties in every pair.
    """
    pairs, gap = _without_ties(truth, pairs)
    delta = (scores[:, pairs[:, 1]] - scores[:, pairs[:, 0]]).astype(float).ravel()
    better = np.tile(gap > 0, len(scores))
    probability = expit(np.concatenate([delta, -delta]))
    right = np.concatenate([better, ~better])
    place = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    count = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, probability, n_bins) / count
        observed = np.bincount(place, right, n_bins) / count
    error = float(np.nansum(count * np.abs(predicted - observed)) / count.sum())
    return Calibration(predicted, observed, count, error)


def random_pairs(rows: Int[np.ndarray, " clips"], n_pairs: int, rng: np.random.Generator) -> Pairs:
    """Return pairs of different clips, uniformly drawn from `rows`; none of fewer than two rows."""
    if len(rows) < 2:
        return np.zeros((0, 2), int)
    first = rng.integers(0, len(rows), n_pairs)
    second = (first + rng.integers(1, len(rows), n_pairs)) % len(rows)
    return np.stack([rows[first], rows[second]], axis=1)


def pairs_across(
    first: Int[np.ndarray, " firsts"],
    second: Int[np.ndarray, " seconds"],
    n_pairs: int,
    rng: np.random.Generator,
) -> Pairs:
    """Return pairs of one clip of `first` and one of `second`, in this order, uniformly drawn."""
    return np.stack([rng.choice(first, n_pairs), rng.choice(second, n_pairs)], axis=1)


def _without_ties(
    truth: Float[np.ndarray, " clips"], drawn: Int[np.ndarray, "drawn 2"]
) -> tuple[Pairs, Float[np.ndarray, " pairs"]]:
    gap = truth[drawn[:, 1]] - truth[drawn[:, 0]]
    if not (gap != 0).any():
        raise ValueError("all pairs tie in the truth; there is nothing to agree with")
    return drawn[gap != 0], gap[gap != 0]
