"""Label images: the vote, alignment with colour, what is counted, the task."""

import logging

import numpy as np
import pytest
import torch
from plyfile import PlyData

from dataloader import CameraList, Mesh, ViewStore, ViewStoreWriter, load_mesh, load_scannet_scene
from model import task_annotate
from model.annotation import annotate_views, count_labels, face_labels, vertex_labels
from model.task_annotate import annotate
from tests.dataloader.scannet_fixture import trace_room_labels, write_scannet_scene
from utils.cameras import pixel_grid
from utils.errors import UserError
from utils.images import read_image, resize_image, write_image
from utils.labels import class_index, ids_to_classes, label_set


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scannet_scene(tmp_path_factory.mktemp("scans") / "scene0000_00", size=(96, 128))


def triangle_views(ids, size=(40, 40)):
    """One triangle that fills a view, with a label a vertex, and its camera."""
    vertices = torch.tensor([[-9.0, -9.0, 1.0], [22.3, -9.0, 1.0], [-9.0, 21.0, 1.0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2]], dtype=torch.int32), labels=torch.tensor(ids, dtype=torch.int32))
    k = torch.tensor([[4.0, 0.0, 20.0], [0.0, 4.0, 20.0], [0.0, 0.0, 1.0]])
    return mesh, CameraList("triangle", ["0"], torch.eye(4)[None], k, size)


def test_majority():
    labels = torch.tensor([1, 1, 2, 3, 0, 0], dtype=torch.uint8)
    corners = [[0, 1, 2], [0, 2, 1], [2, 0, 1], [0, 2, 3], [4, 5, 2], [4, 0, 1], [0, 0, 0], [4, 2, 3]]
    assert face_labels(labels, torch.tensor(corners)).tolist() == [1, 1, 1, 0, 0, 1, 1, 0]


def test_vote_comes_after_the_mapping():
    """NYU40 13 and 20 both mean "unannotated" to the benchmark: together they outvote a chair."""
    mesh, cameras = triangle_views([13, 20, 5])
    assert (annotate_views(mesh, cameras).label == 0).all()
    mesh, cameras = triangle_views([5, 5, 13])
    assert (annotate_views(mesh, cameras).label == class_index("chair")).all()
    assert (annotate_views(mesh, cameras, values="ids").label == 5).all()


def test_nearest_vertex_is_nearest_in_space():
    ids = [5, 8, 2]
    mesh, cameras = triangle_views(ids)
    cameras.intrinsics[:, :2, :2] /= 3  # see all of the triangle
    views = annotate_views(mesh, cameras, "nearest_vertex", "ids")
    points = torch.cat(((pixel_grid(40, 40) - 20) * 3 / 4, torch.ones(40, 40, 1)), -1)
    nearest = torch.cdist(points.reshape(-1, 3), mesh.vertices).argmin(1).reshape(40, 40)
    expected = torch.where(views.depth[0] > 0, torch.tensor(ids)[nearest], 0)
    assert torch.equal(views.label[0].long(), expected)
    assert sorted(expected.unique().tolist()) == [0, 2, 5, 8]


def test_ids_outside_nyu40(caplog):
    mesh, cameras = triangle_views([149, 50, 5])
    assert vertex_labels(torch.tensor([149, 50, 41, 40, 39, 0, -1, 70000])).tolist() == [0, 0, 0, 0, 20, 0, 0, 0]
    assert vertex_labels(torch.tensor([149, 41, 40]), "ids").tolist() == [0, 0, 40]
    assert (annotate_views(mesh, cameras, values="ids").label == 0).all()
    mesh.labels[2] = 0
    with caplog.at_level(logging.INFO):
        counts = count_labels(mesh, "scene0000_00")
    assert counts == (3, 1, {50: 1, 149: 1})
    assert "scene0000_00: 1 of 3 vertices are unlabelled" in caplog.text
    assert "50 (1 vertices), 149 (1 vertices)" in caplog.text


def test_nothing_hit_is_unannotated():
    mesh, cameras = triangle_views([5, 5, 5])
    cameras.camera_to_world[0, :3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # look the other way
    views = annotate_views(mesh, cameras)
    assert (views.label == 0).all() and (views.depth == 0).all()
    cameras.intrinsics[:, :2, 2] = 0
    cameras.camera_to_world[0] = torch.eye(4)
    views = annotate_views(mesh, cameras, "nearest_vertex")
    assert ((views.label == class_index("chair")) == (views.depth > 0)).all()


@pytest.mark.parametrize("label_rule", ["majority", "nearest_vertex"])
def test_labels_and_depth_of_a_known_room(scan, label_rule):
    """Against the room's exact ray tracing."""
    scene = load_scannet_scene(scan)
    cameras = scene.cameras()
    views = annotate_views(load_mesh(scene.label_mesh_path), cameras, label_rule)
    for view in range(len(cameras)):
        label, depth = trace_room_labels(cameras.camera_to_world[view], scene.intrinsics, scene.image_size)
        assert (views.label[view] == label).float().mean() > 0.999
        torch.testing.assert_close(views.depth[view].double(), depth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [(96, 128), (124, 124), (48, 128), (100, 40), (31, 77)])
def test_colour_and_annotation_align(scan, size):
    """The scene's photos show each class in its colour: squeezed to any size, they and the annotation must agree.

    The original cropped annotations to the middle but squeezed colour: then this fails at every aspect ratio but one.
    """
    scene = load_scannet_scene(scan)
    labels = annotate_views(load_mesh(scene.label_mesh_path), scene.cameras(size)).label
    palette = torch.from_numpy(label_set().colors).float()
    for view in range(len(scene)):
        photo = resize_image(scene.read_color(view).float(), size)
        seen = torch.cdist(photo.permute(1, 2, 0).reshape(-1, 3), palette).argmin(1).reshape(size)
        windows = labels[view].unfold(0, 3, 1).unfold(1, 3, 1).flatten(2)
        within = (windows == windows[..., 4:5]).all(-1)  # resizing blends colours at borders
        assert within.float().mean() > 0.5
        assert torch.equal(seen[1:-1, 1:-1][within], labels[view, 1:-1, 1:-1][within].long())


def test_a_crop_would_be_noticed(scan):
    """The test above is sharp: labels of a centre crop disagree with squeezed colour on a large share of pixels."""
    scene = load_scannet_scene(scan)
    mesh, size = load_mesh(scene.label_mesh_path), (124, 124)
    squeezed = annotate_views(mesh, scene.cameras(size)).label
    cropping = scene.cameras()
    cropping.intrinsics[:, 0, 2] -= (128 - 96) / 2  # the middle 96 x 96 of the 96 x 128 picture
    cropping.image_size = (96, 96)
    cropped = annotate_views(mesh, cropping.resized(size)).label
    assert (cropped != squeezed).float().mean() > 0.1


@pytest.mark.parametrize("arguments", [{"label_rule": "median"}, {"values": "coco"}])
def test_unknown_rules(arguments):
    mesh, cameras = triangle_views([5, 5, 5])
    with pytest.raises(ValueError, match="use one of"):
        annotate_views(mesh, cameras, **arguments)


@pytest.fixture
def store(scan, tmp_path):
    """A store of the scene's photos as a rendering would leave it."""
    scene = load_scannet_scene(scan)
    cameras = scene.cameras((30, 40))
    path = tmp_path / "views" / scene.name
    writer = ViewStoreWriter.create(path, cameras, {"rgb": ("uint8", (3, 30, 40))}, {"made": "for a test"})
    photos = torch.stack([scene.read_color(view, (30, 40)) for view in range(len(cameras))])
    writer.write(range(len(cameras)), {"rgb": photos})
    writer.finish()
    return path


def run_task(store, scan, **options):
    return annotate(scans_dir=str(scan.parent), views_dir=str(store.parent), device="cpu", **options)


def test_task(store, scan, tmp_path):
    pngs = tmp_path / "labels"
    metrics = run_task(store, scan, with_depth=True, png_dir=str(pngs), png_labels="ids")
    opened = ViewStore(store)
    expected = annotate_views(load_mesh(load_scannet_scene(scan).label_mesh_path), opened.cameras)
    assert torch.equal(opened.tensor("label"), expected.label)
    depth = torch.stack([opened.read("depth_mesh", view) for view in range(len(opened))])
    assert (depth - expected.depth).abs().max() <= 0.000501
    for view, name in enumerate(opened.cameras.names):
        image = read_image(pngs / scan.name / f"{name}.png")[0]
        assert np.array_equal(ids_to_classes(image.numpy()), expected.label[view].numpy())
    assert metrics[scan.name]["views"] == len(opened)
    assert metrics[scan.name]["unannotated_share"] == (expected.label == 0).float().mean().item()


def test_task_again(store, scan):
    """Finished work is left alone; other settings are refused unless overwriting is asked for."""
    run_task(store, scan)
    written = (store / "label.npy").stat().st_mtime_ns
    run_task(store, scan)
    assert (store / "label.npy").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="overwrite"):
        run_task(store, scan, label_rule="nearest_vertex")
    run_task(store, scan, label_rule="nearest_vertex", overwrite=True)
    assert (store / "label.npy").stat().st_mtime_ns != written


def test_interrupted_task(store, scan, tmp_path, monkeypatch, resume):
    """Nothing half written is taken for finished, and images that are there are not made again."""
    pngs = tmp_path / "labels"
    monkeypatch.setattr(task_annotate, "_PIXELS_PER_CHUNK", 1)
    done = []

    def write_three(path, image):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(path.name)
        write_image(path, image)

    monkeypatch.setattr(task_annotate, "write_image", write_three)
    with pytest.raises(KeyboardInterrupt):
        run_task(store, scan, png_dir=str(pngs))
    assert not (pngs / scan.name).exists()
    monkeypatch.setattr(task_annotate, "write_image", lambda *image: done.append(image[0].name) or write_image(*image))
    run_task(store, scan, png_dir=str(pngs))
    assert sorted(done) == sorted(path.name for path in (pngs / scan.name).glob("*.png"))


def test_task_without_labels(store, tmp_path):
    unlabelled = write_scannet_scene(tmp_path / "bare" / store.name, num_frames=2, with_labels=False, lost_frames=())
    with pytest.raises(UserError, match="has no 'label' per vertex"):
        run_task(store, unlabelled)
    assert "label" not in ViewStore(store).channels


@pytest.mark.parametrize("option", [{"label_rule": "median"}, {"png_labels": "coco"}, {"near": 0.0}])
def test_task_options(store, scan, option):
    with pytest.raises(UserError, match=next(iter(option))):
        run_task(store, scan, **option)


def test_real_capture_matches_measured_depth(shared_dir):
    """The mesh lies on the depth camera's images (its README: within 5 cm on 93.2 % of the pixels that have both)."""
    scene = load_scannet_scene(shared_dir / "hololens_room")
    frames = list(range(0, len(scene), 20))
    views = annotate_views(load_mesh(scene.label_mesh_path), scene.cameras(frames=frames))
    measured = torch.stack([scene.read_depth(frame, scene.image_size) for frame in frames])
    both = (measured > 0) & (views.depth > 0) & (measured < 5)
    assert ((measured - views.depth).abs()[both] < 0.05).float().mean() > 0.9
    assert (views.label > 0).float().mean() > 0.6


def test_a_mesh_that_no_view_shows_is_an_error(store, tmp_path):
    """Cameras and mesh in different frames gave a store without a single label, and a training on it."""
    elsewhere = write_scannet_scene(tmp_path / "far" / store.name, num_frames=2, lost_frames=())
    path = load_scannet_scene(elsewhere).label_mesh_path
    mesh = PlyData.read(path, mmap=False)
    mesh["vertex"]["z"] += 1000
    mesh.write(path)
    with pytest.raises(UserError, match="no pixel of its .* views shows a labelled surface of .*labels.ply"):
        run_task(store, elsewhere)
    assert "label" not in ViewStore(store).channels and not list(store.glob(".label*"))
