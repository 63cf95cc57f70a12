"""What nerfstudio adds to transforms.json: depth, masks, sparse points and lists of files; masks of other layouts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from dataloader import load_scene
from dataloader.verification import verify_scan
from utils.cameras import look_at
from utils.errors import UserError

SIZE = (24, 32)
EYES = torch.stack([torch.tensor([k * 0.1, -2.0, 0.1 * (k % 3)]) for k in range(6)]).double()
POSES = look_at(EYES, torch.zeros(6, 3).double()).numpy()


def write(folder, frame=lambda number: {}, **top):
    """Six photographs, each of one grey, and a transforms.json with more at its top and in each frame."""
    for name in ("images", "depth", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    frames = []
    for number in range(6):
        Image.new("RGB", SIZE[::-1], (40 * number,) * 3).save(folder / "images" / f"{number}.png")
        pose = POSES[number].copy()
        pose[:3, 1:3] *= -1
        frames.append({"file_path": f"images/{number}.png", "transform_matrix": pose.tolist(), **frame(number)})
    camera = {"fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0, "w": 32, "h": 24}
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames, **top}))
    return folder


def write_depth(folder, value=2000, size=SIZE):
    (folder / "depth").mkdir(parents=True, exist_ok=True)
    for number in range(6):
        Image.fromarray(np.full(size, value + number, np.uint16)).save(folder / "depth" / f"{number}.png")
    return lambda number: {"depth_file_path": f"depth/{number}.png"}


def write_masks(folder, name=lambda number: f"{number}.png"):
    """Black where a stranger stands: rows 4 to 11, columns 8 to 15."""
    mask = np.full(SIZE, 255, np.uint8)
    mask[4:12, 8:16] = 0
    for number in range(6):
        path = folder / "masks" / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return torch.from_numpy(mask > 0)


@pytest.mark.parametrize("scale, metres", [(None, 2.003), (0.001, 2.003), (0.0002, 0.4006)])
def test_depth_is_in_the_files_unit(tmp_path, scale, metres):
    top = {} if scale is None else {"depth_unit_scale_factor": scale}
    scene = load_scene(write(tmp_path / "a", write_depth(tmp_path / "a"), **top))
    assert scene.depth_size == SIZE and torch.equal(scene.depth_intrinsics, scene.intrinsics)
    torch.testing.assert_close(scene.read_depth(3), torch.full(SIZE, metres))
    assert load_scene(write(tmp_path / "b")).depth_size is None


def test_depth_of_a_phone_is_smaller_than_its_photographs(tmp_path):
    scene = load_scene(write(tmp_path, write_depth(tmp_path, size=(12, 16))))
    assert scene.depth_size == (12, 16) and float(scene.depth_intrinsics[0, 0]) == pytest.approx(15)
    torch.testing.assert_close(scene.read_depth(0, SIZE)[6:-6, 6:-6], torch.full((12, 20), 2.0))


def test_depth_that_cannot_be_read_costs_itself_alone(tmp_path):
    frame = write_depth(tmp_path)
    (tmp_path / "depth" / "2.png").write_bytes(b"no picture")
    scene = load_scene(write(tmp_path, frame))
    assert len(scene) == 6 and [path is None for path in scene.depth_paths] == [k == 2 for k in range(6)]
    assert any("1 depth maps are left out" in remark for remark in scene.remarks)


@pytest.mark.parametrize("wrong", ["0.001", 0, -1, True])
def test_a_wrong_unit_is_refused(tmp_path, wrong):
    with pytest.raises(UserError, match="depth_unit_scale_factor is"):
        load_scene(write(tmp_path, write_depth(tmp_path), depth_unit_scale_factor=wrong))


def test_the_lists_of_file_names_are_the_splits(tmp_path):
    names = [f"images/{number}.png" for number in range(6)]
    lists = {"train_filenames": names[:3], "val_filenames": ["./images/3.png"], "test_filenames": names[3:5]}
    scene = load_scene(write(tmp_path, **lists))
    assert scene.frames == ["0", "1", "2", "3", "4"] and scene.splits == ["train"] * 3 + ["val", "test"]
    assert any("1 frames are in none of the lists" in remark and "5.png" in remark for remark in scene.remarks)
    with pytest.raises(UserError, match="val_filenames is"):
        load_scene(write(tmp_path, val_filenames="images/0.png"))


def test_sparse_points_come_with_their_colours(tmp_path):
    vertex = np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    vertex["x"], vertex["red"] = [1, 2, np.nan], [10, 20, 30]
    folder = write(tmp_path, ply_file_path="sparse_pc.ply")
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(folder / "sparse_pc.ply"))
    points = load_scene(folder).points
    assert points.positions[:, 0].tolist() == [1, 2] and points.colors.tolist() == [[10, 0, 0], [20, 0, 0]]
    (folder / "sparse_pc.ply").unlink()
    with pytest.raises(UserError, match="sparse_pc.ply"):
        load_scene(folder)


@pytest.mark.parametrize(
    "listed, name",
    [(True, lambda number: f"{number}.png"), (False, lambda number: f"{number}.png"),
     (False, lambda number: f"{number}.png.png"), (False, lambda number: f"images/{number}.png"),
     (False, lambda number: f"images/{number}.png.png")],
)  # fmt: skip
def test_masks_are_listed_or_lie_under_the_images_name(tmp_path, listed, name):
    mask = write_masks(tmp_path, name)
    scene = load_scene(write(tmp_path, lambda number: {"mask_path": f"masks/{number}.png"} if listed else {}))
    assert torch.equal(scene.read_mask(2), mask)
    assert any("6 of 6 frames have masks (such as 0" in remark for remark in scene.remarks)
    half = scene.read_mask(2, (12, 16))  # pixels that are averaged across the mask's edge are not of the scene either
    assert not half[2:6, 4:8].any() and half[:, 10:].all() and half[8:].all()


def test_masks_belong_to_what_a_fit_is_made_from(tmp_path):
    from utils.identity import scan_inputs
    write_masks(tmp_path)
    scene = load_scene(write(tmp_path))
    assert len(scan_inputs(scene)["masks"].files) == 6
    assert "masks" not in scan_inputs(load_scene(write(tmp_path / "other")))


def test_a_mask_that_is_listed_and_missing_or_of_another_size_is_refused(tmp_path):
    with pytest.raises(UserError, match="masks/0.png does not exist"):
        load_scene(write(tmp_path, lambda number: {"mask_path": f"masks/{number}.png"}))
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match="masks/0.png is 5x5"):
        load_scene(write(tmp_path)).read_mask(0)
    assert [finding.text for finding in verify_scan(tmp_path) if finding.broken]


def test_pictures_in_masks_that_are_no_frames_masks_are_told(tmp_path):
    write_masks(tmp_path, lambda number: f"mask_{number}.png")
    scene = load_scene(write(tmp_path))
    assert scene.mask_paths is None
    told = [remark for remark in scene.remarks if remark.startswith("none of the 6 pictures in")]
    assert len(told) == 1 and "(such as mask_0.png)" in told[0] and "expected 0.png there for 0.png" in told[0]


@pytest.mark.parametrize("white, broken, text", [
    (1, 6, "masks/0.png holds 0 and 1, which are both black; expected 255"),
    (0, 1, "6 of 6 frames have a mask that leaves no pixel (such as frame 0)"),
])  # fmt: skip
def test_verify_calls_masks_that_leave_nothing_broken(tmp_path, white, broken, text):
    write_masks(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        mask = np.zeros(SIZE, np.uint8)
        mask[:4] = white
        Image.fromarray(mask).save(path)
    found = [finding.text for finding in verify_scan(write(tmp_path)) if finding.broken]
    assert len(found) == broken and text in found[0]
