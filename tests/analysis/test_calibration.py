"""Measures of how errors are ranked against their definitions, and the fitted line against a known one."""

import numpy as np
import pytest

from analysis.calibration import area_under_roc, fit_line, rank_errors, sparsification_error

RANDOM = np.random.default_rng(0)


def test_the_area_under_the_roc_counts_pairs():
    score, bad = RANDOM.integers(0, 6, 60).astype(float), RANDOM.random(60) < 0.3
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[bad] for b in score[~bad]]
    assert area_under_roc(score, bad) == pytest.approx(np.mean(pairs))
    assert np.isnan(area_under_roc(score, np.zeros(60, bool)))


def test_the_sparsification_error_leaves_pixels_out_one_share_after_another():
    error, guess = RANDOM.random(300), RANDOM.random(300)

    def curve(by):
        kept = [max(round(300 * (1 - step / 100)), 1) for step in range(100)]
        return np.array([np.sqrt(np.mean(error[np.argsort(by)[:count]] ** 2)) for count in kept])

    expected = ((curve(guess) - curve(error)) / np.sqrt(np.mean(error**2))).mean()
    assert sparsification_error(guess, error) == pytest.approx(expected)
    assert sparsification_error(error**3, error) == pytest.approx(0)  # only the order counts


def test_a_perfect_ranking_and_its_reverse():
    error = RANDOM.random(500)
    best, worst = rank_errors(error, error), rank_errors(-error, error)
    assert (best.auroc, best.spearman) == pytest.approx((1, 1)) and best.ause == pytest.approx(0)
    assert (worst.auroc, worst.spearman) == pytest.approx((0, -1)) and worst.ause > 0.3


def test_the_line_is_found_and_scenes_count_alike():
    true = np.array([0.3, 2.0, -1.0, 0.0])
    features = [RANDOM.normal(size=(count, 3)) for count in (50, 5000)]
    features = [np.concatenate((x[:, :2], np.full((len(x), 1), 4.0)), 1) for x in features]  # the last never changes
    targets = [true[0] + x[:, :2] @ true[1:3] for x in features]
    assert fit_line(features, targets, ridge=0) == pytest.approx(true, abs=1e-9)
    assert np.abs(fit_line(features, targets)[1:]).sum() < 3  # the ridge shrinks
    shifted = [targets[0] + 1, targets[1]]
    assert fit_line(features, shifted, ridge=0)[0] == pytest.approx(true[0] + 0.5, abs=0.05)
