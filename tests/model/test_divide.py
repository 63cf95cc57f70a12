"""One room as two scenes: no surface is labelled in both, every frame is in one, and cameras and pictures are kept."""

import math
from pathlib import Path

import gin
import pytest
import torch

from dataloader import load_mesh, load_scene
from model.divided_scene import Division
from model.task_divide import divide
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.errors import UserError


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    root = tmp_path_factory.mktemp("divided")
    write_scannet_scene(root / "whole/room", num_frames=12)
    return root, divide(str(root / "whole/room"), str(root / "scans"), margin=0.3)


@pytest.fixture(autouse=True)
def clean_config():
    yield
    gin.clear_config()


def test_the_plane_crosses_the_longer_axis_with_as_much_on_both_sides():
    """Points along y, turned by 30 degrees about z, of which z says nothing."""
    along = torch.linspace(-3, 5, 401, dtype=torch.float64)
    shuffled = torch.randperm(401, generator=torch.Generator().manual_seed(1))
    across = torch.linspace(-1, 1, 401, dtype=torch.float64)[shuffled]
    turn = math.radians(30)
    normal = torch.tensor([-math.sin(turn), math.cos(turn), 0.0], dtype=torch.float64)
    side = torch.tensor([math.cos(turn), math.sin(turn), 0.0], dtype=torch.float64)
    points = along[:, None] * normal + across[:, None] * side + torch.tensor([0.0, 0.0, 9.0]) * across[:, None]
    division = Division.of(points, 0.5)
    assert float(division.normal @ normal) == pytest.approx(1, abs=5e-3)
    assert division.offset == pytest.approx(1, abs=0.1)
    exact = Division(normal, 1.0, 0.5).halves(points)
    expected = torch.where(along < 0.5, 1, torch.where(along >= 1.5, 2, 0))
    away = ((along - 0.5).abs() > 1e-9) & ((along - 1.5).abs() > 1e-9)
    assert torch.equal(exact.long()[away], expected[away])


def test_every_label_is_in_one_half_or_within_the_margin(halves):
    root, facts = halves
    whole = load_mesh(root / "whole/room/room_vh_clean_2.labels.ply")
    a, b = (load_mesh(root / f"scans/room_{half}/room_{half}_vh_clean_2.labels.ply") for half in "ab")
    beyond = whole.vertices.double() @ torch.tensor(facts["normal"], dtype=torch.float64) - facts["offset"]
    assert abs(facts["normal"][0]) > 0.99 and facts["offset"] == pytest.approx(2, abs=0.51)  # 4 m along x
    assert torch.equal(a.vertices, whole.vertices) and torch.equal(b.faces, whole.faces)
    for mesh, inside in ((a, beyond < -0.3), (b, beyond >= 0.3)):
        assert torch.equal(mesh.labels, torch.where(inside, whole.labels, 0))
        assert mesh.labels.any()
    assert not ((a.labels > 0) & (b.labels > 0)).any()


def test_frames_are_in_the_half_that_they_show(halves):
    """The room's frames look outwards from its middle, so that the viewing direction decides."""
    root, facts = halves
    whole, a, b = (load_scene(root / path) for path in ("whole/room", "scans/room_a", "scans/room_b"))
    assert sorted([*a.frames, *b.frames], key=int) == whole.frames
    normal = torch.tensor(facts["normal"], dtype=torch.float64)
    for half, sign in ((a, -1), (b, 1)):
        towards = sign * (half.camera_to_world[:, :3, 2] @ normal)
        assert (towards > -0.3).all() and (towards > 0).sum() >= len(half) - 1
        assert facts[half.name[-1]]["frames"] == len(half)
        for number, frame in enumerate(half.frames):
            index = whole.frames.index(frame)
            assert torch.allclose(half.camera_to_world[number], whole.camera_to_world[index], atol=1e-8)
            assert torch.equal(half.read_color(number), whole.read_color(index))
            assert torch.equal(half.read_depth(number), whole.read_depth(index))
        assert torch.allclose(half.intrinsics, whole.intrinsics)
        assert torch.allclose(half.depth_to_color, whole.depth_to_color)


def test_along_is_the_other_axis(halves, tmp_path):
    root, facts = halves
    along = divide(str(root / "whole/room"), str(tmp_path), plane="along", margin=0.3)
    assert abs(along["normal"][1]) > 0.99 and along["offset"] == pytest.approx(1.5, abs=0.51)
    assert float(torch.tensor(along["normal"]) @ torch.tensor(facts["normal"])) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="divide.plane"):
        divide(str(root / "whole/room"), str(tmp_path), plane="up")


def test_it_is_not_divided_twice_and_not_otherwise(halves):
    root, _ = halves
    before = Path(root / "scans/room_a/settings.json").stat().st_mtime_ns
    plan = divide.plan(str(root / "whole/room"), str(root / "scans"), margin=0.3)
    assert plan.finished and len(plan.items) == 2
    plan.work()
    assert Path(root / "scans/room_a/settings.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="margin = 0.3 there, 0.1 now"):
        divide(str(root / "whole/room"), str(root / "scans"), margin=0.1)
    gin.bind_parameter("label_set.table", "configs/labels/nyu40.tsv")  # the plane is of its labelled vertices
    with pytest.raises(UserError, match="classes"):
        divide(str(root / "whole/room"), str(root / "scans"), margin=0.3)


def test_what_cannot_be_divided_is_named(tmp_path):
    write_scannet_scene(tmp_path / "room", num_frames=2, lost_frames=())
    with pytest.raises(UserError, match=r"divide.margin = -1"):
        divide(str(tmp_path / "room"), str(tmp_path / "scans"), margin=-1)
    with pytest.raises(UserError, match=r"no frame of .* shows more of the half"):
        (tmp_path / "room/pose/1.txt").unlink()
        divide(str(tmp_path / "room"), str(tmp_path / "scans"))
    (tmp_path / "room/room_vh_clean_2.labels.ply").unlink()
    with pytest.raises(UserError, match="labels.ply does not exist"):
        divide(str(tmp_path / "room"), str(tmp_path / "scans"))
