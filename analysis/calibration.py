"""How well an uncertainty tells where errors are, and the line that predicts errors from what is known without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, spearmanr

_STEPS = 100
_WORST = 0.2


class Ranking(NamedTuple):
    """How an uncertainty ranks errors.

    auroc: probability that a pixel of the worst fifth is ranked above one of the others; 0.5 is chance, 1 perfect.
    ause: area under the sparsification error: pixels are left out from the most uncertain on, in 100 steps, and the
        RMSE of the rest, as a share of that of all, is compared with leaving out the largest errors (Ilg et al.,
        2018); 0 is perfect.
    spearman: rank correlation with the error.
    """

    auroc: float
    ause: float
    spearman: float


def rank_errors(
    uncertainty: np.ndarray,  # [P]
    error: np.ndarray,  # [P], not negative
) -> Ranking:
    """How ``uncertainty`` ranks ``error``."""
    uncertainty, error = uncertainty.astype(np.float64), error.astype(np.float64)
    bad = error > np.quantile(error, 1 - _WORST)
    return Ranking(
        area_under_roc(uncertainty, bad),
        sparsification_error(uncertainty, error),
        float(spearmanr(uncertainty, error).statistic),
    )


def area_under_roc(score: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a random bad one has a higher score than a random good one; ties count half."""
    count = int(bad.sum())
    if count in (0, len(bad)):
        return float("nan")
    return float((rankdata(score)[bad].sum() - count * (count + 1) / 2) / (count * (len(bad) - count)))


def sparsification_error(uncertainty: np.ndarray, error: np.ndarray) -> float:
    """AUSE; see :class:`Ranking`."""
    squared = error**2
    keep = np.maximum(np.rint(len(error) * (1 - np.arange(_STEPS) / _STEPS)).astype(int), 1)

    def curve(order: np.ndarray) -> np.ndarray:
        return np.sqrt(np.cumsum(squared[order])[keep - 1] / keep)

    by_guess, by_truth = curve(np.argsort(uncertainty, kind="stable")), curve(np.argsort(squared, kind="stable"))
    return float(((by_guess - by_truth) / max(by_guess[0], 1e-12)).mean())


def fit_line(
    features: Sequence[np.ndarray],  # of each scene, [P, F]
    targets: Sequence[np.ndarray],  # of each scene, [P]
    ridge: float = 3e-3,
) -> np.ndarray:  # float64 [1 + F], the intercept first
    """Least squares in which every scene counts alike; ``ridge`` is relative to the features' variance."""
    weight = np.concatenate([np.full(len(target), 1 / len(target)) for target in targets])
    weight /= weight.sum()
    x, y = np.concatenate(features).astype(np.float64), np.concatenate(targets).astype(np.float64)
    mean, y_mean = weight @ x, weight @ y
    deviation = np.sqrt(weight @ (x - mean) ** 2)
    known = deviation > 1e-9  # a feature that never changes says nothing
    z = (x - mean)[:, known] / deviation[known]
    solved = np.linalg.solve(z.T @ (weight[:, None] * z) + ridge * np.eye(z.shape[1]), z.T @ (weight * (y - y_mean)))
    slope = np.zeros(x.shape[1])
    slope[known] = solved / deviation[known]
    return np.concatenate(([y_mean - mean @ slope], slope))
