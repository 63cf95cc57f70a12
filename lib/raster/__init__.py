"""Exact rasterization of triangle meshes, checked against ray tracing."""

from lib.raster.ops import Fragments, PackedMeshes, pack_meshes, rasterize
from lib.raster.tracing import RayTree, TracedRays

__all__ = ["Fragments", "PackedMeshes", "RayTree", "TracedRays", "pack_meshes", "rasterize"]
