"""``.sens`` streams: what was written is read, in bounded memory; extraction resumes and names what is broken."""

import io
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import load_scannet_scene
from dataloader.sens import SensReader
from dataloader.sens_extraction import extract_scene
from dataloader.task_extract import extract
from tests.dataloader.scannet_fixture import write_room_mesh
from tests.dataloader.sens_fixture import color_image, depth_image, expected_pose, write_sens
from utils.depth_images import read_depth
from utils.errors import UserError
from utils.images import read_image


@pytest.mark.parametrize("color", ["raw", "png"])
@pytest.mark.parametrize("depth", ["raw", "zlib"])
def test_frames_come_back(tmp_path, color, depth):
    write_sens(tmp_path / "s.sens", color=color, depth=depth)
    with SensReader(tmp_path / "s.sens") as reader:
        assert (reader.header.name, reader.header.num_frames) == ("Structure", 12)
        assert (reader.header.color_size, reader.header.depth_size) == ((12, 16), (6, 8))
        assert reader.header.color_intrinsics[0, 2] == 8
        frames = list(reader.frames(step=5))
        assert [frame.index for frame in frames] == [0, 5, 10]
        for frame in frames:
            assert torch.equal(frame.camera_to_world, expected_pose(frame.index))
            assert np.array_equal(reader.decode_color(frame).permute(1, 2, 0).numpy(), color_image(frame.index))
            depth_mm = reader.decode_depth(frame).numpy() * 1000
            np.testing.assert_allclose(depth_mm, depth_image(frame.index), atol=1e-3)


def test_extracted_scene_opens(tmp_path):
    write_sens(tmp_path / "sens" / "scene0000_00" / "scene0000_00.sens")
    write_room_mesh(tmp_path / "sens" / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply", with_labels=True)
    result = extract(sens_dir=str(tmp_path / "sens"), scans_dir=str(tmp_path / "scans"), frame_skip=2)
    assert result == {"scenes": 1, "frames": 6, "lost_poses": 1, "damaged": 0, "meshes": 1, "failed": {}}
    scene = load_scannet_scene(tmp_path / "scans" / "scene0000_00")
    assert scene.frames == ["0", "4", "6", "8", "10"] and list(scene.skipped) == ["2"]
    assert torch.equal(scene.camera_to_world[4].float(), expected_pose(10).float())  # float32 survives the text
    assert np.array_equal(scene.read_color(1).permute(1, 2, 0).numpy(), color_image(4))
    np.testing.assert_allclose(scene.read_depth(1).numpy() * 1000, depth_image(4), atol=1e-3)
    assert scene.label_mesh_path.exists()
    # Again: nothing to do. With another setting: refused.
    assert extract(sens_dir=str(tmp_path / "sens"), scans_dir=str(tmp_path / "scans"), frame_skip=2)["frames"] == 0
    with pytest.raises(UserError, match="frame_skip = 2 there, 1 now"):
        extract(sens_dir=str(tmp_path / "sens"), scans_dir=str(tmp_path / "scans"))


def test_jpeg_bytes_are_kept_and_depth_units_converted(tmp_path):
    write_sens(tmp_path / "s.sens", color="jpeg", units=4000.0, frames=3)
    extract_scene(tmp_path / "s.sens", tmp_path / "s")
    with SensReader(tmp_path / "s.sens") as reader:
        data = next(reader.frames()).color_data
    assert (tmp_path / "s" / "color" / "0.jpg").read_bytes() == data
    depth = read_depth(tmp_path / "s" / "depth" / "1.png")
    assert np.abs(depth.numpy() - depth_image(1) / 4000).max() <= 0.0005 + 1e-6


def test_interrupted_extraction_goes_on(tmp_path, resume, monkeypatch):
    write_sens(tmp_path / "s.sens")
    decode, calls = SensReader.decode_depth, []

    def counted(self, frame):
        calls.append(frame.index)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return decode(self, frame)

    monkeypatch.setattr(SensReader, "decode_depth", counted)
    with pytest.raises(KeyboardInterrupt):
        extract_scene(tmp_path / "s.sens", tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert extract_scene(tmp_path / "s.sens", tmp_path / "s")["extracted"] == 7
    assert calls == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11]
    assert len(list((tmp_path / "s" / "color").iterdir())) == 12


def test_truncated_at_any_place(tmp_path):
    whole = write_sens(tmp_path / "s.sens", frames=3)
    for length, place in (
        (2, "the header"), (10, "the header"), (200, "the header"), (330, "frame 0"),
        (len(whole) // 2, "the colour image of frame 1"), (len(whole) - 200, "the colour image of frame 2"),
    ):  # fmt: skip
        (tmp_path / "cut.sens").write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"cut.sens ends within {place}"):
            with SensReader(tmp_path / "cut.sens") as reader:
                list(reader.frames())
        with pytest.raises(UserError, match="ends within"):  # skipped frames are checked too
            with SensReader(tmp_path / "cut.sens") as reader:
                list(reader.frames(wanted=set()))


def test_a_damaged_length_does_not_ask_for_memory(tmp_path):
    whole = bytearray(write_sens(tmp_path / "s.sens", frames=1))
    position = 4 + 8 + 9 + 4 * 64 + 8 + 16 + 4 + 8 + 64 + 16  # colour length of frame 0
    whole[position : position + 8] = (1 << 60).to_bytes(8, "little")
    (tmp_path / "s.sens").write_bytes(whole)
    with SensReader(tmp_path / "s.sens") as reader, pytest.raises(UserError, match="ends within the colour image"):
        next(reader.frames())


def test_memory_stays_at_one_frame(tmp_path):
    write_sens(tmp_path / "s.sens", frames=6000, color="raw", depth="raw")
    file_bytes = (tmp_path / "s.sens").stat().st_size
    tracemalloc.start()
    with SensReader(tmp_path / "s.sens") as reader:
        count = sum(len(frame.color_data) for frame in reader.frames())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6000 * 12 * 16 * 3 and peak < file_bytes / 8  # a frame is 1/6000; the rest waits for collection


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"\x03" + data[1:], "version 3"),
        (lambda data: data[:4] + b"\xff" * 8 + data[12:], "sensor name"),
        (lambda data: data[: 4 + 8 + 9 + 256] + b"\x09" + data[4 + 8 + 9 + 257 :], "colour coding 9"),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    (tmp_path / "s.sens").write_bytes(change(write_sens(tmp_path / "s.sens", frames=1)))
    with pytest.raises(UserError, match=message):
        SensReader(tmp_path / "s.sens")


def test_damaged_depth_names_the_frame(tmp_path):
    whole = write_sens(tmp_path / "s.sens", frames=2)
    packed = zlib.compress(depth_image(1).astype("<u2").tobytes())
    (tmp_path / "s.sens").write_bytes(whole.replace(packed, b"\0" * len(packed)))
    with SensReader(tmp_path / "s.sens") as reader:
        _, frame = reader.frames()
        with pytest.raises(UserError, match="depth image of frame 1 is damaged"):
            reader.decode_depth(frame)


def test_a_damaged_frame_costs_that_frame(tmp_path, caplog):
    whole = write_sens(tmp_path / "s.sens", frames=4)
    packed = zlib.compress(depth_image(1).astype("<u2").tobytes())
    (tmp_path / "s.sens").write_bytes(whole.replace(packed, b"\0" * len(packed)))
    result = extract_scene(tmp_path / "s.sens", tmp_path / "s")
    assert result["frames"] == 3 and result["damaged"] == 1
    assert "s: 1 of 4 frames left out, because they are damaged" in caplog.text
    assert "depth image of frame 1 is damaged" in caplog.text
    assert sorted(path.name for path in (tmp_path / "s" / "pose").iterdir()) == ["0.txt", "2.txt", "3.txt"]
    scene = load_scannet_scene(tmp_path / "s")
    assert scene.frames == ["0", "3"]  # the pose of frame 2 is lost
    np.testing.assert_allclose(scene.read_depth(1).numpy() * 1000, depth_image(3), atol=1e-3)


def test_a_stream_without_a_readable_frame_is_refused(tmp_path):
    write_sens(tmp_path / "none.sens", frames=0)
    with pytest.raises(UserError, match="none.sens holds no frames"):
        extract_scene(tmp_path / "none.sens", tmp_path / "none")
    whole = write_sens(tmp_path / "s.sens", frames=2, depth="raw")
    (tmp_path / "s.sens").write_bytes(whole.replace(struct.pack("<2i", 1, 0), struct.pack("<2i", 1, 1), 1))
    with pytest.raises(UserError, match="depth image of frame 0 is damaged"):  # it says zlib and is raw
        extract_scene(tmp_path / "s.sens", tmp_path / "s")


def test_what_archives_leave_beside_streams_is_no_stream(tmp_path):
    write_sens(tmp_path / "sens" / "room.v2" / "room.v2.sens", frames=1)
    (tmp_path / "sens" / "__MACOSX").mkdir()
    for name in ("__MACOSX/room.v2.sens", "._room.v2.sens", "room.v2/._room.v2.sens"):
        (tmp_path / "sens" / name).write_bytes(b"\0\5\x16\7")
    result = extract(sens_dir=str(tmp_path / "sens"), scans_dir=str(tmp_path / "scans"))
    assert result["scenes"] == 1 and result["frames"] == 1 and (tmp_path / "scans" / "room.v2").is_dir()


HEADER_END = 4 + 8 + 9 + 4 * 64  # of the fixture's matrices; codings, sizes, units and the number of frames follow


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (HEADER_END + 28, struct.pack("<Q", 10**7), r"ends within frame \d+ of 10000000"),
        (HEADER_END + 28, struct.pack("<Q", 2**60), "ends within frame"),
        (HEADER_END + 8, struct.pack("<2I", 2**32 - 1, 2**32 - 1), "which no sensor takes"),
        (HEADER_END + 16, struct.pack("<2I", 2**20, 2**20), "which no sensor takes"),
        (HEADER_END + 24, struct.pack("<f", float("inf")), "inf depth units"),
        (HEADER_END + 24, struct.pack("<f", float("nan")), "nan depth units"),
        (21, struct.pack("<f", float("nan")), "intrinsics or extrinsics with NaN"),
    ],
)
def test_headers_that_lie_are_refused_at_once(tmp_path, place, value, message):
    whole = bytearray(write_sens(tmp_path / "s.sens", frames=3))
    whole[place : place + len(value)] = value
    (tmp_path / "s.sens").write_bytes(whole)
    with pytest.raises(UserError, match=f"s.sens .*{message}"):
        SensReader(tmp_path / "s.sens")


def _first_frame_with(path, color=None, depth=None):
    """The stream's first frame with other data of its images, opened."""
    write_sens(path, frames=1)
    reader = SensReader(path)
    frame = next(reader.frames())
    return reader, replace(frame, color_data=color or frame.color_data, depth_data=depth or frame.depth_data)


def _png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "color", [b"x" * 10, _png(np.zeros((5, 5, 3), np.uint8)), b"%!PS-Adobe-3.0", b"\x89PNG\r\n\x1a\n"]
)
def test_colour_that_does_not_fit_the_header_names_the_frame(tmp_path, color):
    reader, frame = _first_frame_with(tmp_path / "s.sens", color=color)
    with reader, pytest.raises(UserError, match="s.sens.*frame 0"):
        reader.decode_color(frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_colour_is_repeated(tmp_path, dtype):
    grey = np.full((12, 16), 200 if dtype == np.uint8 else 200 * 257, dtype)
    reader, frame = _first_frame_with(tmp_path / "s.sens", color=_png(grey))
    with reader:
        assert (reader.decode_color(frame) == 200).all() and reader.decode_color(frame).shape == (3, 12, 16)


def test_depth_that_inflates_without_end_is_not_inflated(tmp_path):
    reader, frame = _first_frame_with(tmp_path / "s.sens", depth=zlib.compress(bytes(1 << 28), 1))
    tracemalloc.start()
    try:
        with reader, pytest.raises(UserError, match="depth image of frame 0 .* 97 bytes or more, expected 96"):
            reader.decode_depth(frame)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_extract_refuses_what_it_cannot_do(tmp_path):
    write_sens(tmp_path / "in" / "s.sens", depth="occi", frames=1)
    with pytest.raises(UserError, match="occi"):
        extract_scene(tmp_path / "in" / "s.sens", tmp_path / "s")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="not made by 'extract'"):
        extract_scene(tmp_path / "in" / "s.sens", tmp_path / "other")
    with pytest.raises(UserError, match="choose another folder"):
        extract(sens_dir=str(tmp_path / "in"), scans_dir=str(tmp_path / "in"))
    with pytest.raises(UserError, match="no t.sens"):
        extract(sens_dir=str(tmp_path / "in"), scans_dir=str(tmp_path / "out"), scenes=["t"])
    with pytest.raises(UserError, match="holds no .sens file"):
        extract(sens_dir=str(tmp_path / "other"), scans_dir=str(tmp_path / "out"))


def test_color_read_back_as_file(tmp_path):
    write_sens(tmp_path / "s.sens", color="raw", frames=1)
    extract_scene(tmp_path / "s.sens", tmp_path / "s", depth=False)
    assert np.array_equal(read_image(tmp_path / "s" / "color" / "0.png").permute(1, 2, 0).numpy(), color_image(0))
    assert not (tmp_path / "s" / "depth").exists()
