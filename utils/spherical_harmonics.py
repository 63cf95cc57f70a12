"""Real spherical harmonics to degree 2: the basis Plenoxels store, and the rotation of coefficients.

A function on directions is f(d) = sum_k c_k Y_k(d) with nine basis functions in the order and with the signs of
Plenoxels (Fridovich-Keil et al., CVPR 2022): degree 0; degree 1 as -y, z, -x; degree 2 as xy, -yz, 2zz-xx-yy, -xz,
xx-yy. When the world is transformed by an orthogonal matrix R (a rotation or a reflection), f becomes f'(d) = f(R^T d),
and its coefficients become c' = D(R) c. D is block-diagonal over the degrees, orthogonal, and D(RS) = D(R) D(S).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BASIS_SIZE = 9
SH_CHANNELS = 3 * BASIS_SIZE
"""Coefficients of a colour: R0..R8, G0..G8, B0..B8."""

_DEGREE_0 = 0.5 / math.sqrt(math.pi)
_DEGREE_1 = math.sqrt(3.0 / (4.0 * math.pi))
_DEGREE_2 = math.sqrt(15.0 / (4.0 * math.pi))


def _linear_forms() -> Tensor:
    """[3, 3] float64: degree-1 basis function k is ``forms[k] @ d``."""
    return _DEGREE_1 * torch.tensor([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=torch.float64)


def _quadratic_forms() -> Tensor:
    """[5, 3, 3] float64, symmetric and traceless: degree-2 basis function k is ``d @ forms[k] @ d``."""
    half, sixth = _DEGREE_2 / 2, _DEGREE_2 / (2 * math.sqrt(3.0))
    forms = torch.zeros(5, 3, 3, dtype=torch.float64)
    for k, (row, column), sign in ((0, (0, 1), 1), (1, (1, 2), -1), (3, (0, 2), -1)):
        forms[k, row, column] = forms[k, column, row] = sign * half
    forms[2] = sixth * torch.diag(torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64))
    forms[4] = half * torch.diag(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))
    return forms


def sh_basis(
    directions: Tensor,  # [..., 3]
) -> Tensor:
    """The nine basis functions of unit ``directions``, [..., 9]."""
    linear = _linear_forms().to(directions)
    quadratic = _quadratic_forms().to(directions)
    constant = torch.full_like(directions[..., :1], _DEGREE_0)
    degree_2 = torch.einsum("...i,kij,...j->...k", directions, quadratic, directions)
    return torch.cat([constant, directions @ linear.mT, degree_2], dim=-1)


def grid_to_frame(
    frame: str,
    camera_to_world: Tensor,  # [..., 3, 3]
    world_to_grid: Tensor,  # [3, 3]
) -> Tensor:  # [..., 3, 3]
    """Rotations from a field's axes to those its coefficients are wanted in, of views with these cameras.

    Args:
        frame: "grid" (the field's own), "gravity" (the world's, z up) or "camera".
    """
    if frame == "camera":
        return (world_to_grid @ camera_to_world).mT
    rotation = torch.eye(3).to(world_to_grid) if frame == "grid" else world_to_grid.mT
    return rotation.expand_as(camera_to_world)


def sh_transform(
    matrix: Tensor,  # [..., 3, 3]
) -> Tensor:
    """The coefficients' transform D(R), [..., 9, 9], of orthogonal matrices R, in R's dtype.

    The basis transforms alike: Y(R d) = D(R) Y(d).

    Raises:
        ValueError: ``matrix`` is not orthogonal.
    """
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    if not torch.allclose(matrix @ matrix.mT, identity.expand_as(matrix), atol=1e-4):
        raise ValueError("spherical harmonics rotate by orthogonal matrices only; the one given is not orthogonal")
    rotation = matrix.double()
    linear, quadratic = _linear_forms().to(rotation.device), _quadratic_forms().to(rotation.device)
    result = torch.zeros(*matrix.shape[:-2], BASIS_SIZE, BASIS_SIZE, dtype=torch.float64, device=matrix.device)
    result[..., 0, 0] = 1.0
    result[..., 1:4, 1:4] = linear @ rotation @ linear.mT / _DEGREE_1**2
    turned = torch.einsum("...ai,kab,...bj->...kij", rotation, quadratic, rotation)
    result[..., 4:, 4:] = torch.einsum("...kij,lij->...kl", turned, quadratic) / (_DEGREE_2**2 / 2)
    return result.to(matrix.dtype)


def mirror_matrix(
    normal: Tensor,  # [..., 3]
) -> Tensor:
    """The reflection [..., 3, 3] in the plane through the origin with the unit ``normal``: I - 2 n n^T."""
    identity = torch.eye(3, dtype=normal.dtype, device=normal.device)
    return identity - 2.0 * normal[..., :, None] * normal[..., None, :]


def transform_sh_image(
    sh: Tensor,  # [B, 27, H, W]
    transform: Tensor,  # [B, 9, 9]
) -> Tensor:
    """Apply D(R) to the nine coefficients of each colour channel (channel-major) of SH images, [B, 27, H, W]."""
    batch, channels, height, width = sh.shape
    coefficients = sh.reshape(batch, channels // BASIS_SIZE, BASIS_SIZE, height * width)
    return (transform[:, None].to(sh.dtype) @ coefficients).reshape(sh.shape)
