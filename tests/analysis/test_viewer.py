"""The viewer without a browser: camera mathematics and progressive drawing."""

import itertools
import logging
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from analysis.viewer.camera_math import (
    BrowserCamera,
    interpolate_path,
    vertical_fov,
    view_aspect,
)
from analysis.viewer.pictures import quality_picture
from analysis.viewer.reason_labels import legible_labels
from analysis.viewer.render_loop import RenderLoop
from analysis.viewer.schedule import INITIAL_COST, ResolutionSchedule
from analysis.viewer.view_renderer import DisplaySettings, ViewRenderer
from model import render_features
from model.semantic_field import SemanticField
from utils.cameras import camera_rays, look_at, project, scale_intrinsics
from utils.labels import label_set

SECONDS = 20


def camera(x=0.0, fov=1.0, aspect=1.6):
    eye = torch.tensor([x, 0.0, 1.0], dtype=torch.float64)
    return BrowserCamera(look_at(eye, torch.tensor([x, 3.0, 1.0], dtype=torch.float64)), fov, aspect)


def test_image_borders_are_the_borders_of_the_field_of_view():
    browser, size = camera(fov=1.1, aspect=1.75), (48, 84)
    intrinsics = browser.intrinsics(size)
    up = torch.tensor([0.0, -math.tan(0.55), 1.0], dtype=torch.float64)
    right = torch.tensor([1.75 * math.tan(0.55), 0.0, 1.0], dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(project(up, intrinsics, identity)[0], torch.tensor([42.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(project(right, intrinsics, identity)[0], torch.tensor([84.0, 24.0], dtype=torch.float64))


def test_rounded_sizes_stretch_pixels_and_not_the_view():
    browser = camera(aspect=1.618)
    coarse, fine = browser.size(33), browser.size(720)
    torch.testing.assert_close(
        scale_intrinsics(browser.intrinsics(coarse), coarse, fine), browser.intrinsics(fine), atol=1e-9, rtol=0
    )


def test_a_scannet_camera_keeps_its_view_when_squeezed():
    intrinsics = torch.tensor([[1170.2, 0, 647.8], [0, 1170.2, 483.8], [0, 0, 1]], dtype=torch.float64)
    squeezed = scale_intrinsics(intrinsics, (968, 1296), (124, 124))
    assert vertical_fov(squeezed, 124) == pytest.approx(vertical_fov(intrinsics, 968))
    assert view_aspect(squeezed, (124, 124)) == pytest.approx(1296 / 968)


def test_predictions_see_objects_as_large_as_in_training():
    browser = camera(fov=0.9, aspect=2.0)
    size = browser.size_at_focal(107.0, 144.0)
    intrinsics = browser.intrinsics(size)
    assert float(intrinsics[0, 0]) == pytest.approx(107.0, rel=0.01)
    assert float(intrinsics[1, 1]) == pytest.approx(144.0, rel=0.01)
    assert max(browser.size_at_focal(1e5, 1e5)) == 1024


def test_path_passes_its_cameras_and_turns_evenly():
    first, last = camera(0.0, fov=0.8), camera(2.0, fov=1.0)
    turned = last.camera_to_world.clone()
    turned[:3, :3] = torch.from_numpy(Rotation.from_euler("z", 90, degrees=True).as_matrix()) @ turned[:3, :3]
    path = interpolate_path([first, BrowserCamera(turned, 1.0, 1.6)], 5)
    torch.testing.assert_close(path[0].camera_to_world, first.camera_to_world)
    torch.testing.assert_close(path[-1].camera_to_world, turned)
    steps = [
        Rotation.from_matrix((a.camera_to_world[:3, :3].T @ b.camera_to_world[:3, :3]).numpy()).magnitude()
        for a, b in itertools.pairwise(path)
    ]
    assert np.degrees(steps) == pytest.approx([22.5] * 4)
    assert [round(view.fov, 3) for view in path] == [0.8, 0.85, 0.9, 0.95, 1.0]
    with pytest.raises(ValueError, match="two cameras"):
        interpolate_path([first], 5)


def test_schedule_is_coarse_on_a_slow_device_and_full_at_once_on_a_fast_one():
    slow = ResolutionSchedule(720, budget=0.1, seconds_per_pixel=5e-6)
    heights = slow.heights(1.6)
    assert heights[-1] == 720 and heights[0] ** 2 * 1.6 <= slow.affordable_pixels()
    assert all(2 * a == b for a, b in itertools.pairwise(heights))
    assert ResolutionSchedule(720, seconds_per_pixel=1e-9).heights(1.6) == [720]
    for _ in range(30):
        slow.measured(1_000_000, 0.001)
    assert slow.heights(1.6) == [720]
    assert ResolutionSchedule(720, seconds_per_pixel=1.0).heights(1.6)[0] in range(16, 33)


def test_a_gpu_draws_in_full_from_the_first_view_on_and_a_cpu_begins_coarsely():
    assert ResolutionSchedule(1080, seconds_per_pixel=INITIAL_COST["cuda"]).heights(16 / 9) == [1080]
    assert ResolutionSchedule(720, seconds_per_pixel=INITIAL_COST["cpu"]).heights(1.6) == [45, 90, 180, 360, 720]


def choose_labels(pixels, depth=None, width=50, most=40):
    pixels = np.array(pixels, dtype=float)
    depth = np.ones(len(pixels)) if depth is None else np.array(depth)
    return legible_labels(pixels, depth, np.full(len(pixels), width), (400, 600), most)


def test_reasons_are_shown_nearest_to_the_middle_first_and_only_in_view():
    pixels = [[30, 30], [310, 205], [590, 390], [300, 100], [601, 200], [300, -1], [300, 300.2]]
    assert choose_labels(pixels) == [1, 3, 6, 0, 2]
    assert choose_labels(pixels, most=2) == [1, 3]
    assert choose_labels(pixels, depth=[1, -1, 1, 0, 1, 1, 1]) == [6, 0, 2]
    assert choose_labels(np.empty((0, 2))) == []
    assert choose_labels([[300, 200], [300, 200]], depth=[2, 1]) == [1], "the nearer of two that are one on the page"


def test_no_reason_covers_another():
    assert choose_labels([[300, 200], [340, 210], [361, 210], [310, 219]]) == [0, 3, 2]
    pixels = np.random.default_rng(0).uniform((0, 0), (600, 400), (400, 2))
    chosen = choose_labels(pixels)
    assert len(chosen) == 40
    for first, second in itertools.combinations(pixels[chosen], 2):
        across, down = np.abs(first - second)
        assert across >= 50 or down >= 18
    distances = np.linalg.norm(pixels - (300, 200), axis=1)
    assert chosen[0] == distances.argmin(), "the camera that one aims at always has its reason"


class Recorder:
    """Draws nothing; remembers who was drawn and delivered, and can be made to wait."""

    def __init__(self, heights=(10, 20, 40)):
        self.delivered, self.gate, self.entered = [], threading.Event(), threading.Event()
        self.gate.set()
        schedule = ResolutionSchedule(heights[-1])
        schedule.heights = lambda aspect: list(heights)
        self.loop = RenderLoop(self.draw, self.deliver, schedule)

    def draw(self, camera, height, abandoned):
        self.entered.set()
        self.gate.wait(SECONDS)
        return None if abandoned() else (camera, height)

    def deliver(self, browser, picture, last):
        self.delivered.append((browser, *picture, last))


@pytest.fixture
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.gate.set()
    recorder.loop.stop()


def test_every_browser_gets_a_coarse_picture_before_anyone_gets_a_fine_one(recorder):
    first, second = camera(1.0), camera(2.0)
    recorder.loop.submit("a", first)
    recorder.loop.submit("b", second)
    recorder.loop.start()
    assert recorder.loop.wait_until_idle(SECONDS)
    assert [(browser, height) for browser, _, height, _ in recorder.delivered] == [
        ("a", 10), ("b", 10), ("a", 20), ("b", 20), ("a", 40), ("b", 40),
    ]  # fmt: skip
    assert [last for *_, last in recorder.delivered] == [False] * 4 + [True] * 2


def test_the_latest_camera_wins_and_a_coarse_picture_is_never_lost(recorder):
    recorder.gate.clear()
    recorder.loop.submit("a", camera(0.0))
    recorder.loop.start()
    assert recorder.entered.wait(SECONDS)
    latest = camera(5.0)
    for x in (1.0, 2.0):
        recorder.loop.submit("a", camera(x))
    recorder.loop.submit("a", latest)
    recorder.gate.set()
    assert recorder.loop.wait_until_idle(SECONDS)
    positions = [(float(shown.camera_to_world[0, 3]), height) for _, shown, height, _ in recorder.delivered]
    assert positions == [(0.0, 10), (5.0, 10), (5.0, 20), (5.0, 40)]


def test_a_browser_that_left_is_not_drawn_for_and_refresh_draws_again(recorder):
    recorder.loop.submit("a", camera())
    recorder.loop.submit("gone", camera())
    recorder.loop.remove("gone")
    recorder.loop.start()
    assert recorder.loop.wait_until_idle(SECONDS)
    recorder.loop.refresh()
    assert recorder.loop.wait_until_idle(SECONDS)
    assert [(browser, height) for browser, _, height, _ in recorder.delivered] == [("a", h) for h in (10, 20, 40)] * 2


def test_the_loop_survives_a_view_that_fails(recorder, caplog):
    recorder.draw_well, failing = recorder.loop._draw, camera(9.0)

    def draw(shown, height, abandoned):
        if shown is failing:
            raise RuntimeError("no")
        return recorder.draw_well(shown, height, abandoned)

    recorder.loop._draw = draw
    recorder.loop.submit("a", failing)
    recorder.loop.start()
    with caplog.at_level(logging.CRITICAL):
        assert recorder.loop.wait_until_idle(SECONDS)
    recorder.loop.submit("a", camera())
    assert recorder.loop.wait_until_idle(SECONDS)
    assert [height for _, _, height, _ in recorder.delivered] == [10, 20, 40]


def small_state():
    from analysis.viewer.scene_state import SceneState
    from dataloader import SceneTransform
    from model import PlenoxelGrid, RadianceField, RenderOptions

    rng = torch.Generator().manual_seed(0)
    links = torch.randperm(16**3, generator=rng)[:1500].sort().values
    density, sh = 8 * torch.rand(1500, generator=rng), torch.randn(1500, 27, generator=rng)
    grid = PlenoxelGrid.from_sparse((16, 16, 16), links, density, sh)
    return SceneState("small", RadianceField(grid, SceneTransform.identity()), RenderOptions(), {})


def test_bands_of_rows_make_the_same_picture_as_one_rendering(monkeypatch):
    state = small_state()
    eye = torch.tensor([0.2, -2.5, 0.3], dtype=torch.float64)
    browser = BrowserCamera(look_at(eye, torch.zeros(3, dtype=torch.float64)), 0.9, 1.5)
    monkeypatch.setattr("analysis.viewer.view_renderer._BAND_PIXELS", {"cpu": 100})
    renderer = ViewRenderer(state, DisplaySettings(occlude=True))
    picture = renderer.draw(browser, 30)
    whole = state.field.render_view(browser.camera_to_world, browser.intrinsics((30, 45)), (30, 45), state.options)
    expected = (whole.rgb.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert picture.image.shape == (30, 45, 3) and picture.image.dtype == np.uint8
    assert np.abs(picture.image - expected).max() <= 1
    assert expected.std() > 10, "the scene is in view"
    opaque = (whole.alpha > 0.51).numpy()
    ratio = (whole.depth / whole.alpha).numpy()
    np.testing.assert_allclose(picture.depth[opaque], ratio[opaque], atol=1e-4)
    assert np.all(picture.depth[(whole.alpha < 0.49).numpy()] == 0)
    calls = iter([False, True])
    assert renderer.draw(browser, 30, lambda: next(calls)) is None


def test_fused_labels_and_how_sure_they_are_seen_from_a_camera():
    """All voxels have the same certainty, and so has every ray of which half and more ends in voxels."""
    state = small_state()
    grid = state.field.grid
    probabilities = torch.zeros(grid.num_voxels, label_set().num_classes)
    probabilities[:, 6], probabilities[:, 1] = 0.75, 0.25
    state = replace(state, semantic=SemanticField(probabilities, *torch.full((2, grid.num_voxels), 0.6)))
    eye = torch.tensor([0.2, -2.5, 0.3], dtype=torch.float64)
    browser = BrowserCamera(look_at(eye, torch.zeros(3, dtype=torch.float64)), 0.9, 1.5)
    labels, sure = (ViewRenderer(state, DisplaySettings(mode)).draw(browser, 30)
                    for mode in ("fused labels", "fused confidence"))  # fmt: skip
    rays = (values.reshape(-1, 3) for values in
            state.field.view_rays(browser.camera_to_world, browser.intrinsics((30, 45)), (30, 45)))  # fmt: skip
    ends = render_features(grid, torch.ones(grid.num_voxels, 1), *rays).reshape(30, 45).numpy()
    opaque = ends > 0.5
    assert opaque.sum() > 20 and (labels.image[opaque] == label_set().colors[6]).all() and labels.exact
    expected = quality_picture(torch.full((1, 1), 0.6))[:, 0, 0].numpy().astype(int)
    assert np.abs(sure.image[opaque].astype(int) - expected).max() <= 4  # a step of the colours
    assert (sure.image[ends == 0] == quality_picture(torch.zeros(1, 1))[:, 0, 0].numpy()).all()


def test_rays_of_the_browsers_camera_pass_its_corners():
    browser = camera(fov=1.0, aspect=1.6)
    size = (400, 640)
    _, directions = camera_rays(browser.camera_to_world, browser.intrinsics(size), *size)
    local = directions[0, 0].double() @ browser.camera_to_world[:3, :3]
    assert float(local[1] / local[2]) == pytest.approx(-math.tan(0.5), rel=0.01)
    assert float(local[0] / local[2]) == pytest.approx(-1.6 * math.tan(0.5), rel=0.01)
