"""Raw categories of a labelled scan: objects, segments and ids as ScanNet's files have them, and what is refused."""

import json
from types import SimpleNamespace

import gin
import numpy as np
import pytest

from dataloader.label_mesh import has_labels, label_files, load_label_mesh
from dataloader.object_groups import read_groups
from dataloader.synthesis.scene_folder import write_ply
from utils.errors import UserError
from utils.labels import ids_to_classes, label_set

NAME = "scene0000_00"


@pytest.fixture
def scene(tmp_path):
    """A scan of six vertices: an object of segments 7 and 9, a floor of segment 4, one vertex of nothing."""
    folder = tmp_path / "scans" / NAME
    folder.mkdir(parents=True)
    mesh = folder / f"{NAME}_vh_clean_2.ply"
    vertices = np.arange(18, dtype=np.float32).reshape(6, 3)
    write_ply(mesh, vertices, np.zeros((6, 3), np.uint8), np.array([[0, 1, 2], [3, 4, 5]], np.int32))
    write_objects(folder, [("round microwave", [7, 9]), ("floor", [4])])
    (folder / f"{NAME}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": [7, 9, 9, 4, 4, 5]}))
    (tmp_path / "scannetv2-labels.combined.tsv").write_text(
        "id\traw_category\tcategory\tcount\n2\tchair\tchair\t9\n59\tround microwave\tottoman\t1\n3\tfloor\tfloor\t8\n"
    )
    with gin.unlock_config():
        gin.bind_parameter("label_set.table", "configs/labels/scannet200.tsv")
    labels = folder / f"{NAME}_vh_clean_2.labels.ply"
    return SimpleNamespace(path=folder, name=NAME, mesh_path=mesh, label_mesh_path=labels, layout="ScanNet")


def write_objects(folder, objects) -> None:
    groups = [{"id": number, "objectId": number, "label": label, "segments": parts}
              for number, (label, parts) in enumerate(objects)]  # fmt: skip
    (folder / f"{NAME}.aggregation.json").write_text(json.dumps({"segGroups": groups}))


def test_vertices_have_the_ids_of_their_objects_categories(scene):
    assert has_labels(scene) and set(label_files(scene)) == {"mesh", "objects", "segments", "categories"}
    mesh = load_label_mesh(scene)
    assert mesh.labels.tolist() == [59, 59, 59, 3, 3, 0]
    names = [label_set().names[index] for index in ids_to_classes(mesh.labels).tolist()]
    assert names == ["microwave"] * 3 + ["floor"] * 2 + ["unannotated"]
    assert read_groups(scene, 6).instance.tolist() == [1, 1, 1, 2, 2, 0]


def test_a_category_without_an_id_is_named(scene):
    write_objects(scene.path, [("unheard of", [7])])
    with pytest.raises(UserError, match="combined.tsv has no id for the category 'unheard of'"):
        load_label_mesh(scene)


def test_files_of_another_mesh_are_refused(scene):
    with pytest.raises(UserError, match=r"segs.json.*has segments for \(6,\) vertices; .*vh_clean_2.ply has 7"):
        read_groups(scene, 7)


def test_what_is_absent_is_named(scene):
    (scene.path.parents[1] / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(UserError, match="scannetv2-labels.combined.tsv is not in"):
        load_label_mesh(scene)
    (scene.path / f"{NAME}.aggregation.json").unlink()
    assert not has_labels(scene)
    with pytest.raises(UserError, match="aggregation.json does not exist"):
        read_groups(scene, 6)
