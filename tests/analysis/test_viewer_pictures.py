"""What the viewer shows of depth, classes, meshes, quality and cameras, and its films; without a browser."""

import io
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gin
import numpy as np
import pytest
import torch

from analysis.false_color import depth_color
from analysis.observers import Observers
from analysis.quality import QualityEstimator, QualityOptions, stored_view
from analysis.surface import field_depth
from analysis.viewer import video
from analysis.viewer.comparison import compare
from analysis.viewer.figures import scene_figures
from analysis.viewer.legend import camera_facts, camera_sign, camera_verdict, class_swatches
from analysis.viewer.live_quality import LiveQuality
from analysis.viewer.mesh_view import mesh_view
from analysis.viewer.mode_legend import mode_legend
from analysis.viewer.pictures import (
    captioned_grid,
    class_picture,
    outputs_of,
    quality_picture,
    signed_picture,
)
from analysis.viewer.scene_state import (
    DOMES,
    TRAJECTORY,
    CameraSource,
    ScenePaths,
    SceneState,
    load_scene_state,
    named_networks,
)
from analysis.viewer.unlit_mesh import before_tone_curve, unlit_glb
from dataloader import SceneTransform, ViewStore
from model import PlenoxelGrid, RadianceField, RenderOptions
from model.radiance_field import RenderedView
from model.semantic_field import SEMANTIC_FILE, SemanticField
from tests.analysis import box_room
from utils.cameras import opaque_depth
from utils.errors import UserError
from utils.files import write_json
from utils.labels import class_index, label_set, label_settings


def test_expected_depth_becomes_the_surfaces_depth():
    depth = opaque_depth(torch.tensor([[1.5, 0.3, 2.0]]), torch.tensor([[0.75, 0.2, 1.0]]))
    torch.testing.assert_close(depth, torch.tensor([[2.0, 0.0, 2.0]]))


def test_pictures_of_classes_coefficients_and_outputs():
    labels = torch.tensor([[1, 5], [5, 0]])
    assert class_picture(labels)[:, 0, 1].tolist() == label_set().colors[5].tolist()
    assert class_picture(labels, {5})[:, 0, 1].tolist() == label_set().colors[0].tolist()
    assert labels[0, 1] == 5, "the labels themselves stay"
    low, zero, high = signed_picture(torch.tensor([[-9.0, 0.0, 9.0]]), 2.0)[:, 0].T.int()
    assert low[2] > low[0] and high[0] > high[2] and int(zero.max() - zero.min()) <= 2
    assert outputs_of("colour")[0] == "rgb" and outputs_of("SH channel")[0] == "sh"


def test_captioned_grid_places_pictures_and_keeps_labels_pure():
    red, labels = torch.zeros(3, 8, 8), class_picture(torch.tensor([[1, 5], [5, 1]]))
    red[0] = 1
    sheet = captioned_grid({"render": red, "annotation": labels, "prediction": labels}, (40, 60))
    assert sheet.shape == (2 * 62, 124, 3)
    assert sheet[40, 30].tolist() == [255, 0, 0]
    cell = sheet[22:62, 64:124].reshape(-1, 3)
    assert {tuple(color) for color in cell.tolist()} == {tuple(label_set().colors[k].tolist()) for k in (1, 5)}
    assert sheet[100, 100].tolist() == [255, 255, 255], "the fourth place is empty"


def test_texts_name_the_reason_and_the_classes():
    info = {"accepted": False, "reason": "too_close", "target_class": "toilet", "target_class_index": 17,
            "coverage": 0.352}  # fmt: skip
    verdict = camera_verdict("dome00_toilet_001", "rejected", info)
    assert "(toilet), rejected" in verdict and "too_close" in verdict and "surface is nearer" in verdict
    assert camera_facts(info) == "coverage 0.352"
    assert camera_sign("7", "rejected", info) == "7, toilet, rejected: too close"
    assert camera_sign("12", "trajectory", {}) == "12, trajectory"
    html = class_swatches([0, 17])
    assert "toilet" in html and ",".join(str(value) for value in label_set().colors[17]) in html


def aces_filmic(linear):
    """three.js' tone mapping, as its shader says it, of linear RGB ``[3]``."""
    enter = np.array([[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]])
    leave = np.array([[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]])
    v = enter @ (linear / 0.6)
    return np.clip(leave @ ((v * (v + 0.0245786) - 0.000090537) / (v * (0.983729 * v + 0.4329510) + 0.238081)), 0, 1)


def test_every_class_colour_comes_out_of_the_tone_curve_as_it_should():
    for color in (*label_set().colors, (255, 0, 0), (255, 255, 255)):
        shown = aces_filmic(before_tone_curve(np.array(color)))
        srgb = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(255 * srgb, color, atol=1e-6)


def test_a_sent_mesh_holds_its_triangles():
    trimesh = pytest.importorskip("trimesh")
    vertices = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    for opacity in (1.0, 0.5):
        content = io.BytesIO(unlit_glb(vertices, faces, label_set().colors[3], opacity))
        (read,) = trimesh.load(content, "glb").geometry.values()
        np.testing.assert_array_equal(read.vertices[read.faces], vertices[faces])


def test_the_meshs_view_shows_what_rays_hit():
    pose = box_room.trajectory()[1]
    label, depth = mesh_view(box_room.mesh(), pose, box_room.INTRINSICS, box_room.SIZE)
    true_label, true_depth = box_room.ray_cast(pose[None])
    assert (label == true_label[0]).float().mean() > 0.99
    assert (depth - true_depth[0]).abs().median() < 1e-4


def test_live_quality_is_what_the_rate_task_writes(tmp_path):
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    observers = Observers.from_store(tmp_path / "room", max_views=4, depth_of=field_depth)
    estimator = QualityEstimator(observers, QualityOptions())
    view, pose, intrinsics = 5, store.cameras.camera_to_world[5], store.cameras.intrinsics[5]
    rated = estimator.estimate(stored_view(store, view))
    rendered = RenderedView(store.read("rgb", view), None, store.read("depth", view), store.read("alpha", view))
    live = LiveQuality(estimator, mesh=None).estimate(rendered, pose, intrinsics)
    torch.testing.assert_close(live, rated)
    with_mesh = LiveQuality(estimator, box_room.mesh()).estimate(rendered, pose, intrinsics)
    assert (with_mesh - rated).abs().median() < 0.02, "the mesh is where the depth says"
    picture = quality_picture(live)
    assert picture.shape == (3, *box_room.SIZE) and 0 < rated.mean() < 1


def test_video_has_its_frames_and_an_even_size(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    import imageio.v2

    frames = [np.full((33, 49, 3), value, dtype=np.uint8) for value in (0, 120, 240)]
    assert video.write_video(tmp_path / "video.mp4", iter(frames), 10) == 3
    with imageio.v2.get_reader(tmp_path / "video.mp4") as reader:
        read = [np.asarray(frame) for frame in reader]
    assert len(read) == 3 and read[0].shape == (32, 48, 3)
    assert [round(float(frame.mean())) for frame in read] == pytest.approx([0, 120, 240], abs=4)


def test_missing_ffmpeg_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="imageio-ffmpeg.*pip install"):
        video.require_ffmpeg()


class Always:
    """Stands for a network that sees one class everywhere."""

    outputs, color = ("rgb", "sh"), "rgb"

    def __init__(self, size=box_room.SIZE):
        self.size = size

    def predict(self, view, camera_to_world, intrinsics, world_to_grid, lens=None):
        assert view.rgb.shape == (3, *self.size) and view.sh.shape == (27, *self.size) and view.depth is None
        assert camera_to_world.shape == (4, 4) and 0 < intrinsics[0, 2] < self.size[1]
        return torch.full(self.size, 9, dtype=torch.uint8)


def room_state(store):
    links = torch.arange(8)
    grid = PlenoxelGrid.from_sparse((2, 2, 2), links, torch.ones(8), torch.zeros(8, 27))
    field = RadianceField(grid, SceneTransform.identity())
    estimator = QualityEstimator(Observers.from_store(store.path, max_views=2), QualityOptions())
    quality = LiveQuality(estimator, box_room.mesh())
    return SceneState("room", field, RenderOptions(), {}, box_room.mesh(), {"always": Always()}, quality)


def test_a_camera_is_compared_by_what_is_stored_and_else_by_what_can_be_made(tmp_path):
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    state, trajectory = room_state(store), CameraSource(TRAJECTORY, store.cameras, store)
    stored = compare(state, trajectory, 3)
    assert list(stored.pictures) == ["render", "annotation", "prediction", "quality"]
    torch.testing.assert_close(stored.pictures["render"], store.read("rgb", 3))
    torch.testing.assert_close(stored.pictures["annotation"], class_picture(store.read("label", 3)))
    assert stored.classes == sorted({*store.read("label", 3).unique().tolist(), 9})
    assert compare(state, trajectory, 3, hidden={9}).classes == [number for number in stored.classes if number != 9]
    rejected = CameraSource(DOMES, replace(store.cameras, names=[f"dome{name}" for name in store.cameras.names]), store)
    made = compare(state, rejected, 3)
    assert made.pictures["render"].shape == (3, *box_room.SIZE)
    agreement = (made.pictures["annotation"] == stored.pictures["annotation"]).float().mean()
    assert agreement > 0.99, "the mesh shows what the store holds"


@contextmanager
def label_table(name):
    with gin.unlock_config():
        gin.bind_parameter("label_set.table", f"configs/labels/{name}")
    try:
        yield
    finally:
        gin.clear_config()


def test_stored_labels_of_another_label_set_are_not_taken_for_this_ones(tmp_path):
    """Class 18 is a sink in the benchmark and a pillow in NYU40: the mesh is annotated anew."""
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    trajectory = CameraSource(TRAJECTORY, store.cameras, store)
    view = next(view for view in range(len(store)) if (store.read("label", view) == class_index("sink")).any())
    with label_table("nyu40.tsv"):
        assert "label" in store.channels and not store.has_labels
        compared = compare(room_state(store), trajectory, view)
        names = {label_set().names[index] for index in compared.classes}
    assert "annotation" in compared.pictures and "sink" in names and "pillow" not in names


def fused_of(folder):
    return load_scene_state("room", ScenePaths(folder, fused=folder), RenderOptions(), QualityOptions(), (4, 4),
                            torch.device("cpu")).semantic


def test_a_semantic_field_of_another_label_set_is_left_out(tmp_path, caplog):
    grid = PlenoxelGrid.from_sparse((2, 2, 2), torch.arange(8), torch.ones(8), torch.zeros(8, 27))
    grid.save(tmp_path)
    ones = torch.ones(8)
    SemanticField(torch.ones(8, 21), ones, ones).save(tmp_path / SEMANTIC_FILE, grid)
    assert fused_of(tmp_path) is not None
    with label_table("nyu40.tsv"), caplog.at_level("INFO"):
        assert fused_of(tmp_path) is None
        assert re.search("without fused labels: .*semantic.npz holds other classes than those of .*nyu40", caplog.text)
        SemanticField(torch.ones(8, 41), ones, ones).save(tmp_path / SEMANTIC_FILE, grid)
        assert fused_of(tmp_path) is None, "41 classes, but nothing says which"
        write_json(tmp_path / "settings.json", label_settings())
        assert fused_of(tmp_path) is not None
    assert fused_of(tmp_path) is None, "NYU40's classes under the benchmark's table"


def test_a_network_sees_views_of_its_own_size_only(tmp_path):
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    trajectory = CameraSource(TRAJECTORY, store.cameras, store)
    state = replace(room_state(store), predictors={"always": Always((20, 30))})
    pictures = compare(state, trajectory, 3).pictures
    assert pictures["prediction"].shape == pictures["annotation"].shape


def test_several_networks_are_shown_side_by_side(tmp_path):
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    state = replace(room_state(store), predictors={"one": Always(), "two": Always((20, 30))})
    pictures = compare(state, CameraSource(TRAJECTORY, store.cameras, store), 3).pictures
    assert [name for name in pictures if "prediction" in name] == ["prediction: one", "prediction: two"]


def test_networks_are_called_like_their_runs():
    paths = [Path("runs/a/training/best.ckpt"), Path("runs/b/training/last.ckpt"), Path("420.ckpt"),
             Path("other/a/training/best.ckpt")]  # fmt: skip
    assert dict(named_networks(paths)) == dict(zip(["a", "b", "420", "a (4)"], paths, strict=True))


def test_a_network_of_photographs_sees_no_render(tmp_path):
    store = ViewStore.open(box_room.write_store(tmp_path / "room"))
    state = room_state(store)
    state.predictors["always"].color = "photo"
    assert "photo" not in store.channels
    assert "prediction" not in compare(state, CameraSource(TRAJECTORY, store.cameras, store), 3).pictures


def test_depth_has_one_scale_for_all_views_of_a_scene():
    near, far = torch.full((1, 1), 0.5), torch.full((1, 1), 3.0)
    alone = [depth_color(each, (0.0, 4.0)) for each in (near, far)]
    together = depth_color(torch.cat((near, far), dim=1), (0.0, 4.0))
    assert torch.equal(torch.cat(alone, dim=2), together)


def test_legends_have_the_ends_of_their_scale():
    assert ">4.5 m or more<" in mode_legend("depth", 1.0, 4.5, []) and "253,231,36" in mode_legend("depth", 1, 4.5, [])
    assert all(text in mode_legend("SH channel", 0.25, 1.0, []) for text in (">-0.25<", ">0<", ">0.25<"))
    assert "toilet" in mode_legend("prediction", 1.0, 1.0, [17]) and "sink" not in mode_legend("annotation", 1, 1, [17])
    assert mode_legend("nothing", 1.0, 1.0, []) == ""


def test_figures_are_of_what_is_there(tmp_path):
    field, run, fused = tmp_path / "field", tmp_path / "runs" / "row", tmp_path / "fused" / "room"
    networks = named_networks([run / "training" / "best.ckpt"])
    assert scene_figures("room", field, networks, fused) == []
    write_json(field / "results.json", {"psnr": 21.234, "ssim": 0.7, "voxels": 12345, "voxel_metres": 0.041})
    counts = {"truth": [10] + [0] * 19, "predicted": [8, 5] + [0] * 18, "hits": [6] + [0] * 19}
    write_json(run / "test" / "scores" / "results.json", {"by_scene": {"room": counts}})
    write_json(fused.parent / "run" / "metrics.json",
               {"scenes": {"room": {"single": {"mean_iou_of_present": 0.3}, "fused": {"mean_iou_of_present": 0.4}}}})
    assert scene_figures("room", field, networks, fused) == [
        "held-out PSNR **21.23 dB**, SSIM 0.700; 12,345 voxels of 4.1 cm",
        "row: mIoU of this scene's 1 classes **50.0 %**",
        "mIoU of this scene's classes, single predictions 30.0 %, fused **40.0 %**",
    ]
    others = scene_figures("hall", field, networks, fused)
    assert others[1] == "row was not tested on this scene" and len(others) == 2
    write_json(run / "test" / "scores" / "results.json", {"by_scene": {"room": {name: [0] * 20 for name in counts}}})
    assert scene_figures("room", field, networks, fused)[1] == "row was tested on this scene, which has no labels"
    (field / "results.json").write_text("{")
    assert len(scene_figures("room", field, {}, fused)) == 1
