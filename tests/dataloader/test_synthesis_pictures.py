"""Pictures and camera paths of generated rooms: exact depth, gloss by material, free space, overlap."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dataloader.synthesis import PictureOptions, Shader, build_room, take_picture
from dataloader.synthesis.lighting import _CUBE_AXES, Illumination
from dataloader.synthesis.materials import LAMP_GLOW, PALETTES, MaterialTable, fabric, porcelain, repainted
from dataloader.synthesis.pictures import _shaded, moving_poses, noisy_pose
from tests.dataloader.synthesis_helpers import (
    PICTURE_OPTIONS,
    ROOM_OPTIONS,
    ROOMS,
    SEED,
    default_path,
    default_room,
    default_shader,
    faces_seen,
)
from utils.cameras import camera_rays, project
from utils.errors import UserError


def _picture(room, shader, pose, options, seed=0):
    return take_picture(room, shader, pose, options, np.random.default_rng(seed), np.random.default_rng(seed))


@pytest.mark.parametrize("index", [0, 3])
def test_depth_is_what_a_ray_caster_measures(index):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("embreex")
    room, pose = default_room(index), default_path(index)[5]
    picture = _picture(room, default_shader(index), pose, PICTURE_OPTIONS)
    origins, directions = camera_rays(
        torch.from_numpy(pose), torch.from_numpy(PICTURE_OPTIONS.intrinsics()), *PICTURE_OPTIONS.size
    )
    mesh = trimesh.Trimesh(room.vertices, room.faces, process=False)
    points, ray, _ = mesh.ray.intersects_location(
        origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy(), multiple_hits=False
    )
    expected = np.zeros(picture.depth.size)
    expected[ray] = (points - pose[:3, 3]) @ pose[:3, 2]
    error = np.abs(expected - picture.depth.ravel())
    assert (error < 1e-3).mean() > 0.995  # Embree itself lets a few rays through between triangles


def _shader_of_one_material(material) -> Shader:
    """A shader for a room whose surfaces are all of one material, evenly lit by one lamp."""
    room = default_room(3)
    room = dataclasses.replace(
        room, material=np.zeros_like(room.material), materials=MaterialTable.of([material])
    )
    count = len(room.vertices)
    light = Illumination(
        np.full((count, 3), 0.5, np.float32), np.ones((count, 1), np.float32),
        np.array([[room.size[0] / 2, room.size[1] / 2, 2.2]], np.float32), np.ones((1, 3), np.float32),
        np.full(3, 0.5, np.float32),
    )
    return Shader(room, light)


def test_gloss_depends_on_the_viewer_for_porcelain_and_not_for_cloth():
    room = default_room(3)
    floor = np.flatnonzero(room.labels[room.faces[:, 0]] == 2).astype(np.int32)
    middle = np.full((len(floor), 3), 1 / 3, np.float32)
    eyes = [np.array([x * room.size[0], 0.5 * room.size[1], 1.5]) for x in (0.2, 0.8)]
    glossy, matte = (_shader_of_one_material(material(np.random.default_rng(1))) for material in (porcelain, fabric))
    difference = [np.abs(s(floor, middle, eyes[0]) - s(floor, middle, eyes[1])) for s in (glossy, matte)]
    assert difference[0].max() > 0.1
    assert difference[1].max() == 0


def test_one_point_seen_from_two_frames_has_one_diffuse_colour():
    """Mesh vertices on cloth project to the same colour in every frame: poses, pixels and shading agree."""
    room, shader, poses = default_room(0), default_shader(0), default_path(0)
    options = dataclasses.replace(PICTURE_OPTIONS, size=(240, 320), noise=0.0)
    matte = np.flatnonzero((room.materials.gloss[room.material] == 0) & (room.materials.emission[room.material] == 0))
    seen = []
    for pose in poses[[0, 1]]:
        picture = _picture(room, shader, pose, options)
        uv, depth = project(torch.from_numpy(room.vertices[matte]).double(), torch.from_numpy(options.intrinsics()),
                            torch.from_numpy(pose))
        column, row = (uv.floor().long().clamp(-1, 400)).T.numpy()
        inside = (depth.numpy() > 0.1) & (column >= 0) & (row >= 0) & (column < 320) & (row < 240)
        color = np.full((len(matte), 3), np.nan)
        at = np.flatnonzero(inside)
        visible = at[np.abs(picture.depth[row[at], column[at]] - depth.numpy()[at]) < 0.02]
        color[visible] = picture.color[:, row[visible], column[visible]].T
        seen.append(color)
    both = np.isfinite(seen[0]).all(axis=1) & np.isfinite(seen[1]).all(axis=1)
    assert both.sum() > 200
    assert np.median(np.abs(seen[0][both] - seen[1][both])) <= 4  # of 255; a pixel is not a point


@pytest.mark.parametrize("index", range(ROOMS))
def test_cameras_walk_through_free_space(index):
    room, poses = default_room(index), default_path(index)
    eyes = poses[:, :3, 3]
    assert ((eyes[:, 2] >= 1.2) & (eyes[:, 2] <= 1.7)).all()
    assert (eyes[:, :2] > 0.3).all() and (eyes[:, :2] < np.array(room.size[:2]) - 0.3).all()
    assert cKDTree(room.vertices).query(eyes)[0].min() >= 0.3
    rotation = poses[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(rotation), 1)
    assert (rotation[:, 2, 1] < -0.4).all()  # the image's down is the world's down


@pytest.mark.parametrize("index", range(ROOMS))
def test_frames_overlap_and_cover_the_room(index):
    room = default_room(index)
    faces = faces_seen(room, default_path(index), PICTURE_OPTIONS)
    sets = [set(np.unique(frame)) for frame in faces]
    overlap = [len(a & b) / min(len(a), len(b)) for a, b in zip(sets[:-1], sets[1:], strict=True)]
    assert np.median(overlap) > 0.35
    views = np.bincount(np.concatenate([np.unique(frame) for frame in faces]), minlength=len(room.faces))
    floor = room.labels[room.faces[:, 0]] == 2
    assert (views[floor] >= 1).mean() > 0.35  # furniture hides much of it
    assert np.median(views[views > 0]) >= 2


def test_noise_and_depth_holes_are_options():
    room, shader, pose = default_room(0), default_shader(0), default_path(0)[0]
    clean = dataclasses.replace(PICTURE_OPTIONS, noise=0.0)
    pictures = [_picture(room, shader, pose, clean, seed) for seed in (0, 1)]
    assert np.array_equal(pictures[0].color, pictures[1].color)
    noisy = _picture(room, shader, pose, dataclasses.replace(clean, noise=0.05))
    spread = (noisy.color.astype(float) - pictures[0].color)[:, noisy.color.min(axis=0) > 60].std() / 255
    assert spread == pytest.approx(0.05, rel=0.25)
    holes = 0
    for pose in default_path(0):
        depth = _picture(room, shader, pose, dataclasses.replace(clean, depth_holes=True)).depth
        holes += (depth == 0).sum()
    assert holes > 0


def test_intrinsics_are_slightly_off_centre_and_not_square():
    matrix = PictureOptions(size=(240, 320), field_of_view=60.0).intrinsics()
    assert matrix[0, 0] == pytest.approx(160 / np.tan(np.pi / 6))
    assert matrix[0, 0] != matrix[1, 1]
    assert matrix[0, 2] != 160 and matrix[1, 2] != 120


def test_shadow_cubes_cameras_are_right_handed():
    assert np.allclose(np.cross(_CUBE_AXES[:, 0], _CUBE_AXES[:, 1]), _CUBE_AXES[:, 2])


@pytest.mark.parametrize("bad", [{"size": (0, 5)}, {"frames": 0}, {"field_of_view": 500.0}, {"lost_share": 1.5}])
def test_bad_options_are_refused(bad):
    with pytest.raises(UserError, match="PictureOptions"):
        PictureOptions(**bad)


def test_exposure_scales_light_and_motion_blurs_along_the_turn():
    room, shader, pose = default_room(0), default_shader(0), default_path(0)[0]
    clean = dataclasses.replace(PICTURE_OPTIONS, noise=0.0, size=(120, 160))
    still = _picture(room, shader, pose, clean)
    exposed = dataclasses.replace(clean, exposure=0.5)
    stops = 0.5 * np.random.default_rng(3).standard_normal()
    bright = _picture(room, shader, pose, exposed, seed=3).color.astype(float)
    usable = (still.color > 20) & (still.color < 160) & (bright < 250)
    ratio = (bright[usable] / still.color[usable]) ** 2
    assert np.median(ratio) == pytest.approx(2**stops, rel=0.02)
    blurred = _picture(room, shader, pose, dataclasses.replace(clean, motion_blur=3.0), seed=1)
    hand = np.random.default_rng(1)
    hand.standard_normal()  # the exposure
    intrinsics = torch.from_numpy(clean.intrinsics())
    lights = [_shaded(room, shader, each, intrinsics, clean.size, None) for each in moving_poses(pose, 3.0, hand)]
    expected = 255 * np.sqrt(np.clip(np.mean(lights, axis=0), 0, 1)).transpose(2, 0, 1)
    assert np.abs(blurred.color - expected).max() < 0.51
    assert np.abs(lights[0] - lights[-1]).mean() > 0.01
    assert np.array_equal(still.depth, blurred.depth)


def test_a_moving_camera_turns_about_its_own_centre_and_poses_err_as_asked():
    pose = default_path(0)[3]
    moving = moving_poses(pose, 2.0, np.random.default_rng(0))
    assert np.allclose(np.mean([each[:3, 2] for each in moving], axis=0), pose[:3, 2], atol=1e-3)
    assert all(np.array_equal(each[:3, 3], pose[:3, 3]) for each in moving)
    hand = np.random.default_rng(0)
    errors = [noisy_pose(pose, (0.02, 1.5), hand) for _ in range(400)]
    moved = np.array([error[:3, 3] - pose[:3, 3] for error in errors])
    turned = [Rotation.from_matrix(pose[:3, :3].T @ error[:3, :3]).as_rotvec(degrees=True) for error in errors]
    assert moved.std() == pytest.approx(0.02, rel=0.1) and np.std(turned) == pytest.approx(1.5, rel=0.1)


def test_palettes_share_nothing_and_gloss_stays():
    first, second = PALETTES["first"], PALETTES["second"]
    assert not set(first.patterns) & set(second.patterns)
    bands = sorted([(*band, "first") for band in first.hues] + [(*band, "second") for band in second.hues])
    assert all(a[1] < b[0] for a, b in zip(bands, bands[1:], strict=False))
    material = porcelain(np.random.default_rng(0))
    changed = repainted(material, first, np.random.default_rng(1))
    assert changed.pattern in first.patterns and changed.color != material.color
    assert (changed.gloss, changed.shininess) == (material.gloss, material.shininess)
    assert repainted(LAMP_GLOW, first, np.random.default_rng(1)) == LAMP_GLOW


def test_repainting_changes_the_share_asked_for_and_nothing_else():
    plain, painted = default_room(0), build_room(SEED, 0, dataclasses.replace(ROOM_OPTIONS, repainted=1.0))
    assert np.array_equal(plain.vertices, painted.vertices) and np.array_equal(plain.labels, painted.labels)
    assert np.array_equal(plain.materials.gloss, painted.materials.gloss)
    changed = (plain.materials.color != painted.materials.color).any(axis=1)
    shows = np.isin(plain.materials.pattern, ("landscape", "blocks", "outdoors", "screen"))
    assert np.array_equal(changed, ~shows & (plain.materials.emission == 0))
