"""Scenes of ScanNet++: photographs, poses and cameras of both sensors, masks, depth, splits, labels and objects."""

import json
import random
import shutil

import gin
import numpy as np
import pytest
import torch

from dataloader import load_scene
from dataloader.hold_out import choose_held_out
from dataloader.label_mesh import has_labels, label_files, load_label_mesh
from dataloader.object_groups import read_groups
from dataloader.verification import verify_scan
from model.annotation import annotate_views
from model.instances import scene_instances
from tests.dataloader.layout_fixtures import (
    COUNT,
    DEPTH_SIZE,
    SIZE,
    TEST,
    class_name,
    phone_names,
    write_colmap_text,
    write_scannetpp,
    write_semantic_mesh,
)
from tests.dataloader.scannet_fixture import fixture_intrinsics, fixture_poses, trace_room, trace_room_labels
from utils.errors import UserError
from utils.labels import benchmark_set, label_set
from utils.lenses import FISHEYE, Lens

TABLE = "configs/labels/scannetpp100.tsv"


@pytest.fixture
def folder(tmp_path):
    return write_scannetpp(tmp_path)


def choose(**options):
    with gin.unlock_config():
        for name, value in options.items():
            gin.bind_parameter("label_set.table" if name == "table" else f"SensorOptions.{name}", value)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_photographs_have_colmaps_poses_and_the_lists_splits(folder):
    scene = load_scene(folder)
    assert scene.layout == "ScanNet++" and scene.metric and not scene.skipped and not scene.remarks
    assert scene.frames == [f"DSC{number:05}" for number in range(COUNT)]
    torch.testing.assert_close(scene.camera_to_world, fixture_poses(COUNT), atol=1e-12, rtol=0)
    torch.testing.assert_close(scene.intrinsics, fixture_intrinsics(SIZE))
    held_out = choose_held_out(scene.frames, 8, scene.splits)
    assert held_out == [name.removesuffix(".JPG") for name in TEST]
    assert scene.points.positions.tolist() == [[1, 2, 0.5]] and scene.depth_size is None and scene.mask_paths is None
    for index in (0, 7):
        assert torch.equal(scene.read_color(index), trace_room(fixture_poses(COUNT)[index], scene.intrinsics, SIZE)[0])


def test_the_toolboxs_undistorted_photographs_have_its_camera(tmp_path):
    folder = write_scannetpp(tmp_path, model="OPENCV_FISHEYE")
    edit(folder / "dslr" / "nerfstudio" / "transforms_undistorted.json", lambda content: content.update(fl_x=20.0))
    choose(scannetpp="dslr_undistorted")
    scene = load_scene(folder)
    assert len(scene) == COUNT and scene.intrinsics[0, 0] == 20 and scene.lens is None and scene.resampled_from is None
    torch.testing.assert_close(scene.camera_to_world, fixture_poses(COUNT), atol=1e-12, rtol=0)
    assert scene.color_paths[0].parent.name == "resized_undistorted_images"
    edit(folder / "dslr" / "nerfstudio" / "transforms_undistorted.json", lambda content: content.update(k1=0.1))
    with pytest.raises(UserError, match=r"transforms_undistorted.json.*no pinhole"):
        load_scene(folder)


def test_fisheye_photographs_are_read_as_they_were_taken(tmp_path):
    scene = load_scene(write_scannetpp(tmp_path, model="OPENCV_FISHEYE"))
    assert scene.lens == Lens(FISHEYE, (0.1, 0.0, 0.0, 0.0)) and scene.resampled_from is None and scene.metric
    torch.testing.assert_close(scene.intrinsics, fixture_intrinsics(SIZE))
    assert scene.color_paths[0].parent.name == "resized_images" and scene.image_size == SIZE


def test_the_phone_has_depth_in_metres_and_masks(folder):
    choose(scannetpp="iphone")
    scene = load_scene(folder)
    assert scene.frames == phone_names() and scene.depth_size == DEPTH_SIZE and scene.splits is None
    assert [remark for remark in scene.remarks if "masks" not in remark] == [
        "1 of 11 frames of rgb/ have no pose and are not read"
    ]
    for index in (1, 6):
        pose = fixture_poses(COUNT)[index]
        _, depth = trace_room(pose, scene.depth_intrinsics, DEPTH_SIZE)
        torch.testing.assert_close(scene.read_depth(index), depth.float(), atol=6e-4, rtol=0)
        assert torch.equal(scene.read_color(index), trace_room(pose, scene.intrinsics, SIZE)[0])
    assert not scene.read_mask(0)[:5].any() and scene.read_mask(0)[5:].all()


def test_without_colmap_poses_and_intrinsics_are_the_phones_own(folder):
    for file in (folder / "iphone" / "colmap").iterdir():
        file.unlink()

    def breathe(content):
        content["frame_000010"]["intrinsic"][0][0] *= 1.1
        content["frame_000020"]["aligned_pose"] = "lost"

    edit(folder / "iphone" / "pose_intrinsic_imu.json", breathe)
    choose(scannetpp="iphone")
    scene = load_scene(folder)
    assert list(scene.skipped) == ["frame_000020"] and "unreadable pose" in scene.skipped["frame_000020"]
    kept = [number for number in range(COUNT) if number != 2]
    torch.testing.assert_close(scene.camera_to_world, fixture_poses(COUNT)[kept])
    assert any("phone's own" in remark for remark in scene.remarks)
    camera = scene.resampled_from[1]
    assert camera.focal[0] == pytest.approx(1.1 * float(fixture_intrinsics(SIZE)[0, 0]))


def test_labels_and_objects_are_seen_where_the_photographs_show_them(folder):
    choose(table=TABLE)
    scene = load_scene(folder)
    assert has_labels(scene) and set(label_files(scene)) == {"mesh", "objects", "segments"}
    mesh = load_label_mesh(scene)
    shown = annotate_views(mesh, scene.cameras(), "majority", "classes").label
    names = [name if name in label_set().names else "unannotated" for name in benchmark_set().names]
    class_of = torch.tensor([label_set().names.index(name) for name in names])
    assert {"wall", "floor", "bed"} <= set(names) and "bathtub" not in names
    for index in range(COUNT):
        exact = class_of[trace_room_labels(scene.camera_to_world[index], scene.intrinsics, SIZE)[0]]
        assert (shown[index] == exact).double().mean() > 0.99
    objects = scene_instances(scene, mesh)
    assert [entry["object_id"] for entry in objects.described] == list(range(7, 27))
    assert objects.described[0]["category"] == "wall" == objects.described[0]["class"]


def test_a_point_of_several_objects_is_of_the_smallest_that_counts(folder):
    choose(table=TABLE)
    wall = json.loads((folder / "scans" / "segments_anno.json").read_text())["segGroups"][0]["segments"]
    assert len(wall) > 3

    def overlap(content):
        content["segGroups"] = [
            {"objectId": 1, "label": "book", "segments": wall[:2]}, {"objectId": 2, "label": "shelf", "segments": wall},
            {"objectId": 3, "label": "unheard of", "segments": wall[:1]},
        ]  # fmt: skip

    edit(folder / "scans" / "segments_anno.json", overlap)
    scene = load_scene(folder)
    mesh = load_label_mesh(scene)
    segments = np.array(json.loads((folder / "scans" / "segments.json").read_text())["segIndices"])
    known = label_set().known_ids
    shelf = np.where(np.isin(segments, wall), known["shelf"], 0)
    expected = np.where(np.isin(segments, wall[:2]), known["book"], shelf)
    assert mesh.labels.tolist() == expected.tolist()
    instance = read_groups(scene, len(mesh.vertices)).instance
    assert set(instance[segments == wall[0]]) == {3} and set(instance[segments == wall[1]]) == {1}
    notes = [finding.text for finding in verify_scan(folder)]
    assert any("1 objects have names" in note and "'unheard of' (1)" in note for note in notes)


def test_names_are_renamed_as_the_benchmark_does(folder):
    table = folder.parents[1] / "metadata" / "semantic_benchmark" / "map_benchmark.csv"
    table.parent.mkdir()
    table.write_text("class,count,semantic_map_to,instance_map_to\nwall,9,,\nbathtub,3,bed,\nfloor,1,None,\n")
    choose(table=TABLE)
    scene = load_scene(folder)
    labels = load_label_mesh(scene).labels
    groups = read_groups(scene, len(labels))
    of = {name: set(labels[groups.instance == number].tolist()) for number, name in enumerate(groups.categories, 1)}
    known = label_set().known_ids
    assert of["wall"] == {known["wall"]} and of["bathtub"] == {known["bed"]} and of["floor"] == {0}
    assert label_files(scene)["renamed"] == table


def test_the_labelled_mesh_alone_says_the_same(folder):
    choose(table=TABLE)
    expected = load_label_mesh(load_scene(folder)).labels
    for name in ("segments.json", "segments_anno.json"):
        (folder / "scans" / name).unlink()
    scene = load_scene(folder)
    assert has_labels(scene) and set(label_files(scene)) == {"mesh", "classes"}
    assert load_label_mesh(scene).labels.tolist() == expected.tolist()
    write_semantic_mesh(folder / "scans", [-100] * len(expected))
    assert load_label_mesh(scene).labels.unique().tolist() == [0]
    write_semantic_mesh(folder / "scans", [99] * len(expected))
    with pytest.raises(UserError, match=r"has the label 99, and .*semantic_classes.txt has 21 lines"):
        load_label_mesh(scene)
    (folder.parents[1] / "metadata" / "semantic_classes.txt").unlink()
    with pytest.raises(UserError, match="semantic_classes.txt is not in"):
        load_label_mesh(scene)


def test_other_label_sets_are_refused_with_what_to_choose(folder):
    scene = load_scene(folder)
    assert not has_labels(scene)
    with pytest.raises(UserError, match=f"its labels are names.*label_set.table = '{TABLE}'"):
        load_label_mesh(scene)
    assert any("its labels are not read: its labels are names" in finding.text for finding in verify_scan(folder))


def test_sound_scenes_are_sound(folder):
    choose(table=TABLE)
    for sensor in ("dslr", "dslr_undistorted", "iphone"):
        choose(scannetpp=sensor)
        assert not [finding.text for finding in verify_scan(folder) if finding.broken]


def test_what_is_listed_is_read_or_left_out_with_a_reason(folder):
    dslr = folder / "dslr"
    edit(dslr / "train_test_lists.json", lambda content: content["train"].remove("DSC00001.JPG"))
    edit(dslr / "train_test_lists.json", lambda content: content["test"].append("DSC00099.JPG"))
    (dslr / "resized_images" / "DSC00003.JPG").rename(dslr / "resized_images" / "DSC00098.JPG")
    scene = load_scene(folder)
    assert "1 of 10 photographs of resized_images/ have no pose and are not read" in scene.remarks
    assert len(scene) + len(scene.skipped) == COUNT
    assert scene.skipped["DSC00001"] == "in neither list of train_test_lists.json"
    assert scene.skipped["DSC00003"].startswith("without colour image: ")
    assert any("1 photographs of train_test_lists.json have no pose" in remark and "DSC00099.JPG" in remark
               for remark in scene.remarks)  # fmt: skip


@pytest.mark.parametrize("change, message", [
    (lambda content: content["train"].append(TEST[0]), "'DSC00003.JPG' is in both lists"),
    (lambda content: content.pop("train"), "'train' is None; expected a list"),
    (lambda content: content.update(has_masks=True), r"resized_anon_masks.DSC00000.png does not exist; it is listed"),
])  # fmt: skip
def test_contradicting_lists_are_refused(folder, change, message):
    edit(folder / "dslr" / "train_test_lists.json", change)
    with pytest.raises(UserError, match=message):
        load_scene(folder)


def test_what_is_absent_is_named(folder):
    choose(scannetpp="iphone")
    for path in (folder / "iphone" / "rgb").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="rgb holds no frames; take them out of rgb.mkv"):
        load_scene(folder)
    (folder / "iphone").rename(folder / "other")
    with pytest.raises(UserError, match="iphone does not exist; SensorOptions.scannetpp = 'iphone'"):
        load_scene(folder)
    choose(scannetpp="dslr_undistorted")
    (folder / "dslr" / "resized_undistorted_images").rename(folder / "pictures")
    with pytest.raises(UserError, match="the toolbox's dslr.undistort makes it"):
        load_scene(folder)
    choose(scannetpp="panocam")
    with pytest.raises(UserError, match="SensorOptions.scannetpp = 'panocam' is unknown"):
        load_scene(folder)


def test_two_photographs_of_a_name_are_refused(folder):
    names = [f"{number % 2}/frame_{10 * (number // 2):06}.jpg" for number in range(COUNT)]
    write_colmap_text(folder / "iphone" / "colmap", names, fixture_poses(COUNT), fixture_intrinsics(SIZE), "PINHOLE")
    choose(scannetpp="iphone")
    with pytest.raises(UserError, match="two images are called frame_000000"):
        load_scene(folder)


@pytest.mark.parametrize("name, sensor", [
    ("dslr/colmap/cameras.txt", "dslr"), ("dslr/colmap/images.txt", "dslr"), ("dslr/train_test_lists.json", "dslr"),
    ("dslr/nerfstudio/transforms_undistorted.json", "dslr_undistorted"), ("scans/segments.json", "dslr"),
    ("scans/segments_anno.json", "dslr"), ("scans/mesh_aligned_0.05.ply", "dslr"),
    ("iphone/pose_intrinsic_imu.json", "iphone"),
])  # fmt: skip
def test_garbage_is_refused_by_name(folder, name, sensor):
    """Whatever is in a file: it is read, or the message names it."""
    choose(table=TABLE, scannetpp=sensor)
    if name.endswith("imu.json"):
        (folder / "iphone" / "colmap" / "images.txt").unlink()
    path, draw = folder / name, random.Random(name)
    sound = path.read_bytes()
    refused = 0
    for content in [b"", b"\0" * 40, b"[1, 2]", b'{"train": 3}', b"\xff\xfe" * 9, sound[: len(sound) // 2],
                    *(mutated(sound, draw) for _ in range(12))]:  # fmt: skip
        path.write_bytes(content)
        try:
            load_label_mesh(load_scene(folder))
        except UserError as error:
            refused += 1
            assert path.name in str(error) or "no usable frame" in str(error) or "does not exist" in str(error)
    assert refused >= 4


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(5):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def test_the_table_has_the_benchmarks_classes():
    choose(table=TABLE)
    table = label_set()
    assert table.num_classes == 101 and table.ids == tuple(range(101)) and len(set(map(tuple, table.colors))) == 101
    assert table.names[1:4] == ("wall", "ceiling", "floor") and table.names[-2:] == ("stapler", "marker")
    assert class_name(1) == "wall"


def test_a_scene_without_scans_is_noted_as_unlabelled(folder):
    """`annotate` refuses it; `verify` does not leave that unsaid."""
    shutil.rmtree(folder / "scans")
    notes = [finding.text for finding in verify_scan(folder) if "has no labels" in finding.text]
    assert len(notes) == 1 and "mesh_aligned_0.05_semantic.ply" in notes[0] and "verify.unlabelled" in notes[0]
    assert not [finding for finding in verify_scan(folder, labelled=False) if "has no labels" in finding.text]
