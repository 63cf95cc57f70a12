"""Counting against numbers worked out by hand."""

import pytest
import torch

from analysis.coverage import central_window, class_pixels, view_chunks, window_coverage
from utils.errors import UserError


@pytest.mark.parametrize(
    ("size", "fraction", "expected"),
    [((124, 124), 0.5, (31, 93, 31, 93)), ((48, 64), 0.5, (12, 36, 16, 48)), ((4, 6), 1.0, (0, 4, 0, 6)),
     ((5, 4), 0.01, (2, 3, 1, 3)), ((1, 1), 0.5, (0, 1, 0, 1))],
)
def test_window_is_centred_and_never_empty(size, fraction, expected):
    rows, columns = central_window(size, fraction)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected
    assert rows.start == size[0] - rows.stop and columns.start == size[1] - columns.stop


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_window_fraction_is_checked(fraction):
    with pytest.raises(UserError, match="window"):
        central_window((10, 10), fraction)


def test_class_pixels_are_counted_per_view():
    labels = torch.zeros(2, 3, 4, dtype=torch.uint8)
    labels[0, 0, :] = 20
    labels[1, 1, 1] = 5
    counts = class_pixels(labels)
    assert counts.shape == (2, 21) and counts.sum(1).tolist() == [12, 12]
    assert (counts[0, 20], counts[0, 5], counts[1, 5], counts[1, 0]) == (4, 0, 1, 11)


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="255"):
        class_pixels(torch.full((1, 2, 2), 255, dtype=torch.uint8))


def test_window_coverage_ignores_the_border():
    labels = torch.full((1, 8, 8), 1, dtype=torch.uint8)
    labels[0, 2:6, 2:4] = 7  # half of the central 4x4 window
    labels[0, 0, :] = 9
    coverage = window_coverage(labels, 0.5)[0]
    assert coverage[7] == 0.5 and coverage[1] == 0.5 and coverage[9] == 0


def test_chunks_cover_all_views_once_and_stay_small():
    chunks = list(view_chunks(1000, (480, 640)))
    assert [k for c in chunks for k in range(c.start, c.stop)] == list(range(1000))
    assert max(c.stop - c.start for c in chunks) * 480 * 640 <= 1 << 20
    assert [c.stop - c.start for c in view_chunks(2, (4096, 4096))] == [1, 1]
