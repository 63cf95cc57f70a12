"""Pictures for the documentation: small, with exact class colours, and only of a finished demo."""

import io

import numpy as np
import pytest
from PIL import Image

from docs.screenshots import save_picture, take_all
from utils.errors import UserError
from utils.labels import label_set


def test_few_colours_are_left_and_class_colours_are_exact(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    pixels[:, :84] = label_set().colors.repeat(4, axis=0)
    pixels[:, 84:100] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    save_picture(buffer.getvalue(), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as written:
        assert written.mode == "P"
        read = np.asarray(written.convert("RGB"))
    assert len(np.unique(read.reshape(-1, 3), axis=0)) <= 256
    np.testing.assert_array_equal(read[:, :100], pixels[:, :100])
    assert np.abs(read.astype(int) - pixels).mean() < 20
    assert (tmp_path / "picture.png").stat().st_size < len(buffer.getvalue()) / 2


def test_an_unfinished_demo_is_refused(tmp_path):
    with pytest.raises(UserError, match="report/index.html does not exist; run scripts/demo.sh"):
        take_all(tmp_path, tmp_path / "images")
