"""Instance images: ScanNet's objects, or connected surfaces, lossless and aligned with the class images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import Mesh, ViewStore, ViewStoreWriter, load_mesh, load_scene
from model.instances import connected_vertices, scene_instances
from model.task_annotate import annotate
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.errors import UserError

CHAIR, TABLE, UNKNOWN = 5, 7, 4000


@pytest.fixture
def scan(tmp_path):
    return write_scannet_scene(tmp_path / "scans" / "scene0000_00", num_frames=4, lost_frames=())


@pytest.fixture
def store(scan, tmp_path):
    cameras = load_scene(scan).cameras((24, 32))
    path = tmp_path / "views" / scan.name
    writer = ViewStoreWriter.create(path, cameras, {"rgb": ("uint8", (3, 24, 32))}, {})
    writer.write(range(len(cameras)), {"rgb": torch.ones(len(cameras), 3, 24, 32, dtype=torch.uint8)})
    writer.finish()
    return path


def write_objects(scan, objects, vertices: int) -> np.ndarray:
    """ScanNet's files: segment number 10 * (vertex // 3), objects as {category: vertices}; returns their segments."""
    segments = np.arange(vertices) // 3 * 10
    groups = [{"objectId": 0, "label": label, "segments": np.unique(segments[members]).tolist()}
              for label, members in objects.items()]  # fmt: skip
    (scan / f"{scan.name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    (scan / f"{scan.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments.tolist()}))
    return segments


def test_surfaces_of_one_id_are_apart_unless_an_edge_connects_them():
    faces = [[4, 5, 6], [0, 1, 2], [1, 2, 3], [3, 8, 9], [10, 11, 12]]
    ids = [CHAIR] * 4 + [CHAIR] * 3 + [0] + [TABLE] * 2 + [UNKNOWN] * 3
    mesh = Mesh(torch.zeros(13, 3), torch.tensor(faces, dtype=torch.int32), None, torch.tensor(ids, dtype=torch.int32))
    assert connected_vertices(mesh).tolist() == [1, 1, 1, 1, 2, 2, 2, 0, 3, 3, 0, 0, 0]


def test_images_show_the_objects_that_the_files_name(scan, store, tmp_path):
    mesh = load_mesh(load_scene(scan).label_mesh_path, require_labels=True)
    half = len(mesh.vertices) // 2 // 3 * 3
    segments = write_objects(scan, {"left": slice(0, half), "right": slice(half, None)}, len(mesh.vertices))
    annotate(str(scan.parent), str(store.parent), instances_dir=str(tmp_path / "objects"), device="cpu")
    folder = tmp_path / "objects" / scan.name
    described = json.loads((folder / "instances.json").read_text())
    assert [(entry["instance"], entry["category"]) for entry in described] == [(1, "left"), (2, "right")]
    label, shown = ViewStore(store).tensor("label"), set()
    for view, name in enumerate(ViewStore(store).cameras.names):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.mode.startswith("I;16")
            image = np.array(picture)
        assert image.shape == tuple(label[view].shape)
        shown |= set(np.unique(image).tolist())
    assert shown == {1, 2} and len(segments) == len(mesh.vertices)


def test_without_the_files_objects_are_connected_surfaces(scan):
    scene = load_scene(scan)
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    found = scene_instances(scene, mesh)
    assert found.vertex.numpy().tolist() == connected_vertices(mesh).tolist()
    for entry in found.described[:5]:
        ids = mesh.labels[found.vertex == entry["instance"]].unique()
        assert len(ids) == 1 and "category" not in entry


def test_one_file_without_the_other_is_refused(scan):
    scene = load_scene(scan)
    mesh = load_mesh(scene.label_mesh_path, require_labels=True)
    write_objects(scan, {"all": slice(None)}, len(mesh.vertices))
    (scan / f"{scan.name}_vh_clean_2.0.010000.segs.json").unlink()
    with pytest.raises(UserError, match="segs.json does not exist"):
        scene_instances(scene, mesh)


def test_numbers_over_eight_bits_are_kept(scan, store, tmp_path):
    mesh = load_mesh(load_scene(scan).label_mesh_path, require_labels=True)
    objects = {f"object {number}": slice(0, 0) for number in range(299)} | {"everything": slice(None)}
    write_objects(scan, objects, len(mesh.vertices))
    annotate(str(scan.parent), str(store.parent), instances_dir=str(tmp_path / "objects"), device="cpu")
    image = np.array(Image.open(next((tmp_path / "objects" / scan.name).glob("*.png"))))
    assert set(np.unique(image).tolist()) == {300}


def test_label_and_instance_images_need_two_folders(scan, store, tmp_path):
    both = str(tmp_path / "pngs")
    with pytest.raises(UserError, match="choose two folders"):
        annotate(str(scan.parent), str(store.parent), png_dir=both, instances_dir=both, device="cpu")
