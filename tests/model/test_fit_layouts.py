"""Fits of captures without depth: objects with and without a box, rooms with sparse points, and with cameras alone."""

from dataclasses import replace

import pytest
import torch

from dataloader import load_scene
from model import PlenoxelGrid
from model.capture import NEAR_METRES, CaptureModel
from model.fitting.extent import camera_nearness, choose_start, place_scene, surface_points
from model.fitting.fitter import FitOptions, Fitter
from model.fitting.frames import load_training_frames, split_frames
from model.fitting.options import FitBackground, FitData, FitGrid, FitOpen, FitOptimization, FitRegularization
from model.fitting.placement import Placement
from model.fitting.preparation import prepare_fitter
from model.fitting.scene_fit import FitSettings, fit_scene
from model.fitting.silhouettes import visual_hull
from tests.dataloader.scannet_fixture import ROOM, write_scannet_scene
from tests.dataloader.scene_exports import transforms, write_colmap, write_nsvf, write_transforms
from tests.model.object_fixture import CENTER, HALF_SIDES, object_capture, room_capture
from utils.errors import UserError

CPU = torch.device("cpu")
DATA = FitData(holdout_every=6)
NAMES = [str(number) for number in range(11)]
OPTIONS = FitOptions(
    FitGrid(resolutions=(24, 48)),
    FitOptimization(steps=(64, 96), rays_per_step=(1500,), density_rate=(3.0, 1.0), sh_rate=(3e-2, 3e-3)),
    FitRegularization(),
    background=FitBackground(rows=16),
)
LOWER, UPPER = (torch.tensor(CENTER).double() + sign * torch.tensor(HALF_SIDES).double() for sign in (-1, 1))


@pytest.fixture(scope="module")
def capture():
    return object_capture()


@pytest.fixture(scope="module")
def room():
    return room_capture()


def placed(folder, start="auto", space=2.0):
    scene = load_scene(folder)
    frames = load_training_frames(scene, DATA, CPU)
    start = choose_start(scene, frames, start)
    cloud = surface_points(scene, frames, FitGrid(), start)
    return start, place_scene(scene, frames, cloud, start, space), frames


def fitted(folder, output, options=OPTIONS):
    return fit_scene(folder, output, FitSettings(DATA, options), CPU)


def test_object_in_its_box(capture, tmp_path):
    box = [*(LOWER - 0.05).tolist(), *(UPPER + 0.05).tolist()]
    results = fitted(write_nsvf(tmp_path / "block", capture, box), tmp_path / "field")
    assert results["psnr"] > 22 and list(results["held_out"]) == ["0", "6", "12", "18", "24"]
    assert results["voxel_metres"] == pytest.approx((1.3 / 0.96) / 48, rel=1e-6)  # the box's longest side is 1.3


def test_object_that_only_its_transparency_bounds(capture, tmp_path):
    results = fitted(write_transforms(tmp_path / "block", capture), tmp_path / "field")
    assert results["psnr"] > 20
    assert CaptureModel.load(tmp_path / "field") is None  # no exposure: it would apply to the background as well


def test_an_alpha_channel_that_hides_nothing_is_no_transparency(room, tmp_path):
    opaque = [torch.cat((image, torch.full_like(image[:1], 255))) for image in room.images]
    _, _, frames = placed(write_transforms(tmp_path / "rgba", replace(room, images=opaque)))
    _, _, plain = placed(write_transforms(tmp_path / "rgb", room))
    assert frames.alphas is None and torch.equal(frames.images, plain.images)


def test_room_from_sparse_points(room, tmp_path):
    results = fitted(write_colmap(tmp_path / "room", room), tmp_path / "field")
    assert results["psnr"] > 24
    model = CaptureModel.load(tmp_path / "field")
    assert 0 < model.near != NEAR_METRES and not model.moved  # no metres, and poses that were not tracked stay


def test_room_from_cameras_alone(room, tmp_path, caplog):
    grid = replace(OPTIONS.grid, camera_space=6.0)
    results = fitted(write_transforms(tmp_path / "room", room), tmp_path / "field", replace(OPTIONS, grid=grid))
    assert results["psnr"] > 20 and "neither depth, points, a box nor transparency" in caplog.text


@pytest.mark.parametrize("transparent", [False, True])
def test_what_differs_where_nothing_bounds_the_scene(capture, tmp_path, transparent):
    shown = capture if transparent else replace(capture, images=[image[:3] for image in capture.images])
    scene = load_scene(write_transforms(tmp_path / "block", shown))
    given = FitOptions(
        FitGrid(resolutions=(8, 16)), FitOptimization(steps=(1, 1)),
        FitRegularization(tv_density=(1.0, 2.0), tv_sh=(3.0, 5.0), depth=9.0, free_space=6.0, free_space_margin=4.0),
        background=FitBackground(rows=2),
        open=FitOpen(variation=(10.0, 2.0), near_weight=0.07, density_rate=(8.0, 4.0)),
    )  # fmt: skip
    fitter, _ = prepare_fitter(scene, load_training_frames(scene, DATA, CPU), DATA, given)
    fitted = fitter.options.regularization
    if transparent:
        assert fitted == given.regularization and fitter.rates() == pytest.approx((1.5, 3e-2))
        return
    assert fitted.tv_density == (10.0, 4.0) and fitted.tv_sh == (30.0, 10.0)
    assert (fitted.depth, fitted.free_space, fitted.free_space_margin) == (0.0, 0.07, 0.0)
    assert fitter.rates() == pytest.approx((8.0 * 8 / 256, 3e-2))


def test_what_nested_grids_cannot_be_saved_as_is_refused_before_the_fit(room, tmp_path):
    settings = FitSettings(DATA, replace(OPTIONS, optimization=replace(OPTIONS.optimization, steps=(10**9, 1))), bits=4)
    with pytest.raises(UserError, match=r"fit.bits = 4: .*use one of these, or FitOpen.nested = 1"):
        fit_scene(write_transforms(tmp_path / "room", room), tmp_path / "field", settings, CPU)


def test_background_of_the_rendering_options_is_what_is_fitted(capture, tmp_path):
    options = replace(OPTIONS, rendering=replace(OPTIONS.rendering, background_brightness=0.0))
    results = fitted(write_transforms(tmp_path / "block", capture), tmp_path / "field", options)
    assert results["psnr"] > 20


def test_hull_holds_the_object_and_little_more(capture, tmp_path):
    folder = write_transforms(tmp_path / "block", capture)
    start, placement, frames = placed(folder)
    assert start == "dense" and (placement.lower <= LOWER).all() and (placement.upper >= UPPER).all()
    assert ((placement.upper - placement.lower) < 2 * (UPPER - LOWER)).all()
    cube = Placement(torch.full((3,), -1.5).double(), torch.full((3,), 1.5).double())
    transform = cube.transform()
    hull = visual_hull(frames, transform.to_grid(frames.camera_to_world), 40)
    axis = (torch.arange(40) + 0.5) * 2 / 40 - 1
    middles = transform.points_from_grid(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)).double()
    inside = ((middles >= LOWER) & (middles <= UPPER)).all(-1)
    assert hull[inside].all() and 0.05 < hull.float().mean() < 0.35  # the block alone is 0.06 of the cube


def test_placement_does_not_depend_on_the_unit(capture, tmp_path):
    _, one, frames = placed(write_transforms(tmp_path / "one", capture))
    _, large, large_frames = placed(write_transforms(tmp_path / "large", object_capture(scale=250.0)))
    torch.testing.assert_close(large.lower, one.lower * 250)
    torch.testing.assert_close(large.upper, one.upper * 250)
    scene = load_scene(tmp_path / "one")
    near = camera_nearness(scene, frames.camera_to_world)
    assert camera_nearness(scene, large_frames.camera_to_world) == pytest.approx(250 * near)


def test_stated_boxes(capture, tmp_path):
    opaque = replace(capture, images=[image[:3] for image in capture.images])
    small = write_transforms(tmp_path / "small", opaque, {**transforms(opaque), "aabb_scale": 1})
    _, placement, _ = placed(small)
    assert placement.upper.tolist() == pytest.approx([0.5 / 0.33] * 3)
    huge = write_transforms(tmp_path / "huge", opaque, {**transforms(opaque), "aabb_scale": 64})
    _, placement, _ = placed(huge)
    # Cameras look at the middle of the world from 3 away.
    assert placement.upper.tolist() == pytest.approx([6.0] * 3, abs=1e-3)


def test_far_points_do_not_blow_up_the_grid(room, tmp_path):
    start, placement, _ = placed(write_colmap(tmp_path / "room", room))
    assert start == "points"
    size = torch.tensor(ROOM).double()
    assert (placement.lower < 0.05 * size).all() and (placement.upper[:2] > 0.95 * size[:2]).all()
    assert placement.upper[2] > 1.7  # as high as the cameras see
    assert (placement.lower > -0.6 * size).all() and (placement.upper < 1.6 * size).all()


def test_outward_looking_cameras_stand_in_the_middle(room, tmp_path):
    start, placement, _ = placed(write_transforms(tmp_path / "room", room), space=5.0)
    assert start == "dense"
    assert placement.middle.tolist() == pytest.approx([2.0, 1.5, 1.3], abs=0.1)
    assert (placement.upper - placement.lower).tolist() == pytest.approx([2 * 5 * 0.4] * 3, rel=0.1)


def test_starts_that_have_no_data_are_refused(capture, tmp_path):
    folder = write_transforms(tmp_path / "block", capture)
    for start, message in (("points", "no points of a structure from motion"), ("depth", "no depth measurements"),
                           ("mesh", "vh_clean_2.ply does not exist")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            placed(folder, start)
    assert placed(write_scannet_scene(tmp_path / "scene0000_00"))[0] == "depth"


def test_splits_of_the_dataset():
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    assert split_frames(NAMES, FitData(), splits) == ([0, 1, 2, 3, 4, 5], [8, 9, 10])
    assert split_frames(NAMES[:8], FitData(), splits[:8]) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert split_frames(NAMES, FitData(holdout_every=0), splits) == (list(range(11)), [])
    assert split_frames(NAMES[:4], FitData(holdout_every=2), ["test"] * 4) == ([1, 3], [0, 2])


def test_stopping_changes_nothing_with_random_backgrounds(capture, tmp_path):
    _, placement, frames = placed(write_transforms(tmp_path / "block", capture))
    short = replace(OPTIONS.optimization, steps=(32, 32), rays_per_step=(500,))
    options = replace(OPTIONS, grid=FitGrid(resolutions=(16, 24)), optimization=short)
    whole, first, second = (Fitter(frames, placement, None, options, seed) for seed in (0, 0, 9))
    whole.run()
    first.run(stop_at=16)
    first.save(tmp_path / "state.ckpt")
    second.load(tmp_path / "state.ckpt")
    second.run()
    assert torch.equal(whole.grid.density, second.grid.density) and torch.equal(whole.grid.sh, second.grid.sh)


def test_exposures_of_metric_scenes_are_as_near_as_ever(tmp_path):
    scene = load_scene(write_scannet_scene(tmp_path / "scene0000_00"))
    assert camera_nearness(scene, scene.camera_to_world) == NEAR_METRES


def test_layers_behind_transparent_pictures_are_refused(capture, tmp_path):
    options = replace(OPTIONS, background=FitBackground(layers=4))
    with pytest.raises(UserError, match=r"images with transparency.*FitBackground.layers = 4; use 0 or None"):
        fitted(write_transforms(tmp_path / "block", capture), tmp_path / "field", options)


def test_a_scene_without_an_edge_gets_layers_and_one_with_depth_does_not(room, tmp_path):
    opaque = write_transforms(tmp_path / "room", room)
    short = replace(OPTIONS, optimization=FitOptimization(steps=(1, 1), rays_per_step=(10,)),
                    background=FitBackground(rows=4))  # fmt: skip
    results = fitted(opaque, tmp_path / "field", short)
    assert results["background_layers"] == 4
    assert PlenoxelGrid.load(tmp_path / "field").background.texture.shape == (4, 8, 4, 4)
    scan = write_scannet_scene(tmp_path / "scene0000_00", size=(30, 40), num_frames=8)
    assert fitted(scan, tmp_path / "other", short)["background_layers"] == 0
    assert PlenoxelGrid.load(tmp_path / "other").background is None
