"""The radiance field itself: a sparse voxel grid of densities and spherical-harmonic coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.plenoxel.grid import GridHandle
from lib.plenoxel.index import VoxelIndex
from model.sphere_layers import SphereLayers
from utils.errors import UserError
from utils.spherical_harmonics import SH_CHANNELS

if TYPE_CHECKING:
    from dataloader import PerfceptionScene, SceneTransform


class PlenoxelGrid:
    """A sparse voxel grid. Rows of ``density`` and ``sh`` belong to occupied voxels, ``links`` says to which.

    Grids may be nested (see :class:`lib.plenoxel.index.VoxelIndex`), so that voxels shrink towards the middle. Alone,
    or in the outermost of nested grids, voxel ``(i, j, k)`` has its centre at
    ``center + radius * ((i, j, k) + 0.5) * 2 / resolution - radius``.

    Args:
        links: int32 ``[Rx, Ry, Rz]``, or ``[1, L, Rx, Ry, Rz]`` of nested grids, the innermost first; the row of each
            voxel, -1 where the voxel is empty. Each row has one voxel.
        density: float32 ``[V]``, per world unit of length (of the outermost grid, where nested: voxels of one density
            have one opacity, whatever their size); values below 0 count as 0.
        sh: float32 ``[V, 27]``, channel-major (R0..R8, G0..G8, B0..B8), degree 2.
        center: the grid's middle in world units.
        radius: half of the grid's extent along each axis in world units.
        background: what is seen behind the grid; None is the rendering options' ``background_brightness``.

    Attributes:
        handle: what the ops are given. It holds the index of the voxels, the values, and what rendering makes of them;
            all of it goes when the grid is dropped.

    ``density`` and ``sh`` may be changed in place: say so by :meth:`values_changed`. Other values or another background
    are another grid's: :meth:`replace`.

    Raises:
        ValueError: an argument is not as above.
    """

    def __init__(
        self,
        links: Tensor,
        density: Tensor,
        sh: Tensor,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
        background: SphereLayers | None = None,
    ):
        _check_values(density, sh)
        if links.dim() != 3 and (links.dim() != 5 or links.shape[0] != 1):
            raise ValueError(
                f"links must be int32 [Rx, Ry, Rz] or [1, L, Rx, Ry, Rz], found {links.dtype} {tuple(links.shape)}"
            )
        self.handle = GridHandle(VoxelIndex(links, len(density), center, radius), density, sh)
        self.background = background

    @classmethod
    def _of(cls, handle: GridHandle, background: SphereLayers | None = None) -> PlenoxelGrid:
        _check_values(handle.density, handle.sh)
        grid = cls.__new__(cls)
        grid.handle, grid.background = handle, background
        return grid

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
        density, sh, links_idx = _sparse_values(density, sh, links_idx)
        return cls._of(GridHandle(VoxelIndex.from_voxels(resolution, links_idx, center, radius), density, sh))

    @classmethod
    def from_mask(
        cls,
        occupied: Tensor,
        density: Tensor,
        sh: Tensor,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        radius: Sequence[float] = (1.0, 1.0, 1.0),
        background: SphereLayers | None = None,
    ) -> PlenoxelGrid:
        """A grid whose rows belong to the voxels set in the boolean mask, of ``links``' shape, in the mask's order."""
        return cls._of(GridHandle(VoxelIndex.from_mask(occupied, center, radius), density, sh), background)

    @classmethod
    def load(cls, path: str | Path) -> PlenoxelGrid:
        """Read a PeRFception scene folder or checkpoint; raises :class:`UserError` when it cannot be read."""
        from dataloader import load_perfception_scene

        return cls.from_scene(load_perfception_scene(path))

    @classmethod
    def from_scene(cls, scene: PerfceptionScene) -> PlenoxelGrid:
        """The grid of a scene that was read; raises :class:`UserError` when its values make no grid."""
        try:
            density, sh, links_idx = _sparse_values(scene.density, scene.sh, scene.links_idx)
            index = VoxelIndex.from_voxels(scene.resolution, links_idx, levels=scene.levels)
            grid = cls._of(GridHandle(index, density, sh, scene.quantization))
            grid.background = None if scene.background is None else SphereLayers.from_stored(scene.background)
            return grid
        except ValueError as error:
            raise UserError(f"{scene.path} does not hold a valid Plenoxel scene: {error}") from None

    def save(self, path: str | Path, transform: SceneTransform | None = None, bits: int = 8) -> None:
        """Write a PeRFception scene folder, or where grids are nested, one of this project's own format.

        Args:
            path: the folder; made if absent.
            transform: from world to grid; default: they are the same.
            bits: of each SH coefficient: 32 (float), 16 (half), 8 (as released), 4 or 2 (none of these two if nested).

        Raises:
            ValueError: the grid is empty, or not centred at 0 with radius 1, which the format takes for granted.
        """
        from dataloader import SceneTransform, save_perfception_scene
        from dataloader.perfception import PerfceptionScene, save_nested_scene

        if self.center != (0.0, 0.0, 0.0) or self.radius != (1.0, 1.0, 1.0):
            raise ValueError(f"PeRFception's format needs centre 0 and radius 1, found {self.center}, {self.radius}")
        transform = transform or SceneTransform.identity()
        background = None if self.background is None else self.background.to_stored()
        values = self.links_idx, self.density, self.sh
        if self.levels > 1:
            scene = PerfceptionScene(self.resolution, *values, transform, background=background, levels=self.levels)
            save_nested_scene(path, scene, bits)
        else:
            save_perfception_scene(path, self.resolution, *values, transform, bits, background=background)

    @property
    def links(self) -> Tensor:
        """int32 ``[Rx, Ry, Rz]``, or ``[1, L, Rx, Ry, Rz]``: the row of each voxel, -1 where it is empty."""
        return self.handle.index.links

    @property
    def density(self) -> Tensor:
        return self.handle.density

    @property
    def sh(self) -> Tensor:
        return self.handle.sh

    @property
    def center(self) -> tuple[float, float, float]:
        return self.handle.index.center

    @property
    def radius(self) -> tuple[float, float, float]:
        return self.handle.index.radius

    @property
    def resolution(self) -> tuple[int, int, int]:
        return self.handle.index.resolution

    @property
    def levels(self) -> int:
        """How many grids are nested; 1 for a grid alone."""
        return self.handle.index.levels

    @property
    def num_voxels(self) -> int:
        """Number of occupied voxels."""
        return self.handle.index.num_rows

    @property
    def device(self) -> torch.device:
        return self.handle.device

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in world units, of the outermost where grids are nested."""
        return tuple(2 * radius / size for radius, size in zip(self.radius, self.resolution, strict=True))

    @property
    def occupied(self) -> Tensor:
        """Boolean mask, of ``links``' shape, of the occupied voxels."""
        return self.handle.index.occupied

    @property
    def links_idx(self) -> Tensor:
        """int64 ``[V]``: the flat voxel index of each row, level by level."""
        return self.handle.index.voxels

    def voxel_centers(self, rows: Tensor | None = None) -> Tensor:
        """World points ``[V, 3]``, float32: the middles of all rows' voxels, or of ``rows``' (numbers or a mask)."""
        shape = (self.levels, *self.resolution)
        voxels = self.links_idx if rows is None else self.links_idx[rows]
        level, *index = torch.unravel_index(voxels, shape)
        index, size = torch.stack(index, dim=-1), torch.tensor(self.resolution, device=self.device)
        radius, center = (torch.tensor(values, device=self.device) for values in (self.radius, self.center))
        zoom = 0.5 ** (self.levels - 1 - level)
        return center + ((2 * index + 1) / size - 1) * radius * zoom[:, None]

    def values_changed(self) -> None:
        """Must be called after ``density`` or ``sh`` were changed in place, or a GPU keeps rendering the old ones.

        Not after an optimizer's steps on values that require gradients: of these a GPU keeps no copy.
        """
        self.handle.values_changed()

    def select(self, keep: Tensor) -> PlenoxelGrid:
        """The grid with only the rows for which the boolean ``keep [V]`` is true."""
        handle = GridHandle(self.handle.index.select(keep), self.density[keep], self.sh[keep])
        return self._of(handle, self.background)

    def mask_of(self, rows: Tensor) -> Tensor:
        """The boolean ``rows [V]`` as a mask of ``links``' shape, false in empty voxels."""
        return self.handle.index.mask_of(rows)

    def replace(
        self,
        *,
        density: Tensor | None = None,
        sh: Tensor | None = None,
        background: SphereLayers | None = None,
    ) -> PlenoxelGrid:
        """A grid with the same voxels, whose index it shares, and other values or another background where given."""
        background = self.background if background is None else background
        if density is None and sh is None:
            return self._of(self.handle, background)
        return self._of(self.handle.with_values(density, sh), background)

    def to(self, device: torch.device | str) -> PlenoxelGrid:
        """The same grid on ``device``."""
        return self._of(self.handle.to(device), None if self.background is None else self.background.to(device))

    def memory(self) -> dict[str, int]:
        """Bytes of each part of the grid, as far as it was made; grids that share an index share its parts."""
        texture = None if self.background is None else self.background.texture
        return {**self.handle.memory(), "background": 0 if texture is None else texture.nbytes}


def _sparse_values(density: Tensor, sh: Tensor, links_idx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Densities, coefficients and numbers of a list of voxels, on one device; refused where they make no grid."""
    density = torch.as_tensor(density, dtype=torch.float32).contiguous()
    sh = torch.as_tensor(sh, dtype=torch.float32).contiguous()
    links_idx = torch.as_tensor(links_idx, device=density.device).long().contiguous()
    _check_values(density, sh)
    if links_idx.shape != density.shape:
        raise ValueError(f"links_idx has shape {tuple(links_idx.shape)}, density {tuple(density.shape)}")
    if not (torch.isfinite(density).all() and torch.isfinite(sh).all()):
        raise ValueError("density or sh holds NaN or infinite values")
    return density, sh, links_idx


def _check_values(density: Tensor, sh: Tensor) -> None:
    if density.dim() != 1 or density.dtype != torch.float32:
        raise ValueError(f"density must be float32 [V], found {density.dtype} {tuple(density.shape)}")
    if sh.shape != (len(density), SH_CHANNELS) or sh.dtype != torch.float32:
        raise ValueError(
            f"sh must be float32 [V, {SH_CHANNELS}] with V = {len(density)}, found {sh.dtype} {tuple(sh.shape)}"
        )
