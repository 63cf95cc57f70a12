"""Image files and resizing keep pixels where the cameras say they are."""

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.images import read_depth, read_image, resize_image, resize_nearest, write_depth, write_image


def test_png_round_trip_and_grey(tmp_path):
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    write_image(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    write_image(tmp_path / "grey.png", image[0])
    assert torch.equal(read_image(tmp_path / "grey.png"), image[:1].expand(3, -1, -1))


def test_depth_round_trip_rounds_to_millimetres(tmp_path):
    write_depth(tmp_path / "d.png", torch.tensor([[0.0, 1.2344, 1.2346, 70.0]]))
    assert read_depth(tmp_path / "d.png").tolist()[0] == pytest.approx([0, 1.234, 1.235, 65.535])


def test_truncated_image_is_one_clear_error(tmp_path):
    write_image(tmp_path / "a.jpg", torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    with pytest.raises(UserError, match="a.jpg cannot be read"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="none.jpg does not exist"):
        read_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("size", [(4, 6), (12, 9), (5, 31), (1, 1)])
def test_nearest_takes_the_pixel_under_the_centre(size):
    image = torch.arange(8 * 12).reshape(8, 12)
    resized = resize_nearest(image, size)
    for row in range(size[0]):
        for column in range(size[1]):
            source = image[int((row + 0.5) * 8 / size[0]), int((column + 0.5) * 12 / size[1])]
            assert resized[row, column] == source


def test_resize_maps_pixel_centres_as_the_intrinsics_do():
    # A linear ramp u -> u must stay u * W'/W in its interior, whatever the size.
    ramp = (torch.arange(64) + 0.5).expand(1, 16, 64)
    small = resize_image(ramp, (16, 16))[0, 8, 2:-2]
    np.testing.assert_allclose(small, ((torch.arange(16) + 0.5) * 4)[2:-2], rtol=1e-5)


@pytest.mark.parametrize("size", [(31, 43), (96, 64), (17, 128)])
def test_resized_bytes_are_those_of_the_float_result_to_a_level(size):
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = resize_image(image.float(), size).round()
    for layout in (image, image.movedim(0, -1).contiguous().movedim(-1, 0)):
        resized = resize_image(layout, size)
        assert resized.dtype == torch.uint8
        difference = resized.float() - expected
        assert difference.abs().max() <= 1 and abs(float(difference.mean())) < 0.1  # halves are rounded up
