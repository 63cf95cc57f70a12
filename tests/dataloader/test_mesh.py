"""PLY meshes: the fast path equals plyfile, and damaged files are refused."""

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
