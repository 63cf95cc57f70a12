"""PLY meshes: the fast path equals plyfile, and damaged files are refused."""

import gzip

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from dataloader import load_mesh
from tests.dataloader.scannet_fixture import write_room_mesh
from utils.errors import UserError


def _write(path, faces, label=True, text=False, byte_order="<", vertices=4):
    fields = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    table = np.zeros(vertices, dtype=fields + ([("label", "u2")] if label else []))
    table["x"] = np.arange(vertices)
    table["red"] = 10 + np.arange(vertices)
    if label:
        table["label"] = [1, 50, 149, 50][:vertices]
    face_table = np.empty(len(faces), dtype=[("vertex_indices", "O")])
    face_table["vertex_indices"] = [np.array(face, dtype=np.int32) for face in faces]
    elements = [PlyElement.describe(table, "vertex"), PlyElement.describe(face_table, "face")]
    PlyData(elements, text=text, byte_order=byte_order).write(str(path))
    return path


@pytest.mark.parametrize("layout", [{"text": True}, {"byte_order": ">"}, {"byte_order": "<"}])
def test_every_encoding_gives_the_same_mesh(tmp_path, layout):
    mesh = load_mesh(_write(tmp_path / "mesh.ply", [(0, 1, 2), (0, 2, 3)], **layout))
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.vertices[:, 0].tolist() == [0, 1, 2, 3]
    assert mesh.colors[:, 0].tolist() == [10, 11, 12, 13]
    assert (mesh.vertices.dtype, mesh.faces.dtype, mesh.labels.dtype) == (torch.float32, torch.int32, torch.int32)


def _columns(path, **columns):
    """A triangle whose vertices have these columns besides their places."""
    arrays = {"x": np.arange(3.0), "y": np.arange(3.0) ** 2, "z": np.zeros(3), **columns}
    table = np.empty(3, [(name, np.asarray(values).dtype) for name, values in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    face = np.array([((0, 1, 2),)], [("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(table, "vertex"), PlyElement.describe(face, "face")]).write(str(path))
    return path


@pytest.mark.parametrize("values", [
    np.array([0, 100, 255], np.uint8), np.array([0, 100 / 255, 1], np.float32), np.array([0, 100 / 255, 1], np.float64),
    np.array([0, 100, 255], np.float32), np.array([0, 100 * 257, 65535], np.uint16), np.array([0, 100, 255], np.int32),
])  # fmt: skip
@pytest.mark.parametrize("names", [("red", "green", "blue"), ("Red", "Green", "Blue"), ("r", "g", "b")])
def test_colours_of_any_numbers(tmp_path, values, names):
    columns = dict(zip(names, (values, values[::-1], values), strict=True))
    mesh = load_mesh(_columns(tmp_path / "a.ply", **columns))
    assert mesh.colors.tolist() == [[0, 255, 0], [100, 100, 100], [255, 0, 255]] and mesh.colors.dtype == torch.uint8


@pytest.mark.parametrize("name", ["label", "Label", "scalar_label", "scalar_Label"])
def test_labels_of_any_numbers_and_names(tmp_path, name):
    for values, expected in ((np.array([3, -1, 255], np.int32), [3, -1, 255]), (np.array([3, np.nan, 40], np.float32),
                             [3, -1, 40]), (np.array([3, 2.5, 1191]), [3, -1, 1191])):  # fmt: skip
        mesh = load_mesh(_columns(tmp_path / "a.ply", **{name: values}), require_labels=True)
        assert mesh.labels.tolist() == expected
    assert mesh.unknown_labels() == {-1: 1, 1191: 1}


def test_a_compressed_mesh_is_named(tmp_path):
    (tmp_path / "a.ply").write_bytes(gzip.compress(_columns(tmp_path / "b.ply").read_bytes()))
    with pytest.raises(UserError, match="a.ply is compressed by gzip; unpack it"):
        load_mesh(tmp_path / "a.ply")


def test_polygons_become_triangle_fans(tmp_path):
    mesh = load_mesh(_write(tmp_path / "mesh.ply", [(0, 1, 2, 3), (1, 2, 3)]))
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [1, 2, 3]]


def test_labels_over_40_stay_and_are_counted(tmp_path):
    mesh = load_mesh(_write(tmp_path / "mesh.ply", [(0, 1, 2)]))
    assert mesh.labels.tolist() == [1, 50, 149, 50]
    assert mesh.unknown_labels() == {50: 2, 149: 1}


def test_real_mesh_equals_plyfile(shared_dir):
    path = shared_dir / "hololens_room" / "hololens_room_vh_clean_2.labels.ply"
    mesh, reference = load_mesh(path, require_labels=True), PlyData.read(str(path))
    assert np.array_equal(mesh.faces.numpy(), np.stack(reference["face"]["vertex_indices"]))
    assert np.array_equal(mesh.vertices[:, 2].numpy(), reference["vertex"]["z"])
    assert np.array_equal(mesh.labels.numpy(), reference["vertex"]["label"])


def test_mesh_without_labels(tmp_path):
    path = tmp_path / "room_vh_clean_2.ply"
    write_room_mesh(path, with_labels=False)
    assert load_mesh(path).labels is None
    with pytest.raises(UserError, match="no 'label' per vertex.*labels.ply"):
        load_mesh(path, require_labels=True)


def test_truncation_at_any_place_is_refused(tmp_path):
    whole = _write(tmp_path / "mesh.ply", [(0, 1, 2), (0, 2, 3)]).read_bytes()
    cut = tmp_path / "cut.ply"
    for length in (0, 3, 60, len(whole) // 2, len(whole) - 13, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut.ply"):
            load_mesh(cut)


@pytest.mark.parametrize(("faces", "message"), [([(0, 1, 4)], "names vertex 4"), ([(0, -1, 2)], "names vertex -1"),
                                                ([], "0 faces")])
def test_bad_faces_are_refused(tmp_path, faces, message):
    with pytest.raises(UserError, match=message):
        load_mesh(_write(tmp_path / "mesh.ply", faces))


def test_missing_mesh_names_the_file(tmp_path):
    with pytest.raises(UserError, match="gone_vh_clean_2.ply does not exist"):
        load_mesh(tmp_path / "gone_vh_clean_2.ply")
