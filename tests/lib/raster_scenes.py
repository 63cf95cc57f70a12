"""Meshes and cameras that the rasterizer's tests share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.cameras import look_at, rigid_inverse

OCTAHEDRON = torch.tensor(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], dtype=torch.int32
)  # vertices +x -x +y -y +z -z


def octahedron(radii: Tensor) -> Tensor:
    """Vertices float32 ``[6, 3]`` on the axes at ``radii [6]``: closed, and seen whole from the origin."""
    axes = torch.eye(3).repeat_interleave(2, 0) * torch.tensor([1.0, -1.0] * 3)[:, None]
    return (axes * radii[:, None]).float()


def random_soup(num_vertices: int, num_faces: int, seed: int) -> tuple[Tensor, Tensor]:
    """Triangles in a cube of a few metres around the origin that pierce each other and surround the camera."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_vertices, 3, generator=generator),
        torch.randint(0, num_vertices, (num_faces, 3), generator=generator, dtype=torch.int32),
    )


def random_cameras(count: int, seed: int, spread: float = 0.5) -> Tensor:
    """World-to-camera float64 ``[count, 4, 4]`` near the origin that look anywhere."""
    generator = torch.Generator().manual_seed(seed)
    eye = torch.randn(count, 3, generator=generator, dtype=torch.float64) * spread
    return rigid_inverse(look_at(eye, eye + torch.randn(count, 3, generator=generator, dtype=torch.float64)))


def intrinsics(height: int, width: int, count: int = 1, skew: float = 0.0) -> Tensor:
    """float64 ``[count, 3, 3]`` with fx != fy and an off-centre principal point."""
    matrix = [[0.9 * width, skew, 0.42 * width], [0.0, 1.2 * height, 0.61 * height], [0.0, 0.0, 1.0]]
    return torch.tensor([matrix], dtype=torch.float64).repeat(count, 1, 1)


def image_camera() -> tuple[Tensor, Tensor]:
    """Camera and intrinsics under which a vertex (x, y, w) appears at pixel (x/w, y/w), depth w, without rounding."""
    return torch.eye(4, dtype=torch.float64)[None], torch.eye(3, dtype=torch.float64)[None]


def embree_hits(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Face (-1 = none) and distance of the first hit of each ray ``[N, 3]``, by Intel Embree."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(vertices.numpy()[faces.long().numpy()], dtype=np.float32))
    rays = [np.ascontiguousarray(tensor.numpy(), np.float32) for tensor in (origins, directions)]
    hits = scene.run(*rays, output=1)
    return torch.from_numpy(hits["primID"].astype(np.int64)), torch.from_numpy(hits["tfar"].astype(np.float64))
