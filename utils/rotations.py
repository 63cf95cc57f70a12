"""Rotation matrices, and the quaternions (w, x, y, z) and axis-angle vectors (axis times radians) that mean them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def quaternion_to_matrix(
    quaternion: Sequence[float] | np.ndarray,  # [4]
) -> Tensor:  # float64 [3, 3]
    """Rotation matrix of a quaternion, which need not have unit length; NaN for a quaternion of zeros."""
    values = [float(value) for value in quaternion]
    length = math.hypot(*values)
    w, x, y, z = (value / length if length else math.nan for value in values)
    return torch.tensor([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ], dtype=torch.float64)  # fmt: skip


def matrix_to_quaternion(
    matrix: Tensor,  # [3, 3]
) -> np.ndarray:  # float64 [4]
    """Unit quaternion of a rotation matrix, w >= 0."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(matrix.numpy()).as_quat(canonical=True)
    return np.array([w, x, y, z])


def axis_angle_to_matrix(
    vector: Tensor,  # [..., 3]
) -> Tensor:  # [..., 3, 3]
    """Rotation matrices of axis-angle vectors, by Rodrigues' formula."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack((zero, -z, y), -1), torch.stack((z, zero, -x), -1), torch.stack((-y, x, zero), -1))
    cross = torch.stack(rows, -2)
    # sin(a) / a and (1 - cos(a)) / a^2 as functions that are exact at 0.
    turns = vector.norm(dim=-1)[..., None, None] / (2 * math.pi)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + torch.sinc(2 * turns) * cross + torch.sinc(turns) ** 2 / 2 * (cross @ cross)


def matrix_to_axis_angle(
    matrix: Tensor,  # [..., 3, 3]
) -> Tensor:  # [..., 3]
    """Axis-angle vectors of rotations by less than half a turn."""
    skew = (matrix - matrix.transpose(-1, -2)) / 2
    vector = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), dim=-1)
    sine = vector.norm(dim=-1, keepdim=True)
    cosine = (matrix.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2
    angle = torch.atan2(sine, cosine)
    return vector * torch.where(sine > 1e-12, angle / sine.clamp(min=1e-12), torch.ones_like(sine))
