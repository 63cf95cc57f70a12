"""The benchmark's measure against hand-computed examples and against the benchmark script's rule in plain Python."""

import math
import random

import pytest
import torch

from enet.confusion_picture import confusion_picture
from enet.metrics import (
    ScanNetIoU,
    class_iou,
    confusion_matrix,
    mean_accuracy,
    pixel_accuracy,
    summarize_confusion,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def benchmark_scores(pairs: list[tuple[int, int]], num_classes: int = 21) -> tuple[list[float], float]:
    """IoU per class and mean, from (truth, prediction) pairs, pixel by pixel as the benchmark's script counts."""
    confusion = [[0] * num_classes for _ in range(num_classes)]
    for truth, prediction in pairs:
        if truth != 0:
            confusion[truth][prediction] += 1
    scores = [math.nan]
    for label in range(1, num_classes):
        hits = confusion[label][label]
        missed = sum(confusion[label]) - hits
        false = sum(confusion[other][label] for other in range(1, num_classes) if other != label)
        total = hits + missed + false
        scores.append(hits / total if total else math.nan)
    valid = [score for score in scores if not math.isnan(score)]
    return scores, sum(valid) / len(valid) if valid else math.nan


def score(truth: list, prediction: list) -> float:
    metric = ScanNetIoU()
    metric.update(torch.tensor(prediction), torch.tensor(truth))
    return float(metric.compute())


def test_hand_computed_examples():
    # Prediction 0 on an annotated pixel is a false negative: IoU of class 1 is 1/2. Class 2: 1.
    assert score([1, 1, 2, 0], [1, 0, 2, 2]) == 0.75
    # A prediction on an unannotated pixel costs nothing.
    assert score([1, 0, 0, 0], [1, 1, 2, 3]) == 1.0
    # Class 3 is predicted on an annotated pixel but never true: it occurs, with IoU 0. (1/2 + 0) / 2.
    assert score([1, 1], [1, 3]) == 0.25
    # Everything unannotated: no score at all.
    assert math.isnan(score([0, 0], [1, 2]))


@pytest.mark.parametrize("other", [-100, -1, 21, 255])
def test_numbers_outside_the_classes_are_outside_the_benchmark(other):
    """They must not run over into the matrix's next row: 1 * 21 + 21 is the place of (truth 2, prediction 0)."""
    assert score([1, 1, 2, 2], [1, other, 2, 2]) == 0.75
    assert score([1, other, 2, other], [1, 2, 2, 5]) == 1.0


def test_zeroing_the_ignored_column_would_hide_false_negatives():
    """The original project's mistake: without the column of class 0 this scores 1 instead of 1/4."""
    assert score([5, 5, 5, 5], [5, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_benchmark_script(seed, device):
    generator = random.Random(seed)
    classes = generator.sample(range(21), 6 if seed else 21)
    truth = [[generator.choice(classes) for _ in range(60)] for _ in range(4)]
    prediction = [[generator.choice([t, t, *classes]) for t in row] for row in truth]
    metric = ScanNetIoU().to(device)
    for t, p in zip(truth, prediction, strict=True):  # image by image: one matrix over all of them
        metric.update(torch.tensor(p, dtype=torch.uint8, device=device), torch.tensor(t, device=device))
    pairs = [pair for t, p in zip(truth, prediction, strict=True) for pair in zip(t, p, strict=True)]
    expected, mean = benchmark_scores(pairs)
    found = class_iou(metric.total()).cpu()
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=1e-12)
    assert float(metric.compute()) == pytest.approx(mean, rel=1e-12)


def test_mean_is_over_one_matrix_not_over_images():
    metric = ScanNetIoU()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    metric.update(torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1]))
    assert float(metric.compute()) == pytest.approx((1 / 4 + 0) / 2)
    metric.reset()
    assert not metric.confusion.any()


def test_prediction_of_another_size_is_resized_by_nearest():
    truth = torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]])
    metric = ScanNetIoU()
    metric.update(torch.tensor([[[1, 2], [3, 4]]]), truth)
    assert float(metric.compute()) == 1.0


def test_confusion_rows_are_truth():
    matrix = confusion_matrix(torch.tensor([[3, 3], [0, 20]]), torch.tensor([[1, 3], [3, 20]]))
    assert matrix[1, 3] == matrix[3, 3] == matrix[3, 0] == matrix[20, 20] == 1 and matrix.sum() == 4


def test_accuracy_and_summary():
    matrix = confusion_matrix(torch.tensor([1, 0, 2, 2, 0]), torch.tensor([1, 1, 2, 0, 0]))
    assert float(pixel_accuracy(matrix)) == pytest.approx(2 / 3)
    summary = summarize_confusion(matrix)
    assert summary["class_iou"]["wall"] == 0.5 and summary["class_iou"]["chair"] is None
    assert summary["mean_iou"] == 0.75 and summary["confusion"][1][0] == 1


def test_mean_accuracy_is_over_the_classes_that_are_there():
    confusion = torch.zeros(21, 21, dtype=torch.int64)
    confusion[0, 1] = 50  # unannotated pixels do not count
    confusion[1, 1], confusion[1, 2] = 3, 1
    confusion[2, 2], confusion[2, 0] = 1, 1  # what is predicted outside the benchmark is not found
    assert float(mean_accuracy(confusion)) == pytest.approx((0.75 + 0.5) / 2)
    assert torch.isnan(mean_accuracy(torch.zeros(21, 21, dtype=torch.int64)))


def test_the_picture_of_a_confusion_matrix_has_a_cell_for_each_pair_and_names():
    confusion = torch.eye(21, dtype=torch.int64) * 7
    confusion[3] = 0
    confusion[3, 5] = 9
    picture = confusion_picture(confusion)
    margin = picture.shape[1] - 21 * 26
    assert picture.shape[1] == picture.shape[2] and margin > 80

    def cell(row, column):
        return picture[:, margin + 26 * row + 3, margin + 26 * column + 3].tolist()

    assert cell(3, 5) == cell(7, 7) == [8, 81, 156] and cell(3, 3) == cell(5, 3) == [255, 255, 255]
    assert (picture[:, margin:, :margin] < 128).any() and (picture[:, :margin, margin:] < 128).any(), "names"
