"""Camera lists: what is written comes back to the last digit."""

import json

import pytest
import torch

from dataloader import CameraList
from utils.errors import UserError


@pytest.fixture
def cameras() -> CameraList:
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor([[577.87, 0.0, 319.5], [0.0, 578.3, 239.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return CameraList(
        "scene0000_00",
        ["0", "2", "10"],
        torch.randn(3, 4, 4, dtype=torch.float64, generator=generator),
        intrinsics,
        (480, 640),
        [{"accepted": True}, {"accepted": False, "reason": "2% bathtub"}, {}],
    )


def test_json_round_trip_is_exact(cameras, tmp_path):
    cameras.save(tmp_path / "scene.json")
    loaded = CameraList.load(tmp_path / "scene.json")
    assert torch.equal(loaded.camera_to_world, cameras.camera_to_world)
    assert torch.equal(loaded.intrinsics, cameras.intrinsics)
    assert (loaded.names, loaded.info, loaded.image_size) == (cameras.names, cameras.info, (480, 640))


def test_resizing_scales_rows_separately(cameras):
    small = cameras.resized((124, 124))
    assert small.image_size == (124, 124)
    assert small.intrinsics[0, 0, 0] == pytest.approx(577.87 * 124 / 640)
    assert small.intrinsics[0, 1, 1] == pytest.approx(578.3 * 124 / 480)
    assert small.intrinsics[0, 2, 2] == 1


def test_select_by_index_and_by_mask(cameras):
    assert cameras.select([2, 0]).names == ["10", "0"]
    assert cameras.select(cameras.accepted()).names == ["0", "10"]
    assert len(cameras.select([])) == 0


def test_an_empty_list_survives_the_file(cameras, tmp_path):
    cameras.select([]).save(tmp_path / "empty.json")
    assert CameraList.load(tmp_path / "empty.json").camera_to_world.shape == (0, 4, 4)


@pytest.mark.parametrize("text", ["{", "[]", '{"scene": "a", "image_size": [1, 2], "cameras": [{"name": "0"}]}'])
def test_damaged_file_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match="bad.json"):
        CameraList.load(tmp_path / "bad.json")


def _edit(**changes):
    def change(content):
        content["cameras"][1].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_edit(name="../../x"), "'../../x' cannot be a camera's name"),
        (_edit(name="a/b"), "'a/b' cannot be a camera's name"),
        (_edit(name=7), "7 cannot be a camera's name"),
        (lambda content: content.update(scene="/etc"), "'/etc' cannot be a scene's name"),
        (_edit(camera_to_world=[[float("nan")] * 4] * 4), "camera_to_world of camera 1 holds NaN"),
        (_edit(camera_to_world=[[1e999] * 4] * 4), "camera_to_world of camera 1 holds NaN or infinity"),
        (_edit(camera_to_world=[[10**400] * 4] * 4), "OverflowError"),
        (_edit(camera_to_world=[[1], [1, 2]]), "ValueError"),
        (_edit(intrinsics=[[float("inf"), 0, 1], [0, 1, 1], [0, 0, 1]]), "intrinsics of camera 1"),
        (_edit(intrinsics=[[0.0] * 3] * 3), "focal length"),
        (_edit(info="x"), "ValueError"),
        (_edit(info=[1]), "TypeError"),
        (lambda content: content.update(image_size=[float("inf")] * 2), "image_size"),
        (lambda content: content.update(image_size=[0, 5]), "image_size"),
        (lambda content: content.update(image_size=[10**12, 5]), "image_size"),
        (lambda content: content.update(image_size=7), "TypeError"),
        (lambda content: content.update(cameras={}), "TypeError: cameras is {}"),
        (lambda content: content.update(cameras=None), "TypeError"),
    ],
)
def test_values_that_no_camera_has_are_refused(cameras, tmp_path, change, message):
    content = cameras.to_json()
    change(content)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        CameraList.load(tmp_path / "bad.json")
    assert str(tmp_path / "bad.json") in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, '{"scene": ' * 20_000, "\ufeff{", "\0"])
def test_text_that_breaks_a_json_reader_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match="bad.json cannot be read as valid JSON"):
        CameraList.load(tmp_path / "bad.json")
