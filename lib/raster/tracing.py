"""Ray tracing of triangle meshes: typed functions around ``torch.ops.raster``. What a camera with a lens sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.library import load_library
from lib.raster.reference_tracing import _trace
from utils.cameras import rigid_inverse, seen_pixels, view_directions
from utils.lenses import Lens

BACKENDS = ("auto", "reference", "cpu", "cuda")


class TracedRays(NamedTuple):
    """What rays hit first.

    face int32 ``[R]``, -1 = nothing; depth float32 ``[R]`` in lengths of the direction, 0 = nothing; barycentric
    float32 ``[R, 3]``, weights of the face's vertices, 0 = nothing.
    """

    face: Tensor
    depth: Tensor
    barycentric: Tensor


class RayTree:
    """A mesh made ready for rays: a tree of boxes, built on the CPU.

    Faces are double-sided. Rays do not slip through between faces that share an edge: the test is watertight, in double
    precision on the float32 vertices. Where several faces are equally near, the smallest index counts, so the result
    depends neither on the tree nor on the number of threads. Degenerate faces and faces with a vertex that is not
    finite show nothing.

    Args:
        vertices: float32 ``[Nv, 3]``.
        faces: int32 or int64 ``[F, 3]``, on the same device.

    Raises:
        IndexError: a face names a vertex that is not there.
    """

    def __init__(self, vertices: Tensor, faces: Tensor):
        _load_library()
        self._vertices = vertices.detach().float().contiguous()
        self._faces = faces.int().contiguous()
        nodes, order, bad_face = torch.ops.raster.build_tree(self._vertices.cpu(), self._faces.cpu())
        if (bad := int(bad_face)) >= 0:
            raise IndexError(f"face {bad} names a vertex that its mesh does not have")
        self._nodes, self._order = nodes.to(vertices.device), order.to(vertices.device)

    @property
    def device(self) -> torch.device:
        """Where rays are traced, and results lie."""
        return self._vertices.device

    def trace(self, origins: Tensor, directions: Tensor, near: float, backend: str = "auto") -> TracedRays:
        """The first face that each ray hits, not nearer than ``near``.

        Args:
            origins, directions: ``[R, 3]``, used in float64; directions of any length but 0, which is the unit of
                depth.
            near: in lengths of the direction.
            backend: "reference" (PyTorch), "cpu" (C++), "cuda"; "auto" follows the mesh's device.

        Raises:
            ValueError: an unknown backend, or one that is not the mesh's device.
        """
        device = self._vertices.device
        rays = [values.detach().to(device, torch.float64).contiguous() for values in (origins, directions)]
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r} is unknown; use one of {', '.join(BACKENDS)}")
        if backend == "reference":
            return TracedRays(*_trace(self._vertices, self._faces, *rays, near))
        if backend not in ("auto", device.type):
            raise ValueError(f"backend {backend!r} needs tensors on that device, but the vertices are on {device}")
        return TracedRays(*torch.ops.raster.trace(self._vertices, self._faces, self._nodes, self._order, *rays, near))


def trace_views(
    tree: RayTree, world_to_camera: Tensor, intrinsics: Tensor, size: tuple[int, int], near: float, lens: Lens,
    backend: str, outputs: Sequence[str],
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Face, depth and barycentric of views with a lens, as :func:`lib.raster.rasterize` returns them."""
    views, device = len(world_to_camera), tree.device
    face = torch.full((views, *size), -1, dtype=torch.int32, device=device)
    depth = torch.zeros((views, *size), device=device) if "depth" in outputs else None
    barycentric = torch.zeros((views, *size, 3), device=device) if "barycentric" in outputs else None
    poses, matrices = (values.detach().to(device, torch.float64) for values in (world_to_camera, intrinsics))
    for view, (pose, k) in enumerate(zip(rigid_inverse(poses), matrices, strict=True)):
        seen = seen_pixels(k, size, lens)
        directions = view_directions(k, size, lens)[seen] @ pose[:3, :3].T
        hits = tree.trace(pose[:3, 3].expand_as(directions), directions, near, backend)
        face[view][seen] = hits.face
        if depth is not None:
            depth[view][seen] = hits.depth
        if barycentric is not None:
            barycentric[view][seen] = hits.barycentric
    return face, depth, barycentric


@cache
def _load_library() -> None:
    load_library(Path(__file__).parent)
    torch.library.register_fake("raster::trace", _trace_fake)


def _trace_fake(vertices, faces, nodes, order, origins, directions, near):
    rays = origins.shape[0]
    torch._check(directions.shape[0] == rays)
    return (
        vertices.new_empty(rays, dtype=torch.int32), vertices.new_empty(rays), vertices.new_empty((rays, 3))
    )  # fmt: skip
