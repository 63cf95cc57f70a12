"""Triangle rasterization: typed functions around ``torch.ops.raster``.

Cameras are OpenCV (x right, y down, z forward), pixel centres lie at +0.5, depth is along the optical axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.library import load_library
from lib.raster.reference import _rasterize
from lib.raster.tracing import RayTree, trace_views
from utils.lenses import Lens

_LEAST_FLOAT, _LARGEST_FLOAT = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
LARGEST_IMAGE = 16384  # pixels a side: the drivers' bounding boxes are in float32


class Fragments(NamedTuple):
    """What each pixel shows; fields that were not asked for are None.

    Attributes:
        face: int32 ``[B, H, W]``, index into the faces given, -1 where nothing is hit.
        depth: float32 ``[B, H, W]``, metres along the optical axis (along the ray with a fisheye lens), 0 where nothing
            is hit.
        barycentric: float32 ``[B, H, W, 3]``, perspective-correct weights of the face's vertices, 0 where
            nothing is hit.
    """

    face: Tensor
    depth: Tensor | None
    barycentric: Tensor | None


class PackedMeshes(NamedTuple):
    """Several meshes one after the other; faces index into all vertices."""

    vertices: Tensor  # [Nv, 3] float32
    faces: Tensor  # [F, 3]
    vertex_offsets: Tensor  # [M + 1] int64: mesh m has vertices vertex_offsets[m] to vertex_offsets[m + 1]
    face_offsets: Tensor  # [M + 1] int64


def pack_meshes(meshes: Sequence[tuple[Tensor, Tensor]]) -> PackedMeshes:
    """Concatenate meshes given as (vertices ``[Nv, 3]``, faces ``[F, 3]``) for :func:`rasterize`."""
    vertex_counts = torch.tensor([0] + [len(vertices) for vertices, _ in meshes])
    face_counts = torch.tensor([0] + [len(faces) for _, faces in meshes])
    vertex_offsets, face_offsets = vertex_counts.cumsum(0), face_counts.cumsum(0)
    faces = [mesh_faces + int(first) for (_, mesh_faces), first in zip(meshes, vertex_offsets, strict=False)]
    return PackedMeshes(
        torch.cat([vertices for vertices, _ in meshes]), torch.cat(faces), vertex_offsets, face_offsets
    )


def rasterize(
    vertices: Tensor,  # [Nv, 3] float32
    faces: Tensor,  # [F, 3] int32 or int64
    world_to_camera: Tensor,  # [B, 4, 4]
    intrinsics: Tensor,  # [B, 3, 3]
    height: int,
    width: int,
    near: float = 0.01,
    backend: str = "auto",
    *,
    outputs: Sequence[str] = ("face", "depth", "barycentric"),
    mesh_index: Tensor | None = None,  # [B] int64
    vertex_offsets: Tensor | None = None,  # [M + 1] int64
    face_offsets: Tensor | None = None,  # [M + 1] int64
    lens: Lens | None = None,
    faces_checked: bool = False,
    tree: RayTree | None = None,
) -> Fragments:
    """The nearest face at each pixel centre.

    Faces are double-sided. A centre on an edge belongs to one face only (top-left rule), with no rounding in the
    decision, so a closed mesh has no holes. Equal depths go to the smaller face index. Degenerate faces and faces
    with a vertex that is not finite show nothing. The result does not depend on the number of threads, the
    order of faces, or what else is in the batch. Not differentiable.

    Args:
        vertices: metres, world frame.
        faces: vertex indices.
        world_to_camera: rigid transforms; any floating dtype, used in float64.
        intrinsics: in pixels of an image of ``height`` x ``width``; the last row is taken to be (0, 0, 1). Off-centre
            principal points, fx != fy and skew are fine.
        near: metres; surfaces closer along the optical axis are invisible, decided pixel by pixel.
        backend: ``"reference"`` (PyTorch), ``"cpu"`` (C++), ``"cuda"``; ``"auto"`` follows the vertices' device.
        outputs: which of face, depth and barycentric to compute; face is always there.
        mesh_index: which mesh each view shows, for several meshes in one call (see :func:`pack_meshes`, which
            also gives the two offsets). Without it, every view shows all faces.
        lens: of all views; None for pinholes. With one, each pixel's own ray is traced: edges of faces are as curved as
            the lens shows them. Depth, and ``near``, are the lens's (:mod:`utils.lenses`); pixels that it does not see
            show nothing. A ray through an edge belongs to the nearer face, then to the smaller index.
        faces_checked: the caller knows that faces name vertices of their mesh. Nothing then waits for a GPU; a face
            that names none shows nothing.
        tree: of these vertices and faces, made once for many calls with a lens; None makes one.

    Raises:
        ValueError: shapes, sizes or names do not fit, or there are a lens and several meshes.
        IndexError: a face names a vertex that its mesh does not have.
    """
    _check(vertices, faces, world_to_camera, intrinsics, height, width, near, outputs)
    if lens is not None:
        if mesh_index is not None:
            raise ValueError("views with a lens show one mesh a call: call once for each mesh")
        return Fragments(*trace_views(
            tree or RayTree(vertices, faces), world_to_camera, intrinsics, (height, width), near, lens, backend, outputs
        ))  # fmt: skip
    mesh_ranges = _mesh_ranges(len(world_to_camera), vertices, faces, mesh_index, vertex_offsets, face_offsets)
    arguments = (
        vertices.detach().float().contiguous(),
        faces.contiguous(),
        world_to_camera.detach().to(vertices.device, torch.float64).contiguous(),
        intrinsics.detach().to(vertices.device, torch.float64).contiguous(),
        mesh_ranges,
        height,
        width,
        near,
        "depth" in outputs,
        "barycentric" in outputs,
    )
    face, depth, barycentric, bad_face = _implementation(backend, vertices.device)(*arguments)
    if not faces_checked and (bad := int(bad_face)) >= 0:
        raise IndexError(f"face {bad} names a vertex that its mesh does not have")
    return Fragments(
        face, depth if "depth" in outputs else None, barycentric if "barycentric" in outputs else None
    )


def _implementation(backend: str, device: torch.device):
    if backend == "reference":
        return _rasterize
    if backend not in ("auto", "cpu", "cuda"):
        raise ValueError(f"backend {backend!r} is unknown; use 'auto', 'reference', 'cpu' or 'cuda'")
    if backend not in ("auto", device.type):
        raise ValueError(f"backend {backend!r} needs tensors on that device, but the vertices are on {device}")
    _load_library()
    return torch.ops.raster.rasterize


@cache
def _load_library() -> None:
    load_library(Path(__file__).parent)
    torch.library.register_fake("raster::rasterize", _rasterize_fake)


def _rasterize_fake(
    vertices, faces, world_to_camera, intrinsics, mesh_ranges, height, width, near, with_depth, with_barycentric
):
    torch._check(vertices.dim() == 2 and vertices.shape[1] == 3)
    torch._check(faces.dim() == 2 and faces.shape[1] == 3)
    views = world_to_camera.shape[0]
    torch._check(intrinsics.shape[0] == views and mesh_ranges.shape[0] in (1, views))
    return (
        vertices.new_empty((views, height, width), dtype=torch.int32),
        vertices.new_empty((views if with_depth else 0, height, width)),
        vertices.new_empty((views if with_barycentric else 0, height, width, 3)),
        vertices.new_empty(1, dtype=torch.int64),
    )


def _mesh_ranges(
    views: int,
    vertices: Tensor,
    faces: Tensor,
    mesh_index: Tensor | None,
    vertex_offsets: Tensor | None,
    face_offsets: Tensor | None,
) -> Tensor:
    """First vertex, end of vertices, first face, end of faces, of each view, int64 ``[B, 4]`` on the CPU; or of all,
    ``[1, 4]``."""
    given = [argument is not None for argument in (mesh_index, vertex_offsets, face_offsets)]
    if not any(given):
        return torch.tensor([[0, len(vertices), 0, len(faces)]])
    if not all(given):
        raise ValueError("mesh_index, vertex_offsets and face_offsets go together; see pack_meshes")
    mesh, vertex_offsets, face_offsets = mesh_index.cpu().long(), vertex_offsets.cpu().long(), face_offsets.cpu().long()
    _check_offsets(vertex_offsets, len(vertices), "vertex_offsets")
    _check_offsets(face_offsets, len(faces), "face_offsets")
    meshes = len(vertex_offsets) - 1
    if len(face_offsets) - 1 != meshes:
        raise ValueError(f"vertex_offsets describe {meshes} meshes, face_offsets {len(face_offsets) - 1}")
    if mesh.shape != (views,) or bool(((mesh < 0) | (mesh >= meshes)).any()):
        raise ValueError(f"mesh_index must hold one mesh number below {meshes} for each of the {views} views")
    ranges = (vertex_offsets[mesh], vertex_offsets[mesh + 1], face_offsets[mesh], face_offsets[mesh + 1])
    return torch.stack(ranges, dim=1)


def _check_offsets(offsets: Tensor, count: int, name: str) -> None:
    ends_fit = offsets.dim() == 1 and len(offsets) >= 2 and offsets[0] == 0 and offsets[-1] == count
    if not ends_fit or bool((offsets.diff() < 0).any()):
        raise ValueError(f"{name} must rise from 0 to {count}, one entry more than there are meshes")


def _check(vertices, faces, world_to_camera, intrinsics, height, width, near, outputs) -> None:
    if vertices.dim() != 2 or vertices.shape[1] != 3 or not vertices.is_floating_point():
        raise ValueError(f"vertices must be float32 [Nv, 3], not {vertices.dtype} {tuple(vertices.shape)}")
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"faces must be int32 or int64 [F, 3], not {faces.dtype} {tuple(faces.shape)}")
    if faces.device != vertices.device:
        raise ValueError(f"faces are on {faces.device}, vertices on {vertices.device}")
    if max(len(vertices), len(faces)) >= 2**31:
        raise ValueError("at most 2^31 - 1 vertices and faces in one call: face indices come back as int32")
    if world_to_camera.dim() != 3 or world_to_camera.shape[1:] != (4, 4):
        raise ValueError(f"world_to_camera must be [B, 4, 4], not {tuple(world_to_camera.shape)}")
    if intrinsics.shape != (len(world_to_camera), 3, 3):
        raise ValueError(f"intrinsics must be [{len(world_to_camera)}, 3, 3], not {tuple(intrinsics.shape)}")
    if not (1 <= height <= LARGEST_IMAGE and 1 <= width <= LARGEST_IMAGE):
        raise ValueError(f"image size {height} x {width} is outside 1 to {LARGEST_IMAGE} pixels")
    if not _LEAST_FLOAT <= near <= _LARGEST_FLOAT:
        raise ValueError(f"near must be positive and finite in float32, not {near}")
    unknown = set(outputs) - {"face", "depth", "barycentric"}
    if unknown:
        raise ValueError(f"unknown outputs {sorted(unknown)}; choose from face, depth, barycentric")
