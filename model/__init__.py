"""The radiance field: grid, checkpoint format, fitting; and a scene's views: rendering and annotating them."""

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
from lib.plenoxel.options import RenderOptions
from model.features import render_features, spread_features
from model.fusion import fuse_views
from model.grid import PlenoxelGrid
from model.radiance_field import RadianceField
from model.rendering import render_rays

__all__ = [
    "PlenoxelGrid",
    "RadianceField",
    "RenderOptions",
    "fuse_views",
    "render_features",
    "render_rays",
    "spread_features",
]
