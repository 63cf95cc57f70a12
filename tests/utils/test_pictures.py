"""A picture is what it shows, however it is stored; the right colours are known from the picture that is stored."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from utils.errors import UserError
from utils.pictures import decode_picture, read_header


@pytest.fixture
def picture() -> Image.Image:
    """12 rows and 20 columns: corners of four colours, so that turned ones differ, on a ramp."""
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[..., 0] = np.linspace(30, 220, 20)
    pixels[..., 1] = np.linspace(200, 20, 12)[:, None]
    pixels[:4, :5], pixels[:4, -5:], pixels[-4:, :5], pixels[-4:, -5:] = (250, 10, 10), (10, 240, 10), (5, 5, 250), 128
    return Image.fromarray(pixels)


def _stored(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _close(found: np.ndarray, expected: Image.Image, tolerance: float) -> None:
    difference = np.abs(found.astype(int) - np.asarray(expected.convert("RGB")).astype(int))
    assert found.dtype == np.uint8 and difference.max() <= tolerance, difference.max()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_the_pixels(picture, kind):
    content = _stored(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
    color, alpha = decode_picture(content, "a")
    _close(color, picture, 0)
    assert alpha is None


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_ink_and_not_alpha(picture, kind):
    options = {"quality": 100} if kind == "JPEG" else {}
    color, alpha = decode_picture(_stored(picture.convert("CMYK"), kind, **options), "a")
    _close(color, picture, 60 if kind == "JPEG" else 1)
    assert alpha is None and np.abs(color.astype(int) - np.asarray(picture).astype(int)).mean() < 4


def test_a_black_plate_darkens():
    plates = np.zeros((4, 4, 4), np.uint8)
    plates[..., 3] = 128  # half black ink only
    color, alpha = decode_picture(_stored(Image.fromarray(plates, "CMYK"), "TIFF"), "a")
    assert alpha is None and np.abs(color.astype(int) - 127).max() <= 1


def test_grey_bilevel_palette_and_other_colour_spaces(picture):
    grey = picture.convert("L")
    _close(decode_picture(_stored(grey, "PNG"), "a").color, grey, 0)
    bilevel = picture.convert("1")
    _close(decode_picture(_stored(bilevel, "PNG"), "a").color, bilevel.convert("L"), 0)
    _close(decode_picture(_stored(bilevel, "TIFF", compression="group4"), "a").color, bilevel.convert("L"), 0)
    palette = picture.quantize(64)
    _close(decode_picture(_stored(palette, "PNG"), "a").color, palette.convert("RGB"), 0)
    _close(decode_picture(_stored(picture.convert("YCbCr"), "TIFF"), "a").color, picture, 4)
    lab = ImageCms.profileToProfile(picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                    outputMode="LAB")
    found = decode_picture(_stored(lab, "TIFF"), "a").color
    _close(found, picture, 30)  # 8 bits of L*a*b* are coarse, and some of these colours are clipped
    assert np.abs(found.astype(int) - np.asarray(picture)).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_are_rounded_to_8(kind):
    levels = np.array([[0, 128, 129, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16)
    color, alpha = decode_picture(_stored(Image.fromarray(levels), kind), "a")
    assert color[0, :, 1].tolist() == [0, 0, 1, 100, 100, 101, 255] and alpha is None


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(pixels: np.ndarray, kind: int, depth: int, key: bytes) -> bytes:
    """A PNG with a transparent colour (chunk tRNS), which Pillow writes for 8 bits only."""
    big = pixels.astype(">u2" if depth == 16 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*part) for part in ((b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def test_transparency_of_every_kind(picture):
    hole = np.full((12, 20), 255, np.uint8)
    hole[2:5, 3:9] = 0
    hole[6:8, 3:9] = 77
    with_alpha = picture.copy()
    with_alpha.putalpha(Image.fromarray(hole))
    for image, kind in ((with_alpha, "PNG"), (with_alpha, "TIFF"), (with_alpha, "WEBP")):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        color, alpha = decode_picture(_stored(image, kind, **options), "a")
        assert np.array_equal(alpha, hole)
        _close(color, picture, 0)
    grey = picture.convert("LA")
    grey.putalpha(Image.fromarray(hole))
    color, alpha = decode_picture(_stored(grey, "PNG"), "a")
    assert np.array_equal(alpha, hole) and np.array_equal(color[..., 0], np.asarray(picture.convert("L")))
    palette = picture.quantize(16)
    index = np.asarray(palette)
    opacities = bytes(range(0, 256, 16))
    color, alpha = decode_picture(_stored(palette, "PNG", transparency=opacities), "a")
    assert np.array_equal(alpha, np.frombuffer(opacities, np.uint8)[index])
    _close(color, palette.convert("RGB"), 0)
    color, alpha = decode_picture(_stored(palette, "PNG", transparency=3), "a")
    assert np.array_equal(alpha, np.where(index == 3, 0, 255))


@pytest.mark.parametrize("depth", [8, 16])
def test_one_transparent_colour(depth):
    grey = np.array([[5, 200, 5, 90]]) * (257 if depth == 16 else 1)
    color, alpha = decode_picture(_png(grey, 0, depth, struct.pack(">H", grey[0, 0])), "a")
    assert alpha.tolist() == [[0, 255, 0, 255]] and color[0, :, 2].tolist() == [5, 200, 5, 90]
    colors = np.array([[[250, 0, 0], [0, 250, 0], [250, 0, 0], [250, 0, 9]]]) * (257 if depth == 16 else 1)
    color, alpha = decode_picture(_png(colors, 2, depth, struct.pack(">3H", *colors[0, 0])), "a")
    assert alpha.tolist() == [[0, 255, 0, 255]] and color[0, 1].tolist() == [0, 250, 0]
    _, alpha = decode_picture(_png(colors, 2, depth, struct.pack(">3H", 1, 2, 3)), "a")
    assert alpha is None  # nothing has that colour


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_turned_by_exif_as_viewers_do_or_as_stored(tmp_path, picture, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    path = tmp_path / "a"
    path.write_bytes(_stored(picture, kind, exif=exif, **options))
    as_shown = np.asarray(picture)  # turned by arrays' own operations: row 0 and column 0 as the EXIF standard says
    as_shown = {1: as_shown, 2: as_shown[:, ::-1], 3: as_shown[::-1, ::-1], 4: as_shown[::-1],
                5: as_shown.swapaxes(0, 1), 6: as_shown[::-1].swapaxes(0, 1),
                7: as_shown[::-1, ::-1].swapaxes(0, 1), 8: as_shown.swapaxes(0, 1)[::-1]}[turn]  # fmt: skip
    tolerance = 8 if kind == "JPEG" else 0
    _close(decode_picture(path).color, Image.fromarray(as_shown.copy()), tolerance)
    _close(decode_picture(path, turned=False).color, picture, tolerance)
    header = read_header(path)
    assert header.stored_size == (12, 20) and header.size == as_shown.shape[:2] and header.turn == turn


def _profile(gamma: float) -> bytes:
    """sRGB's primaries with another tone curve, made from the library's own sRGB profile."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    at = len(profile)
    for entry in range(count):
        name = bytes(profile[132 + 12 * entry : 136 + 12 * entry])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">II", profile, 136 + 12 * entry, at, 14)
        if name == b"desc":
            offset, size = struct.unpack_from(">II", profile, 136 + 12 * entry)
            text = bytes(profile[offset : offset + size])
            profile[offset : offset + size] = text.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    profile += curve
    struct.pack_into(">I", profile, 0, len(profile))
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_colour_profile_becomes_srgb(kind):
    grey = np.full((4, 4, 3), 128, np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = _stored(Image.fromarray(grey), kind, icc_profile=_profile(1.0), **options)
    linear = 128 / 255
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)  # 188: light of half the strength
    assert np.abs(decode_picture(content, "a").color.astype(float) - expected).max() <= 1.5


def test_srgb_foreign_and_damaged_profiles_change_nothing(picture):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        _close(decode_picture(_stored(picture, "PNG", icc_profile=profile), "a").color, picture, 0)
    grey = picture.convert("L")  # an RGB profile in a grey picture fits nothing
    _close(decode_picture(_stored(grey, "PNG", icc_profile=_profile(1.0)), "a").color, grey, 0)


def test_the_content_says_the_format_and_what_follows_it_is_no_matter(tmp_path, picture):
    jpeg = _stored(picture, "JPEG", quality=100, subsampling=0)
    png = _stored(picture, "PNG")
    film = np.random.default_rng(0).integers(0, 128, 300_000, np.uint8).tobytes()
    for name, content in (("a.png", jpeg), ("b.jpg", png), ("c.jpg", jpeg + b"MotionPhoto_Data" + film),
                          ("d.jpg", jpeg + bytes(100_000)), ("e.png", png + film), ("f", png)):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        assert read_header(tmp_path / name).size == (12, 20)
        _close(decode_picture(tmp_path / name).color, picture, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_ends_early_is_named_by_its_header(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    thumbnail = _stored(Image.fromarray(pixels[:8, :8]), "JPEG")  # its end mark is no end of the photograph
    exif = Image.Exif()
    exif[0x010E] = thumbnail.hex()
    content = _stored(Image.fromarray(pixels), kind, exif=exif)
    (tmp_path / "a.jpg").write_bytes(content[:-1500])
    with pytest.raises(UserError, match="a.jpg (ends before its picture does|cannot be read)"):
        read_header(tmp_path / "a.jpg")


def test_the_end_mark_of_a_preview_in_the_header_does_not_count(tmp_path, picture):
    segment = _stored(picture, "JPEG")
    jpeg = _stored(picture, "JPEG")
    whole = jpeg[:2] + b"\xff\xe5" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    scan = whole.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(whole[: scan + 20] + b"\x11" * 2000)
    with pytest.raises(UserError, match="ends before"):
        read_header(tmp_path / "a.jpg")


def test_several_pictures_in_a_file(picture):
    other = Image.new("RGB", picture.size)
    for kind in ("TIFF", "PNG", "WEBP"):
        content = _stored(picture, kind, save_all=True, append_images=[other, picture])
        with pytest.raises(UserError, match="^frame 3 holds 3 pictures; expected one"):
            decode_picture(content, "frame 3")
    with_preview = _stored(picture, "MPO", save_all=True, append_images=[picture.resize((8, 8))], quality=100)
    color = decode_picture(with_preview, "a").color
    assert color.shape == (12, 20, 3) and np.abs(color.astype(int) - np.asarray(picture)).mean() < 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a" + bytes(50), "it is a GIF picture; convert it"), (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "it is a HEIF picture"), (b"version https://git-lfs.github.com/spec/v1\n",
         "it is a pointer of Git LFS; run git lfs pull"), (b"%PDF-1.4", "it is a PDF document"),
    ],
)  # fmt: skip
def test_what_is_no_photograph_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=f"a.jpg cannot be read as a colour image: {message}"):
        decode_picture(tmp_path / "a.jpg")


def test_numbers_that_are_no_colours_are_refused():
    for image, message in ((Image.new("F", (4, 4)), "float"), (Image.new("I", (4, 4)), "32-bit")):
        with pytest.raises(UserError, match=f"a holds {message} values; expected a picture of 8 or 16 bits"):
            decode_picture(_stored(image, "TIFF"), "a")
