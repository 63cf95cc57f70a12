"""Image files and resizing keep pixels where the cameras say they are."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from utils.depth_images import read_depth, write_depth
from utils.errors import UserError
from utils.image_files import open_image
from utils.images import read_image, resize_image, resize_nearest, write_image
from utils.pictures import decode_picture


def test_png_round_trip_and_grey(tmp_path):
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    write_image(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    write_image(tmp_path / "grey.png", image[0])
    assert torch.equal(read_image(tmp_path / "grey.png"), image[:1].expand(3, -1, -1))


def test_depth_round_trip_rounds_to_millimetres(tmp_path):
    write_depth(tmp_path / "d.png", torch.tensor([[0.0, 1.2344, 1.2346, 70.0]]))
    assert read_depth(tmp_path / "d.png").tolist()[0] == pytest.approx([0, 1.234, 1.235, 0])  # clamped: no measurement


def test_truncated_image_is_one_clear_error(tmp_path):
    write_image(tmp_path / "a.jpg", torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    with pytest.raises(UserError, match="a.jpg cannot be read"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="none.jpg does not exist"):
        read_image(tmp_path / "none.jpg")


def _png(width, height, kind=2, depth=8, data=b"\0" * 1000, extra=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    "content",
    [
        _png(100_000, 100_000), _png(13_000, 13_000), _png(2**31 - 1, 2**31 - 1), _png(0, 0), _png(65_536, 65_536, 0),
        b"\xff\xd8\xff" + bytes(500) + b"\xff\xd9", b"II*\0" + struct.pack("<IH", 8, 60000), b"<svg/>",
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20), b"BM" + b"\xff" * 60, b"P6 100000 100000 255\n", b"",
        b"RIFF\xff\xff\xff\xffWEBPVP8L" + b"\xff" * 30, b"\0\0\0\0\x11\xaf\xff\xff\xff\xff" + bytes(200),
    ],
    ids=range(14),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_damaged_and_lying_images_are_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_depth):
        with pytest.raises(UserError, match="a.png (cannot be read|announces|holds)"):
            read(tmp_path / "a.png")
    with pytest.raises(UserError, match="^frame 3 (cannot be read|announces|holds)"):
        decode_picture(content, name="frame 3")


def test_pixels_that_no_file_of_that_length_holds_are_not_made(tmp_path):
    for side in (100_000, 8_000):
        with pytest.raises(UserError, match=f"^a announces {side}x{side} pixels in .* bytes"), open_image(
            _png(side, side), name="a"
        ):
            pass
    with open_image(_png(4096, 4096), name="a") as image:  # a white drawing can be that short
        assert image.size == (4096, 4096)


def test_no_program_is_started_for_postscript(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *arguments, **options: started.append(arguments))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n(x) print\nshowpage\n")
    with pytest.raises(UserError, match="a.jpg cannot be read"):
        read_image(tmp_path / "a.jpg")
    assert not started


def test_phones_pictures_of_200_megapixels_are_read(tmp_path):
    side = 14_200  # of grey, to be quick; Pillow's own limit is 179 megapixels whatever they hold
    Image.new("L", (side, side), 7).save(tmp_path / "a.jpg", quality=50)
    with open_image(tmp_path / "a.jpg") as image:
        image.draft("L", (side // 8, side // 8))  # an eighth of the size, since a test need not hold all of it
        assert len(np.unique(np.array(image))) == 1


def test_pipes_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        with pytest.raises(UserError, match=f"{name} is not a file; expected a colour image"):
            read_image(tmp_path / name)


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
