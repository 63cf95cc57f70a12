"""Rendering the labelled mesh at any camera."""

from __future__ import annotations

import torch
from torch import Tensor

from dataloader import CameraList, Mesh
from model.annotation import Annotation, annotate_views
from utils.lenses import Lens


def mesh_view(
    mesh: Mesh,
    camera_to_world: Tensor,  # float64 [4, 4]
    intrinsics: Tensor,  # float64 [3, 3]
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    lens: Lens | None = None,
) -> Annotation:
    """Class indices and depth ``[H, W]`` of one view, on the CPU; see :class:`model.annotation.Annotation`."""
    camera = CameraList("", ["view"], camera_to_world[None], intrinsics[None], tuple(size), lens=lens)
    label, depth = annotate_views(mesh, camera, device=device)
    return Annotation(label[0].cpu(), depth[0].cpu())
