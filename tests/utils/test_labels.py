"""The benchmark's classes as its label table has them."""

import numpy as np
import torch

from utils.labels import (
    CLASS_COLORS,
    CLASS_NAMES,
    NUM_CLASSES,
    NYU40_IDS,
    TAIL_CLASSES,
    class_index,
    colorize,
    nyu40_to_class,
)


def test_table():
    assert NUM_CLASSES == 21 and len(set(map(tuple, CLASS_COLORS.tolist()))) == 21
    assert NYU40_IDS[class_index("desk")] == 14 and NYU40_IDS[class_index("otherfurniture")] == 39
    assert {CLASS_NAMES[index] for index in TAIL_CLASSES} == {
        "bathtub", "sink", "picture", "shower curtain", "toilet", "counter", "refrigerator", "curtain",
    }


def test_ids_outside_the_benchmark_become_unannotated():
    ids = np.array([0, 13, 15, 22, 38, 40, 50, 149, 65535])
    assert nyu40_to_class(ids).tolist() == [0] * len(ids)


def test_ids_of_the_classes_become_their_indices_in_arrays_and_tensors():
    indices = torch.arange(NUM_CLASSES).reshape(3, 7)
    assert torch.equal(nyu40_to_class(torch.tensor(NYU40_IDS).reshape(3, 7)).long(), indices)
    assert nyu40_to_class(np.array(NYU40_IDS, dtype=np.uint16)).tolist() == list(range(NUM_CLASSES))


def test_colorize_is_channels_first():
    image = colorize(torch.tensor([[1, 2, 0]]))
    assert image.shape == (3, 1, 3)
    assert image[:, 0, 1].tolist() == [152, 223, 138]
