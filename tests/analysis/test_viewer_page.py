"""The viewer's page in a headless Chromium: it loads, and what it shows follows the camera and the mode."""

import io
import time

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from analysis.viewer.scene_state import DOMES, TRAJECTORY, CameraSource, SceneState
from dataloader import CameraList, Mesh, SceneTransform
from model import PlenoxelGrid, RadianceField, RenderOptions
from tests.analysis.chromium import Page
from utils.cameras import look_at

SECONDS = 60
TONE_MAPPING = 16  # of 255: what the page's tone curve, which viser cannot switch off, does to a mesh's colour
LEFT = (slice(200, 800), slice(0, 850))  # of the 1280x800 page: what neither notices nor the panel cover


def cameras(scene, title, count, radius, info):
    angle = torch.linspace(0, 1, count, dtype=torch.float64)
    eyes = torch.stack((radius * angle.sin(), -radius * angle.cos(), 0.3 + 0 * angle), -1)
    intrinsics = torch.tensor([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]], dtype=torch.float64)
    names = [f"{title}{index}" for index in range(count)]
    poses = look_at(eyes, torch.zeros_like(eyes))
    return CameraSource(title, CameraList(scene, names, poses, intrinsics, (60, 80), info))


def scene_state():
    rng = torch.Generator().manual_seed(0)
    links = torch.randperm(16**3, generator=rng)[:1500].sort().values
    density, sh = 20 * torch.rand(1500, generator=rng), torch.randn(1500, 27, generator=rng)
    field = RadianceField(PlenoxelGrid.from_sparse((16, 16, 16), links, density, sh), SceneTransform.identity())
    corners = torch.tensor([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    mesh = Mesh(corners, faces, None, torch.full((4,), 5, dtype=torch.int32))
    judged = [{"accepted": True, "reason": ""}, {"accepted": False, "reason": "too_close"}]
    sources = {
        TRAJECTORY: cameras("small", TRAJECTORY, 3, 2.5, [{}] * 3),
        DOMES: cameras("small", DOMES, 2, 1.8, judged),
    }
    return SceneState("small", field, RenderOptions(), sources, mesh)


def shown(page):
    """Pixels of the page beside the panel."""
    return iio.imread(io.BytesIO(page.screenshot()))[LEFT][..., :3].astype(int)


def wait_for_change(page, before):
    """What is shown once it differs clearly from ``before``."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        picture = shown(page)
        if np.abs(picture - before).mean() > 3:
            return picture
        time.sleep(0.3)
    raise AssertionError("the canvas did not change")


@pytest.fixture(scope="module")
def viewer():
    pytest.importorskip("viser")
    from analysis.viewer.viewer import Viewer

    viewer = Viewer(scene_state(), port=8437, max_height=120)
    yield viewer
    viewer.stop()


def test_page_follows_mode_camera_and_mesh_without_console_errors(viewer):
    with Page(viewer.url) as page:
        assert page.wait_for("document.querySelector('canvas')", SECONDS)
        blank = np.full((600, 850, 3), 255)
        colour = wait_for_change(page, blank)
        assert viewer.loop.wait_until_idle(SECONDS)
        colour = shown(page)
        assert colour.std() > 10, "the field is in view"
        viewer.set_mode("depth")
        assert viewer.loop.wait_until_idle(SECONDS)
        depth = wait_for_change(page, colour)
        viewer.choose_camera(DOMES, 1)
        moved = wait_for_change(page, depth)
        assert page.click_text("Cameras")
        assert page.wait_for("document.body.innerText.includes('too_close')", SECONDS), "the reason is shown"
        viewer.set_mode("nothing")
        empty = wait_for_change(page, moved)
        viewer.mesh.show(True)
        mesh = wait_for_change(page, empty)
        chair = np.array([188, 189, 34])  # ScanNet's colour of the class
        values, counts = np.unique(mesh.reshape(-1, 3), axis=0, return_counts=True)
        common = values[counts.argsort()[::-1][:4]]
        assert (np.abs(mesh - chair).max(-1) <= TONE_MAPPING).mean() > 0.1, f"commonest: {common.tolist()}"
        assert not page.errors, page.errors


def test_server_is_bound_to_this_machine_only(viewer):
    assert viewer.url.startswith("http://127.0.0.1:")


def test_modes_without_a_network_do_not_offer_its_prediction(viewer):
    assert "prediction" not in viewer.modes
    with pytest.raises(ValueError, match="not offered"):
        viewer.set_mode("prediction")
