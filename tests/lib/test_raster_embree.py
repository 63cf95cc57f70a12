"""The rasterizer against Intel Embree, which traces rays and shares no code or idea with it."""

import numpy as np
import pytest
import torch

from benchmarks.room_mesh import room_cameras, room_mesh
from dataloader import load_mesh, load_scannet_scene
from lib.raster import rasterize
from tests.lib.raster_scenes import embree_hits, intrinsics
from utils.cameras import camera_rays, ray_length_to_depth, rigid_inverse

pytest.importorskip("embreex")


def inside_faces(face):
    """Pixels ``[H, W]`` whose eight neighbours show the same face: none lies within a pixel of an edge."""
    same = torch.zeros_like(face, dtype=torch.bool)
    windows = face.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2)
    same[1:-1, 1:-1] = (windows == face[1:-1, 1:-1, None]).all(-1)
    return same


def assert_agrees(vertices, faces, camera_to_world, k, height, width):
    frags = rasterize(vertices, faces, torch.linalg.inv(camera_to_world), k, height, width, near=1e-3)
    compared = agreed = 0
    for view in range(len(camera_to_world)):
        origins, directions = camera_rays(camera_to_world[view], k[view], height, width)
        face, distance = embree_hits(vertices, faces, origins.reshape(-1, 3), directions.reshape(-1, 3))
        face, distance = face.reshape(height, width), distance.reshape(height, width)
        inside = inside_faces(frags.face[view])
        same = inside & (face == frags.face[view])
        compared, agreed = compared + int(inside.sum()), agreed + int(same.sum())
        hit = same & (face >= 0)
        depth = ray_length_to_depth(distance, k[view])
        error = (depth - frags.depth[view]).abs() / depth
        assert error[hit].max() < 1e-4
    assert compared > 0.2 * frags.face.numel()
    assert agreed >= 0.9995 * compared


def test_generated_room():
    vertices, faces = room_mesh(20_000)
    height, width = 300, 400
    assert_agrees(vertices, faces, rigid_inverse(room_cameras(6)), intrinsics(height, width, 6), height, width)


def test_real_capture(shared_dir):
    scene = load_scannet_scene(shared_dir / "hololens_room")
    mesh = load_mesh(scene.mesh_path)
    frames = np.linspace(0, len(scene.frames) - 1, 6).astype(int).tolist()
    cameras = scene.cameras((968, 1296), frames)
    assert_agrees(mesh.vertices, mesh.faces, cameras.camera_to_world, cameras.intrinsics, *cameras.image_size)
