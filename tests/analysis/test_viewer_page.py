"""The viewer's page in a headless Chromium: what it shows, what a click does, and what it lets one take away."""

import time
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from analysis.viewer import video
from analysis.viewer.camera_math import BrowserCamera
from analysis.viewer.display import look_through
from analysis.viewer.scene_nodes import REJECTED_KIND, Frusta
from analysis.viewer.scene_state import DOMES, TRAJECTORY, CameraSource, SceneState
from dataloader import CameraList, Mesh, SceneTransform
from model import PlenoxelGrid, RadianceField, RenderOptions
from model.semantic_field import SemanticField
from tests.analysis.pages import open_page, seen
from utils.cameras import look_at, project
from utils.errors import UserError
from utils.labels import label_set

SECONDS = 60
LEFT = (slice(200, 800), slice(0, 850))  # of the 1280x800 page: what neither notices nor the panel cover
CHAIR, SOFA, PAPER = 5, 6, 255
FOCAL = 60.0


def cameras(scene, title, count, radius, info):
    angle = torch.linspace(0, 1, count, dtype=torch.float64)
    eyes = torch.stack((radius * angle.sin(), -radius * angle.cos(), 0.3 + 0 * angle), -1)
    intrinsics = torch.tensor([[FOCAL, 0, 40], [0, FOCAL, 30], [0, 0, 1]], dtype=torch.float64)
    names = [f"{title}{index}" for index in range(count)]
    poses = look_at(eyes, torch.zeros_like(eyes))
    return CameraSource(title, CameraList(scene, names, poses, intrinsics, (60, 80), info))


def predictor(folder):
    import pytorch_lightning as pl

    from analysis.viewer.predictor import Predictor
    from enet.module import SegmentationModule

    module = SegmentationModule(network={"stem": "conv_sum"}, views={})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "best.ckpt")
    made = Predictor(folder / "best.ckpt", cameras("small", "t", 1, 2.0, None).cameras, (60, 80), torch.device("cpu"))
    assert made.focal == (FOCAL, FOCAL)
    return made


def scene_state(folder):
    rng = torch.Generator().manual_seed(0)
    links = torch.randperm(16**3, generator=rng)[:1500].sort().values
    density, sh = 20 * torch.rand(1500, generator=rng), torch.randn(1500, 27, generator=rng)
    field = RadianceField(PlenoxelGrid.from_sparse((16, 16, 16), links, density, sh), SceneTransform.identity())
    corners = torch.tensor([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    mesh = Mesh(corners, faces, None, torch.full((4,), CHAIR, dtype=torch.int32))
    judged = [
        {"accepted": True, "reason": "", "target_class": "sink", "target_class_index": 18},
        {"accepted": False, "reason": "too_close", "target_class": "toilet", "target_class_index": 17},
    ]
    sources = {
        TRAJECTORY: cameras("small", TRAJECTORY, 3, 2.5, [{}] * 3),
        DOMES: cameras("small", DOMES, 2, 0.6, judged),
    }
    probabilities = torch.zeros(1500, 21)
    probabilities[:, SOFA] = 1
    semantic = SemanticField(probabilities, torch.ones(1500), torch.ones(1500))
    figures = ("held-out PSNR **12.34 dB**",)
    networks = {"first": predictor(folder), "second": predictor(folder)}
    return SceneState("small", field, RenderOptions(), sources, mesh, networks, None, semantic, figures)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    pytest.importorskip("viser")
    from analysis.viewer.viewer import Viewer

    viewer = Viewer(scene_state(tmp_path_factory.mktemp("network")), port=8437, max_height=120)
    yield viewer
    viewer.stop()


@pytest.fixture(scope="module")
def page(viewer):
    with open_page(viewer.url) as page:
        assert page.wait_for("document.querySelector('canvas')", SECONDS)
        wait_for(page, lambda picture: picture.std() > 10)
        yield page


@pytest.fixture(autouse=True)
def plain(request):
    """Each test begins at the first camera with the field in colour and nothing before it."""
    if "page" not in request.fixturenames:
        return
    viewer = request.getfixturevalue("viewer")
    viewer.display.mesh.show(False)
    viewer.panels.hide_classes(set())
    viewer.panels.set_mode("colour")
    viewer.panels.choose_camera(TRAJECTORY, 0)
    assert viewer.display.loop.wait_until_idle(SECONDS)


def wait_for(page, holds):
    """What is shown beside the panel once that ``holds``."""
    deadline = time.monotonic() + SECONDS
    while not holds(picture := seen(page)[LEFT]):
        assert time.monotonic() < deadline, f"mean colour {picture.mean((0, 1))}, deviation {picture.std()}"
        time.sleep(0.3)
    return picture


def differs_from(before):
    return lambda picture: np.abs(picture - before).mean() > 3


def share_of(color):
    """Gives the share of pixels that have exactly that colour."""
    return lambda picture: float((picture == color).all(-1).mean())


def test_the_field_follows_mode_and_camera_without_console_errors(viewer, page):
    colour = wait_for(page, lambda picture: picture.std() > 10)
    viewer.panels.set_mode("depth")
    depth = wait_for(page, differs_from(colour))
    viewer.panels.choose_camera(DOMES, 1)
    wait_for(page, differs_from(depth))
    assert not page.errors, page.errors


def test_mesh_and_annotation_have_exactly_the_classes_colours(viewer, page):
    viewer.panels.set_mode("nothing")
    wait_for(page, lambda picture: share_of([PAPER] * 3)(picture) > 0.9)
    chair = label_set().colors[CHAIR].astype(int)
    viewer.display.mesh.show(True)
    solid = share_of(chair)(wait_for(page, lambda picture: share_of(chair)(picture) > 0.1))
    viewer.display.mesh.show(True, opacity=0.5)
    halfway = np.array([(int(value) + PAPER) / 2 for value in chair])

    def close(picture):
        return (np.abs(picture - halfway).max(-1) <= 1).mean()

    assert close(wait_for(page, lambda picture: close(picture) > 0.1)) == pytest.approx(solid, abs=0.01)
    viewer.panels.hide_classes({CHAIR})
    wait_for(page, lambda picture: close(picture) == 0)
    viewer.panels.hide_classes(set())
    viewer.display.mesh.show(False)
    viewer.panels.set_mode("annotation")
    drawn = share_of(chair)(wait_for(page, lambda picture: share_of(chair)(picture) > 0.1))
    assert drawn == pytest.approx(solid, abs=0.02), "both are the same mesh seen from the same place"


def test_a_network_predicts_what_the_browser_sees(viewer, page):
    viewer.panels.set_mode("prediction")
    known = {tuple(color) for color in label_set().colors.tolist()}

    def share_known(picture):
        return np.mean([tuple(color) in known for color in picture[::7, ::7].reshape(-1, 3).tolist()])

    wait_for(page, lambda picture: share_known(picture) > 0.5)
    press(page, "View")
    assert page.wait_for(page.shows("Network"), SECONDS), "there are two"
    viewer.display.set_network("second")
    assert viewer.display.loop.wait_until_idle(SECONDS) and not page.errors, page.errors


def page_position(viewer, point):
    """Where on the page a world point appears."""
    (client,) = viewer.display.server.get_clients().values()
    camera = viewer.display.browser_camera(client)
    uv, depth = project(point, camera.intrinsics((800, 1280)), camera.camera_to_world)
    assert depth > 0
    return uv.tolist()


def test_a_click_on_a_rejected_camera_tells_the_reason(viewer, page):
    viewer.panels.show_kind(REJECTED_KIND, True)
    eye = viewer.display.state.sources[DOMES].cameras.camera_to_world[1, :3, 3]
    x, y = page_position(viewer, eye)  # the lines of a camera's frustum meet there
    before = page_position(viewer, torch.zeros(3, dtype=torch.float64))
    assert not page.wait_for(page.shows("too_close"), 0.1)
    time.sleep(1)  # the page draws at its own pace
    page.click(x, y)
    assert page.wait_for(page.shows("too_close"), SECONDS)
    assert page.wait_for(page.shows("toilet"), 1) and page.wait_for(page.shows("a surface is nearer"), 1)
    assert page_position(viewer, torch.zeros(3, dtype=torch.float64)) == before, "the view stays"
    press(page, "Cameras", "Look through this camera")
    (client,) = viewer.display.server.get_clients().values()
    deadline = time.monotonic() + SECONDS
    while np.abs(client.camera.position - eye.numpy()).max() > 1e-3:
        assert time.monotonic() < deadline, "the button jumps to the camera"
        time.sleep(0.1)


def reasons(viewer):
    """Texts of the labels that open pages were sent and still have."""
    return [label.text for labels in viewer.display.reasons._labels.values() for label in labels.values()]


def until(holds, what):
    """Wait until that is so."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_reasons_stand_beside_rejected_cameras_in_view_while_their_box_is_ticked(viewer, page):
    viewer.panels.set_mode("nothing")
    viewer.panels.show_kind(REJECTED_KIND, True)
    eye = viewer.display.state.sources[DOMES].cameras.camera_to_world[1, :3, 3]
    time.sleep(1)
    x, y = (round(value) for value in page_position(viewer, eye))
    beside = (slice(y + 2, y + 18), slice(x - 30, x + 30))
    without = seen(page)[beside]
    assert not viewer.display.reasons._labels, "nothing is made before it is asked for"
    viewer.panels.show_kind(REJECTED_KIND, False)
    press(page, "View", "Why rejected")
    until(lambda: reasons(viewer) == ["too close"], "the box also shows the rejected cameras")
    until(lambda: np.abs(seen(page)[beside] - without).mean() > 10, "the label is seen under the camera")
    ((label,),) = (labels.values() for labels in viewer.display.reasons._labels.values())
    for hide in (True, False):
        viewer.display.set_occlusion(hide)
        assert label.depth_test == hide, "what hides the camera hides its label too"
    viewer.panels.choose_camera(TRAJECTORY, 2)
    assert reasons(viewer) == ["too close"], "what stays in view stays"
    (client,) = viewer.display.server.get_clients().values()
    away = torch.tensor([0.0, -9.0, 0.0], dtype=torch.float64)
    look_through(client, BrowserCamera(look_at(eye + away, eye + 2 * away), 0.9, 1.6))
    until(lambda: not reasons(viewer), "a camera behind the view has no label")
    viewer.panels.choose_camera(TRAJECTORY, 0)
    until(lambda: reasons(viewer), "it has one again")
    viewer.panels.show_kind(REJECTED_KIND, False)
    until(lambda: not reasons(viewer), "no reasons beside cameras that are not shown")
    viewer.panels.show_kind(REJECTED_KIND, True)
    until(lambda: reasons(viewer), "they come back with the cameras")
    press(page, "Why rejected")
    until(lambda: not reasons(viewer), "off")
    assert not page.errors, page.errors


def press(page, *texts):
    """Click what has these texts, one after the other, each as soon as it is there."""
    for text in texts:
        deadline = time.monotonic() + SECONDS
        while not page.click_text(text):
            assert time.monotonic() < deadline, f"there is no {text!r}"
            time.sleep(0.2)
        time.sleep(0.5)  # what follows from a click may move what is clicked next


def downloaded(page, name):
    """The content of a file that the page downloads; the file is removed."""
    path, deadline = page.downloads / name, time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{name} was not downloaded"
        time.sleep(0.2)
    content = path.read_bytes()
    path.unlink()
    return content


def test_pictures_can_be_taken_away(viewer, page):
    press(page, "Export", "Rendered picture")
    rendered = iio.imread(downloaded(page, "small.png"), extension=".png")
    assert rendered.shape[:2] == (480, 768) and rendered.std() > 10
    viewer.panels.set_mode("nothing")
    viewer.display.mesh.show(True)
    wait_for(page, lambda picture: share_of(label_set().colors[CHAIR])(picture) > 0.1)
    press(page, "Screenshot")
    screenshot = iio.imread(downloaded(page, "small.png"), extension=".png")[..., :3]
    height, width = screenshot.shape[:2]  # the page itself lowers its resolution where it draws slowly
    assert height >= 200 and width / height == pytest.approx(1.6, abs=0.01)
    assert share_of(label_set().colors[CHAIR])(screenshot) > 0.1, "the mesh is on it"


def test_a_film_along_the_trajectory_can_be_taken_away(viewer, page, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    import imageio.v2

    viewer.panels.export.set_video(seconds=1, frames_per_second=5, rows="240")
    press(page, "Export", "Write video")
    file = tmp_path / "video.mp4"
    file.write_bytes(downloaded(page, "small.mp4"))
    with imageio.v2.get_reader(file) as reader:
        frames = [np.asarray(frame).astype(int) for frame in reader]
    assert len(frames) == 5 and frames[0].shape == (240, 320, 3)
    assert np.abs(frames[0] - frames[-1]).mean() > 3, "the camera moves"


def test_a_film_without_ffmpeg_is_refused_in_a_sentence(page, monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    press(page, "Export", "Write video")
    assert page.wait_for(page.shows("writing a video needs imageio-ffmpeg"), SECONDS)


def test_the_panel_has_figures_and_a_legend_for_each_mode(viewer, page):
    press(page, "View")
    assert page.wait_for(page.shows("12.34 dB"), SECONDS)
    legends = {"depth": "m or more", "alpha": "opaque", "SH gradient": "alike from everywhere", "annotation": "chair",
               "fused labels": "fused in the field", "fused confidence": "how sure the fused labels are",
               "colour": "what the field looks like"}  # fmt: skip
    for mode, text in legends.items():
        viewer.panels.set_mode(mode)
        assert page.wait_for(page.shows(text), SECONDS), mode


def test_fused_labels_are_drawn_in_the_classes_colours(viewer, page):
    """And named, though the mesh, of which the annotation's legend is, has no sofa."""
    assert SOFA not in viewer.display.mesh.classes
    press(page, "View")
    viewer.panels.set_mode("fused labels")
    assert page.wait_for(page.shows("sofa"), SECONDS)
    viewer.panels.set_mode("annotation")
    assert page.wait_for("!" + page.shows("sofa"), SECONDS)
    viewer.panels.set_mode("fused labels")
    sofa = label_set().colors[SOFA].astype(int)
    assert share_of(sofa)(wait_for(page, lambda picture: share_of(sofa)(picture) > 0.1)) > 0.1


def test_no_camera_is_in_the_way_at_first_and_more_can_be_shown(tmp_path):
    """Of 100 cameras 40 are drawn when their box is ticked, and all with "More cameras"."""
    class Server:
        def __init__(self):
            self.scene, self.nodes = self, []

        def add_camera_frustum(self, *_, **__):
            self.nodes.append(type("Node", (), {"visible": True, "on_click": lambda self, call: None})())
            return self.nodes[-1]

    server = Server()
    frusta = Frusta(server, [cameras("small", TRAJECTORY, 100, 2.5, [{}] * 100)], lambda *_: None)

    def shown():
        return sum(node.visible for node in server.nodes)

    assert shown() == 0 and frusta.thinned == {TRAJECTORY: (40, 100)}
    frusta.show(TRAJECTORY, True)
    assert shown() == 40
    frusta.show_more(True)
    assert shown() == 100
    frusta.show(TRAJECTORY, False)
    assert shown() == 0


def test_another_scene_can_be_chosen_and_one_that_cannot_be_loaded_leaves_the_first(tmp_path):
    pytest.importorskip("viser")
    from analysis.viewer.viewer import Viewer

    first = scene_state(tmp_path)
    other = replace(first, name="other", sources={}, mesh=None, predictors={}, semantic=None, figures=("other room",))

    def load(name):
        if name == "broken":
            raise UserError("it is broken")
        return other

    chooser = Viewer(first, port=8438, max_height=60, scenes=["small", "other", "broken"], load=load)
    try:
        with open_page(chooser.url) as page:
            assert page.wait_for("document.querySelector('canvas')", SECONDS)
            wait_for(page, lambda picture: picture.std() > 10)
            with pytest.raises(UserError, match="broken"):
                chooser.open_scene("broken")
            assert chooser.display.state is first and page.wait_for(page.shows("12.34 dB"), SECONDS)
            old = chooser.display
            chooser.open_scene("other")
            assert page.wait_for(page.shows("other room"), SECONDS)
            assert not page.wait_for(page.shows("12.34 dB"), 0.1)
            assert "fused labels" not in chooser.display.modes and not old.loop._thread.is_alive()
            wait_for(page, lambda picture: picture.std() > 10)
            assert not page.errors, page.errors
    finally:
        chooser.stop()


def test_server_is_bound_to_this_machine_only(viewer):
    assert viewer.url.startswith("http://127.0.0.1:")


def test_modes_that_lack_what_they_need_are_not_offered(viewer):
    assert "quality" not in viewer.display.modes and {"annotation", "prediction"} <= set(viewer.display.modes)
    with pytest.raises(ValueError, match="not offered"):
        viewer.panels.set_mode("quality")
