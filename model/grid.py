"""The radiance field itself: a sparse voxel grid of densities and spherical-harmonic coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.sphere_layers import SphereLayers
from utils.errors import UserError
from utils.spherical_harmonics import SH_CHANNELS

if TYPE_CHECKING:
    from dataloader import PerfceptionScene, SceneTransform

EMPTY = -1


@dataclass
class PlenoxelGrid:
    """A sparse voxel grid. Rows of ``density`` and ``sh`` belong to occupied voxels, ``links`` says to which.

    Voxel ``(i, j, k)`` has its centre at ``center + radius * ((i, j, k) + 0.5) * 2 / resolution - radius``.

    Attributes:
        links: int32 ``[Rx, Ry, Rz]``; the row of each voxel, -1 where the voxel is empty.
        density: float32 ``[V]``, per world unit of length; values below 0 count as 0.
        sh: float32 ``[V, 27]``, channel-major (R0..R8, G0..G8, B0..B8), degree 2.
        center: the grid's middle in world units.
        radius: half of the grid's extent along each axis in world units.
        background: what is seen behind the grid; None is the rendering options' ``background_brightness``.
    """

    links: Tensor
    density: Tensor
    sh: Tensor
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background: SphereLayers | None = None

    def __post_init__(self) -> None:
        self.center = _triple(self.center, "center")
        self.radius = _triple(self.radius, "radius")
        if min(self.radius) <= 0:
            raise ValueError(f"radius must be positive, found {self.radius}")
        if self.links.dim() != 3 or self.links.dtype != torch.int32:
            raise ValueError(f"links must be int32 [Rx, Ry, Rz], found {self.links.dtype} {tuple(self.links.shape)}")
        if min(self.links.shape) < 2:
            raise ValueError(f"a grid needs at least 2 voxels along each axis, found {tuple(self.links.shape)}")
        _check_rows(self.density, self.sh)

    @classmethod
    def from_sparse(
        cls,
        resolution: Sequence[int],
        links_idx: Tensor,
        density: Tensor,
        sh: Tensor,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> PlenoxelGrid:
        """A grid from a list of its occupied voxels.

        Args:
            resolution: ``(Rx, Ry, Rz)``.
            links_idx: int64 ``[V]``, ``(i * Ry + j) * Rz + k`` of each occupied voxel, each at most once.
            density: float32 ``[V]``.
            sh: float32 ``[V, 27]``.

        Raises:
            ValueError: shapes disagree, an index is outside the grid or occurs twice, or a value is not finite.
        """
        resolution = tuple(int(size) for size in resolution)
        if len(resolution) != 3:
            raise ValueError(f"resolution must have 3 entries, found {resolution}")
        density = torch.as_tensor(density, dtype=torch.float32).contiguous()
        sh = torch.as_tensor(sh, dtype=torch.float32).contiguous()
        links_idx = torch.as_tensor(links_idx, device=density.device).long().contiguous()
        _check_rows(density, sh)
        if links_idx.shape != density.shape:
            raise ValueError(f"links_idx has shape {tuple(links_idx.shape)}, density {tuple(density.shape)}")
        cells = resolution[0] * resolution[1] * resolution[2]
        if len(links_idx) and (links_idx.min() < 0 or links_idx.max() >= cells):
            raise ValueError(f"links_idx lies outside a grid of {resolution}: {links_idx.min()}..{links_idx.max()}")
        if not (torch.isfinite(density).all() and torch.isfinite(sh).all()):
            raise ValueError("density or sh holds NaN or infinite values")
        links = torch.full((cells,), EMPTY, dtype=torch.int32, device=density.device)
        links[links_idx] = torch.arange(len(links_idx), dtype=torch.int32, device=density.device)
        if int((links >= 0).sum()) != len(links_idx):
            raise ValueError("links_idx names a voxel twice")
        return cls(links.reshape(resolution), density, sh, tuple(center), tuple(radius))

    @classmethod
    def from_mask(cls, occupied: Tensor, density: float = 0.0) -> PlenoxelGrid:
        """A grid whose occupied voxels are those of the boolean mask ``[Rx, Ry, Rz]``: constant density, grey."""
        links_idx = occupied.reshape(-1).nonzero()[:, 0]
        rows = torch.full((len(links_idx),), float(density), device=occupied.device)
        sh = torch.zeros(len(links_idx), SH_CHANNELS, device=occupied.device)
        return cls.from_sparse(tuple(occupied.shape), links_idx, rows, sh)

    @classmethod
    def load(cls, path: str | Path) -> PlenoxelGrid:
        """Read a PeRFception scene folder or checkpoint; raises :class:`UserError` when it cannot be read."""
        from dataloader import load_perfception_scene

        return cls.from_scene(load_perfception_scene(path))

    @classmethod
    def from_scene(cls, scene: PerfceptionScene) -> PlenoxelGrid:
        """The grid of a scene that was read; raises :class:`UserError` when its values make no grid."""
        try:
            grid = cls.from_sparse(scene.resolution, scene.links_idx, scene.density, scene.sh)
            layers = None if scene.background is None else SphereLayers.from_stored(scene.background)
            return replace(grid, background=layers)
        except ValueError as error:
            raise UserError(f"{scene.path} does not hold a valid Plenoxel scene: {error}") from None

    def save(self, path: str | Path, transform: SceneTransform | None = None, bits: int = 8) -> None:
        """Write a PeRFception scene folder.

        Args:
            path: the folder; made if absent.
            transform: from world to grid; default: they are the same.
            bits: of each SH coefficient: 32 (float), 16 (half), 8 (as released), 4 or 2.

        Raises:
            ValueError: the grid is empty, or not centred at 0 with radius 1, which the format takes for granted.
        """
        from dataloader import SceneTransform, save_perfception_scene

        if self.center != (0.0, 0.0, 0.0) or self.radius != (1.0, 1.0, 1.0):
            raise ValueError(f"PeRFception's format needs centre 0 and radius 1, found {self.center}, {self.radius}")
        transform = transform or SceneTransform.identity()
        save_perfception_scene(
            path, self.resolution, self.links_idx, self.density, self.sh, transform, bits,
            background=None if self.background is None else self.background.to_stored(),
        )  # fmt: skip

    @property
    def resolution(self) -> tuple[int, int, int]:
        return tuple(self.links.shape)

    @property
    def num_voxels(self) -> int:
        """Number of occupied voxels."""
        return len(self.density)

    @property
    def device(self) -> torch.device:
        return self.density.device

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in world units."""
        return tuple(2 * radius / size for radius, size in zip(self.radius, self.resolution, strict=True))

    @property
    def occupied(self) -> Tensor:
        """Boolean mask ``[Rx, Ry, Rz]`` of the occupied voxels."""
        return self.links >= 0

    @property
    def links_idx(self) -> Tensor:
        """int64 ``[V]``: the flat voxel index of each row."""
        flat = self.links.reshape(-1)
        cells = (flat >= 0).nonzero()[:, 0]
        links_idx = torch.empty(self.num_voxels, dtype=torch.int64, device=self.device)
        links_idx[flat[cells].long()] = cells
        return links_idx

    def to(self, device: torch.device | str) -> PlenoxelGrid:
        """The same grid on ``device``."""
        return replace(
            self, links=self.links.to(device), density=self.density.to(device), sh=self.sh.to(device),
            background=None if self.background is None else self.background.to(device),
        )  # fmt: skip

    def detach(self) -> PlenoxelGrid:
        """The same values outside any autograd graph."""
        background = None if self.background is None else SphereLayers(self.background.texture.detach())
        return replace(self, density=self.density.detach(), sh=self.sh.detach(), background=background)

    def to_dense(self) -> tuple[Tensor, Tensor]:
        """Density ``[Rx, Ry, Rz]`` and SH ``[Rx, Ry, Rz, 27]``, 0 in empty voxels."""
        rows = self.links.long().clamp(min=0)
        occupied = self.occupied
        return self.density[rows] * occupied, self.sh[rows] * occupied[..., None]

    def world_to_grid(self, points: Tensor) -> Tensor:
        """Grid coordinates ``[..., 3]`` of world points, where voxel ``(i, j, k)`` has its centre at (i, j, k)."""
        center, radius, size = (points.new_tensor(v) for v in (self.center, self.radius, self.resolution))
        return ((points - center) / radius + 1) * size / 2 - 0.5

    def grid_to_world(self, coordinates: Tensor) -> Tensor:
        """Inverse of :meth:`world_to_grid`."""
        center, radius, size = (coordinates.new_tensor(v) for v in (self.center, self.radius, self.resolution))
        return ((coordinates + 0.5) * 2 / size - 1) * radius + center


def _triple(values: Sequence[float], name: str) -> tuple[float, float, float]:
    values = tuple(float(value) for value in values)
    if len(values) != 3:
        raise ValueError(f"{name} must have 3 entries, found {values}")
    return values


def _check_rows(density: Tensor, sh: Tensor) -> None:
    if density.dim() != 1 or density.dtype != torch.float32:
        raise ValueError(f"density must be float32 [V], found {density.dtype} {tuple(density.shape)}")
    if sh.shape != (len(density), SH_CHANNELS) or sh.dtype != torch.float32:
        raise ValueError(
            f"sh must be float32 [V, {SH_CHANNELS}] with V = {len(density)}, found {sh.dtype} {tuple(sh.shape)}"
        )
