"""Exact rasterization of triangle meshes, checked against ray tracing."""

from lib.raster.ops import Fragments, PackedMeshes, pack_meshes, rasterize

__all__ = ["Fragments", "PackedMeshes", "pack_meshes", "rasterize"]
