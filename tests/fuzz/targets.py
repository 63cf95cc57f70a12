"""Every reader of the project as a function of bytes: they become one file of a small folder that is sound otherwise.

A reader may return or raise :class:`UserError` that names the folder in one line; anything else is a fault, and so is
taking far more memory or time than the bytes account for. ``python tests/fuzz/run.py`` looks for faults,
``test_corpus.py`` repeats inputs that were some.
"""

from __future__ import annotations

import io
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dataloader import CameraList, SceneTransform, ViewStore, ViewStoreWriter, load_mesh, load_scene
from dataloader.hold_out import load_held_out, save_held_out
from dataloader.perfception import save_perfception_scene
from dataloader.sens import SensReader
from enet import ENet
from enet.checkpoints import load_checkpoint
from enet.module import SegmentationModule
from model import PlenoxelGrid
from model.capture import CaptureModel
from model.nested_grids import nest_grids
from model.radiance_field import RadianceField
from tests.dataloader.scannet_fixture import write_scannet_scene
from tests.dataloader.scene_exports import Capture, write_colmap, write_nsvf, write_transforms
from tests.dataloader.sens_fixture import write_sens
from tests.enet.old_networks import encoder, original_state
from tests.fuzz.layout_targets import LAYOUTS
from utils.arrays import read_npz
from utils.cameras import look_at
from utils.checkpoints import open_checkpoint
from utils.depth_images import read_depth, write_depth
from utils.errors import UserError
from utils.files import read_json
from utils.images import read_alpha, read_image
from utils.scenes import resolve_scenes

SIZE = (6, 8)
_MOST_SECONDS = 5.0
_MOST_BYTES = 400 << 20  # that the process may hold more while it reads one
_LONGEST_MESSAGE = 1500


class Fault(Exception):
    """A reader did not return, did not name the file, or took too much."""


class Target:
    """A reader: what it reads is written by ``prepare`` once, and one file of it by each input.

    Args:
        prepare: makes a sound folder.
        file: of it, that inputs replace.
        read: reads the folder.
        member: the part of that file, an archive, that inputs replace instead of all of it.
        mend: makes of an input what would otherwise be refused for a checksum.
    """

    def __init__(
        self, prepare: Callable[[Path], object], file: str, read: Callable[[Path], object], member: str | None = None,
        mend: Callable[[bytes], bytes] = lambda data: data,
    ):  # fmt: skip
        self._prepare, self._file, self._read, self._member, self._mend = prepare, file, read, member, mend
        self._sound: dict[Path, bytes] = {}

    def sound(self, folder: Path) -> bytes:
        """The input that is as it should be; the folder is made first."""
        if folder not in self._sound:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._prepare(folder)
            self._sound[folder] = (folder / self._file).read_bytes()
        whole = self._sound[folder]
        if self._member is None:
            return whole
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            return next(archive.read(info) for info in archive.infolist() if info.filename.endswith(self._member))

    def run(self, data: bytes, folder: Path) -> str | None:
        """The message of the reader's :class:`UserError`, or None; raises what it raises, or :class:`Fault`."""
        self.sound(folder)
        content = self._mend(data) if self._member is None else _replaced(self._sound[folder], self._member, data)
        (folder / self._file).write_bytes(content)
        memory, started = _start_of_memory(), time.process_time()
        message = None
        try:
            self._read(folder)
        except UserError as error:
            message = str(error)
            if str(folder) not in message or "\n" in message or len(message) > _LONGEST_MESSAGE:
                raise Fault(f"a message without the file, of several lines, or long: {message[:500]!r}") from error
        seconds, grown = time.process_time() - started, _memory("VmHWM") - memory
        if seconds > _MOST_SECONDS or grown > _MOST_BYTES + 100 * len(content):
            raise Fault(f"{seconds:.1f} s and {grown} bytes for {len(content)} bytes")
        return message


def _start_of_memory() -> int:
    """Bytes that this process holds; the most that it will have held counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(kind: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(kind))


# --- what is read -----------------------------------------------------------------------------------------------------


def _field(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    links = torch.randperm(512, generator=generator)[:50].sort()[0]
    sh = torch.rand(50, 27, generator=generator)
    save_perfception_scene(folder, (8, 8, 8), links, torch.rand(50, generator=generator), sh, SceneTransform.identity())
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    zeros = torch.zeros(2, 3)
    CaptureModel(pose, zeros + 1, zeros, zeros.double(), zeros.double()).save(folder)


def _intrinsics(size: tuple[int, int]) -> torch.Tensor:
    height, width = size
    return torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=torch.float64)


def _cameras(count: int) -> CameraList:
    eye = torch.tensor([[2.0 + k, 1, 1] for k in range(count)], dtype=torch.float64)
    poses = look_at(eye, torch.zeros_like(eye))
    return CameraList("room", [f"{k}" for k in range(count)], poses, _intrinsics(SIZE), SIZE)


def _store(folder: Path) -> None:
    channels = {"rgb": ("uint8", (3, *SIZE)), "sh": ("float16", (27, *SIZE)), "depth": ("uint16", SIZE)}
    writer = ViewStoreWriter.create(folder / "room", _cameras(2), channels, {})
    ones = {name: torch.ones(2, *shape) for name, (_, shape) in channels.items()}
    writer.write([0, 1], ones)
    writer.finish()


def _read_store(folder: Path) -> None:
    store = ViewStore(folder / "room")
    store.cameras.accepted()
    for name in store.channels:
        store.tensor(name)
        store.read(name, 0)


def _capture() -> Capture:
    size = (12, 16)
    poses = look_at(torch.tensor([[2.0, 0, 1], [0, 2, 1]]).double(), torch.zeros(2, 3).double())
    images = [torch.full((3, *size), 40 * k + 40, dtype=torch.uint8) for k in range(2)]
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    return Capture(images, poses, _intrinsics(size), points, (255 * points).to(torch.uint8), (0.01, 0.0, 0.001, 0.0))


def _scannet(folder: Path) -> None:
    write_scannet_scene(folder / "scene", (12, 16), num_frames=2, lost_frames=())


def _read_scene(folder: Path) -> None:
    scene = load_scene(folder / "scene")
    scene.read_color(0, (6, 8))
    scene.read_alpha(0, (6, 8))
    scene.read_depth(0, (6, 8))
    scene.cameras((6, 8))


def _read_sens(folder: Path) -> None:
    with SensReader(folder / "a.sens") as reader:
        for frame in reader.frames():
            reader.decode_color(frame)
            reader.decode_depth(frame)


def _read_image(folder: Path) -> None:
    read_image(folder / "a.png", 1.0)
    read_alpha(folder / "a.png")


# --- what is around it ------------------------------------------------------------------------------------------------


def _replaced(whole: bytes, member: str, data: bytes) -> bytes:
    """The archive with one member replaced, so that its checksum is right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, data if info.filename.endswith(member) else old.read(info))
    return buffer.getvalue()


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums, as far as there are chunks."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _ckpt(folder: Path) -> None:
    torch.save({"a": torch.arange(10.0), "b": [1, "x", {"c": None}], "d": torch.nn.Parameter(torch.ones(2))},
               folder / "a.ckpt")  # fmt: skip


def _npz(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", T=np.eye(4), ids=np.array(["a", "bc"]))


def _scene_list(folder: Path) -> None:
    (folder / "a.txt").write_text("# rooms\nscene0000_00\n\nscene0001_00\n")


def _json(folder: Path) -> None:
    (folder / "a.json").write_text('{"a": [1, 2.5, null, "x"]}')


def _image(folder: Path) -> None:
    _scannet(folder)
    shutil.copy(folder / "scene/color/0.png", folder / "a.png")


def _depth(folder: Path) -> None:
    write_depth(folder / "a.png", torch.rand(6, 8))


def _mesh(text: bool) -> Callable[[Path], object]:
    """A labelled mesh of a triangle and a quadrangle."""
    properties = [*(f"float {axis}" for axis in "xyz"), *(f"uchar {name}" for name in ("red", "green", "blue")),
                  "ushort label"]  # fmt: skip
    vertices = [(x, y, 0.5 * x, 10 * x, 20, 30, 50 * x + 1) for x in (0, 1) for y in (0, 1, 2)]
    faces = [(0, 1, 2), (1, 2, 5, 4)]
    head = ["ply", f"format {'ascii' if text else 'binary_little_endian'} 1.0", "comment a room",
            f"element vertex {len(vertices)}", *(f"property {one}" for one in properties),
            f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]  # fmt: skip
    if text:
        rows = [*vertices, *((len(face), *face) for face in faces)]
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    else:
        body = b"".join(struct.pack("<3f3BH", *row) for row in vertices)
        body += b"".join(struct.pack(f"<B{len(face)}i", len(face), *face) for face in faces)
    return lambda folder: (folder / "a.ply").write_bytes("\n".join(head).encode() + body)


def _network(folder: Path) -> None:
    module = SegmentationModule(network={"stem": "rgb"}, views={"color": "rgb"}, scenes=["room"])
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, folder / "a.ckpt")


def _old_network(folder: Path) -> None:
    state = original_state(ENet(21, "conv_sum"), "conv_sum")
    torch.save({"epoch": 420, "miou": np.float64(0.4), "state_dict": state, "optimizer": {}}, folder / "a.ckpt")


def _old_encoder(folder: Path) -> None:
    torch.save(encoder().state_dict(), folder / "a.ckpt")


def _load_network(folder: Path) -> None:
    load_checkpoint(folder / "a.ckpt", torch.device("cpu"))


def _colmap(binary: bool) -> Callable[[Path], object]:
    return lambda folder: write_colmap(folder / "scene", _capture(), "OPENCV", binary)


def _nsvf(folder: Path) -> None:
    write_nsvf(folder / "scene", _capture(), [-1, -1, -1, 1, 1, 1])


def _file(name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: write(folder / name)


def _nested_field(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 8, 8, generator=generator) < 0.1
    count = int(mask.sum())
    values = torch.rand(count, 28, generator=generator)
    part = PlenoxelGrid.from_mask(mask, values[:, 0].contiguous(), values[:, 1:].contiguous())
    nest_grids([part, part]).save(folder)


def _load_field(folder: Path) -> None:
    RadianceField.load(folder)


TARGETS: dict[str, Target] = {
    "checkpoint": Target(_ckpt, "a.ckpt", lambda folder: open_checkpoint(folder / "a.ckpt", "a checkpoint")),
    "checkpoint_pickle": Target(_ckpt, "a.ckpt", lambda folder: open_checkpoint(folder / "a.ckpt", "a checkpoint"),
                                "data.pkl"),
    "network_pickle": Target(_network, "a.ckpt", _load_network, "data.pkl"),
    "old_network_pickle": Target(_old_network, "a.ckpt", _load_network, "data.pkl"),
    "old_encoder_pickle": Target(_old_encoder, "a.ckpt", _load_network, "data.pkl"),
    "field": Target(_field, "last.ckpt", _load_field),
    "field_nested": Target(_nested_field, "nested.npz", _load_field),
    "field_nested_size": Target(_nested_field, "nested.npz", _load_field, "size.npy"),
    "field_pickle": Target(_field, "last.ckpt", _load_field, "data.pkl"),
    "field_config": Target(_field, "config.gin", _load_field),
    "field_transform": Target(_field, "trans_info.npz", lambda folder: SceneTransform.load(folder / "trans_info.npz")),
    "field_transform_T": Target(_field, "trans_info.npz", lambda folder: SceneTransform.load(folder / "trans_info.npz"),
                                "T.npy"),
    "field_capture": Target(_field, "capture.npz", CaptureModel.load),
    "field_capture_gain": Target(_field, "capture.npz", CaptureModel.load, "gain.npy"),
    "npz": Target(_npz, "a.npz", lambda folder: read_npz(folder / "a.npz", "an archive", ("T",), ("ids",))),
    "store_meta": Target(_store, "room/meta.json", _read_store),
    "store_cameras": Target(_store, "room/cameras.json", _read_store),
    "store_array": Target(_store, "room/sh.npy", _read_store),
    "camera_list": Target(_file("a.json", lambda path: _cameras(2).save(path)), "a.json",
                          lambda folder: CameraList.load(folder / "a.json").resized((3, 4)).accepted()),
    "sens": Target(_file("a.sens", lambda path: write_sens(path, 2)), "a.sens", _read_sens),
    "ply_binary": Target(_mesh(False), "a.ply", lambda folder: load_mesh(folder / "a.ply").unknown_labels()),
    "ply_text": Target(_mesh(True), "a.ply", lambda folder: load_mesh(folder / "a.ply").unknown_labels()),
    "image": Target(_image, "a.png", _read_image, mend=_with_checksums),
    "depth": Target(_depth, "a.png", lambda folder: read_depth(folder / "a.png"), mend=_with_checksums),
    "scannet_color": Target(_scannet, "scene/color/0.png", _read_scene, mend=_with_checksums),
    "scannet_pose": Target(_scannet, "scene/pose/0.txt", _read_scene),
    "scannet_intrinsics": Target(_scannet, "scene/intrinsic/intrinsic_color.txt", _read_scene),
    "scannet_depth_intrinsics": Target(_scannet, "scene/intrinsic/intrinsic_depth.txt", _read_scene),
    "scannet_extrinsics": Target(_scannet, "scene/intrinsic/extrinsic_color.txt", _read_scene),
    "transforms": Target(lambda folder: write_transforms(folder / "scene", _capture()), "scene/transforms.json",
                         _read_scene),
    **{f"colmap_{name}": Target(_colmap(name.endswith("bin")), f"scene/sparse/0/{name}", _read_scene)
       for name in ("cameras.bin", "images.bin", "points3D.bin", "cameras.txt", "images.txt", "points3D.txt")},
    "nsvf_intrinsics": Target(_nsvf, "scene/intrinsics.txt", _read_scene),
    "nsvf_pose": Target(_nsvf, "scene/pose/0.txt", _read_scene),
    "nsvf_box": Target(_nsvf, "scene/bbox.txt", _read_scene),
    "held_out": Target(lambda folder: save_held_out(folder, "room", ["0", "8"]), "held_out.json", load_held_out),
    "scene_list": Target(_scene_list, "a.txt", lambda folder: resolve_scenes(str(folder / "a.txt"))),
    **{name: Target(prepare, file, read, mend=_with_checksums if picture else lambda data: data)
       for name, (prepare, file, read, picture) in LAYOUTS.items()},
    "json": Target(_json, "a.json", lambda folder: read_json(folder / "a.json")),
}  # fmt: skip
