"""Occupancy masks: dilation and resampling."""

from __future__ import annotations

import torch
from torch import Tensor


def dilate(mask: Tensor, voxels: int = 1) -> Tensor:
    """The boolean mask ``[Rx, Ry, Rz]`` dilated by ``voxels`` in all 26 directions."""
    for axis in range(3):
        for _ in range(voxels):
            dilated = mask.clone()
            size = mask.shape[axis]
            dilated.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
            dilated.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
            mask = dilated
    return mask


def resize_mask(mask: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """The boolean mask at another resolution: each new voxel takes the value of the old one its centre lies in."""
    for axis, size in enumerate(resolution):
        old = mask.shape[axis]
        source = ((torch.arange(size, device=mask.device) * 2 + 1) * old) // (2 * size)
        mask = mask.index_select(axis, source)
    return mask
