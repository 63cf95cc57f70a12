"""What readers of data sets' own layouts read, for :mod:`tests.fuzz.targets`: how it is prepared, which file inputs
replace, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gin
import numpy as np
from PIL import Image

from dataloader import load_scene
from dataloader.label_images import LabelImages
from dataloader.label_mesh import load_label_mesh
from dataloader.object_groups import read_groups
from tests.dataloader.layout_fixtures import START, VIDEO, write_arkitscenes, write_scannetpp
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.labels import label_set

_SCENE = "data/scene"
_PICTURE = f"{VIDEO}_{START:.3f}"


def _scannetpp(folder: Path) -> None:
    write_scannetpp(folder, "scene")
    table = folder / "metadata" / "semantic_benchmark" / "map_benchmark.csv"
    table.parent.mkdir()
    table.write_text("class,count,semantic_map_to\nwall,9,\nbathtub,3,bed\nfloor,1,None\n")


def _by_phone_alone(folder: Path) -> None:
    _scannetpp(folder)
    (folder / _SCENE / "iphone/colmap/images.txt").unlink()


def _by_vertices_alone(folder: Path) -> None:
    _scannetpp(folder)
    for name in ("segments.json", "segments_anno.json"):
        (folder / _SCENE / "scans" / name).unlink()


def _label_images(folder: Path) -> None:
    scan = write_scannet_scene(folder / "scene", (12, 16), num_frames=2, lost_frames=())
    (folder / "scannetv2-labels.combined.tsv").write_text("id\traw_category\tnyu40id\n1\twall\t1\n700\tbed\t4\n")
    (scan / "label-filt").mkdir()
    Image.fromarray(np.array([[0, 1], [700, 1]], np.uint16).repeat(6, 0).repeat(8, 1)).save(scan / "label-filt/0.png")


def _chosen(read: Callable[[Path], object], **options: str | int) -> Callable[[Path], object]:
    """``read`` with options of the config, as they would be bound there."""

    def read_with_options(folder: Path) -> None:
        with gin.unlock_config():
            for name, value in options.items():
                gin.bind_parameter(name.replace("__", "."), value)
        try:
            read(folder)
        finally:
            gin.clear_config()

    return read_with_options


def _read_scannetpp(folder: Path) -> None:
    scene = load_scene(folder / _SCENE)
    for read in (scene.read_color, scene.read_depth, scene.read_mask):
        read(0, (6, 8))
    scene.cameras((6, 8))


def _read_labels(folder: Path) -> None:
    scene = load_scene(folder / _SCENE)
    mesh = load_label_mesh(scene)
    if (folder / _SCENE / "scans/segments.json").exists():
        assert len(read_groups(scene, len(mesh.vertices)).instance) == len(mesh.vertices)
    assert label_set().knows(mesh.labels).all()


def _read_arkitscenes(folder: Path) -> None:
    scene = load_scene(folder / VIDEO)
    scene.read_color(0, (6, 8))
    scene.read_depth(0, (6, 8))
    scene.cameras((6, 8))


_dslr, _phone, _undistorted = (
    _chosen(_read_scannetpp, SensorOptions__scannetpp=sensor) for sensor in ("dslr", "iphone", "dslr_undistorted")
)
_labels = _chosen(_read_labels, label_set__table="configs/labels/scannetpp100.tsv")


def _read_label_image(folder: Path) -> None:
    LabelImages(load_scene(folder / "scene")).read("0")


# Prepared by, the file that is replaced, read by; and whether it is a PNG.
LAYOUTS: dict[str, tuple[Callable[[Path], object], str, Callable[[Path], object], bool]] = {
    "scannetpp_lists": (_scannetpp, f"{_SCENE}/dslr/train_test_lists.json", _dslr, False),
    "scannetpp_images": (_scannetpp, f"{_SCENE}/dslr/colmap/images.txt", _dslr, False),
    "scannetpp_undistorted": (
        _scannetpp, f"{_SCENE}/dslr/nerfstudio/transforms_undistorted.json", _undistorted, False,
    ),
    "scannetpp_phone": (_by_phone_alone, f"{_SCENE}/iphone/pose_intrinsic_imu.json", _phone, False),
    "scannetpp_phone_mask": (_scannetpp, f"{_SCENE}/iphone/rgb_masks/frame_000000.png", _phone, True),
    "scannetpp_segments": (_scannetpp, f"{_SCENE}/scans/segments.json", _labels, False),
    "scannetpp_objects": (_scannetpp, f"{_SCENE}/scans/segments_anno.json", _labels, False),
    "scannetpp_renamed": (_scannetpp, "metadata/semantic_benchmark/map_benchmark.csv", _labels, False),
    "scannetpp_semantic": (_by_vertices_alone, f"{_SCENE}/scans/mesh_aligned_0.05_semantic.ply", _labels, False),
    "scannetpp_classes": (_by_vertices_alone, "metadata/semantic_classes.txt", _labels, False),
    "arkitscenes_trajectory": (write_arkitscenes, f"{VIDEO}/lowres_wide.traj", _read_arkitscenes, False),
    "arkitscenes_pincam": (
        write_arkitscenes, f"{VIDEO}/lowres_wide_intrinsics/{_PICTURE}.pincam", _read_arkitscenes, False,
    ),
    "arkitscenes_confidence": (write_arkitscenes, f"{VIDEO}/confidence/{_PICTURE}.png", _read_arkitscenes, True),
    "arkitscenes_depth": (write_arkitscenes, f"{VIDEO}/lowres_depth/{_PICTURE}.png", _read_arkitscenes, True),
    "label_image": (_label_images, "scene/label-filt/0.png", _read_label_image, True),
    "label_categories": (_label_images, "scannetv2-labels.combined.tsv", _read_label_image, False),
}  # fmt: skip
