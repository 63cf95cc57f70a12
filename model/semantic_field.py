"""The semantic field: class probabilities on a radiance field's voxels, as one file beside it.

``semantic.npz`` holds ``levels`` uint8 [V, C] and their ``low`` and ``scale`` float32 [1, C] (as PeRFception quantizes
columns), ``evidence`` float16 [V], how much each voxel was seen, ``certainty`` float16 [V], how sure and how much
alike the predictions were that were fused there, and as text ``grid``, the identity of the voxels that the rows belong
to, and ``checksum``, that of the other arrays. Rows are in the order of the field's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dataloader.quantization import dequantize_columns, quantize_columns
from model.grid import PlenoxelGrid
from utils.arrays import read_npz
from utils.errors import UserError, reading
from utils.files import atomic_path
from utils.identity import tensor_identity, value_identity
from utils.labels import UNANNOTATED, has_label_set, label_set
from utils.outputs import finished_settings

if TYPE_CHECKING:
    from model.radiance_field import RadianceField

SEMANTIC_FILE = "semantic.npz"
_WHAT, _ADVICE = "a semantic field", "run 'fuse' again"
_NUMBERS = ("levels", "low", "scale", "evidence", "certainty")
_MOST_EVIDENCE = 60000.0  # float16


@dataclass(frozen=True)
class SemanticField:
    """Class probabilities of voxels.

    Attributes:
        probabilities: float32 ``[V, C]``; 0 where no view saw the voxel.
        evidence: float32 ``[V]``: rays that saw the voxel, by their weights.
        certainty: float32 ``[V]``, 0 to 1: how sure and how much alike the predictions are that were fused there.
    """

    probabilities: Tensor
    evidence: Tensor
    certainty: Tensor

    def save(self, path: str | Path, grid: PlenoxelGrid) -> None:
        """Write the file atomically; the same field gives the same bytes."""
        levels, low, scale, evidence, certainty = (values.cpu() for values in self._stored())
        with atomic_path(path) as temporary:
            np.savez(
                temporary, levels=levels.numpy(), low=low.numpy(), scale=scale.numpy(), evidence=evidence.numpy(),
                certainty=certainty.numpy(), grid=np.array(grid_identity(grid)),
                checksum=np.array(tensor_identity(levels, low, scale, evidence, certainty)),
            )  # fmt: skip

    def as_stored(self) -> SemanticField:
        """What :meth:`load` gives of the file that :meth:`save` writes, without a file."""
        levels, low, scale, evidence, certainty = self._stored()
        probabilities = dequantize_columns(levels, low, scale, 8, len(levels))
        return SemanticField(probabilities, evidence.float(), certainty.float())

    def _stored(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Levels, their minimum and scale, evidence and certainty, in the types of the file."""
        evidence = self.evidence.float().clamp(max=_MOST_EVIDENCE).half()
        return *quantize_columns(self.probabilities.float(), 8), evidence, self.certainty.half()

    @classmethod
    def load(cls, path: str | Path, grid: PlenoxelGrid) -> SemanticField:
        """Read the file, onto the grid's device; nothing in it can run.

        Raises:
            UserError: absent, damaged, or of another grid's voxels.
        """
        arrays = read_npz(path, _WHAT, (*_NUMBERS, "grid", "checksum"), advice=_ADVICE)
        with reading(path, _WHAT, _ADVICE):
            levels, low, scale, evidence, certainty = (torch.from_numpy(arrays[name]) for name in _NUMBERS)
            channels = levels.shape[1:]
            if levels.dtype != torch.uint8 or len(channels) != 1 or not low.shape == scale.shape == (1, *channels):
                raise ValueError(f"levels are {levels.dtype} {list(levels.shape)}")
            numbers = (low, scale, evidence, certainty)
            if not evidence.shape == certainty.shape == levels.shape[:1] or not all(
                torch.isfinite(values).all() for values in numbers
            ):
                raise ValueError("evidence, certainty or ranges are not finite numbers of the voxels")
            if tensor_identity(levels, *numbers) != str(arrays["checksum"]):
                raise ValueError("its checksum does not fit its numbers")
            if str(arrays["grid"]) != grid_identity(grid) or len(levels) != grid.num_voxels:
                raise UserError(f"{path} belongs to other voxels than the field's; {_ADVICE}")
        probabilities = dequantize_columns(levels, low, scale, 8, len(levels))
        return cls(*(values.float().to(grid.device) for values in (probabilities, evidence, certainty)))


def load_fused(folder: Path, grid: PlenoxelGrid) -> SemanticField:
    """The semantic field in a scene's folder that 'fuse' wrote.

    Raises:
        UserError: absent, damaged, of another grid's voxels, or of other classes than those of the label set.
    """
    found = SemanticField.load(folder / SEMANTIC_FILE, grid)
    if not has_label_set(finished_settings(folder)) or found.probabilities.shape[1] != label_set().num_classes:
        raise UserError(f"{folder / SEMANTIC_FILE} holds other classes than those of {label_set().path}; set "
                        f"label_set.table to the table that it was fused with, or {_ADVICE}")
    return found


def grid_identity(grid: PlenoxelGrid) -> str:
    """Of a grid's resolution and voxels, whatever they hold."""
    return value_identity([list(grid.resolution), tensor_identity(grid.links_idx)])


def class_of(probabilities: Tensor) -> Tensor:
    """The most probable class uint8 ``[...]`` of ``[..., C]``; 0 only where nothing else is known."""
    return torch.where(probabilities[..., 1:].amax(-1) > 0, probabilities[..., 1:].argmax(-1) + 1, UNANNOTATED).to(
        torch.uint8
    )


def classes_at(
    field: RadianceField,
    semantic: SemanticField,
    points: Tensor,  # [P, 3] world, metres
) -> Tensor:
    """Classes uint8 ``[P]`` at points: of the voxels around, by nearness and by how much each was seen."""
    grid = field.grid
    size = torch.tensor(grid.resolution, device=grid.device)
    place = field.transform.points_to_grid(points.double()).to(grid.device)
    halvings = torch.floor(-torch.log2(place.abs().amax(-1).clamp(min=2.0**-grid.levels))).clamp(0, grid.levels - 1)
    level = grid.levels - 1 - halvings.long()  # the innermost of nested grids that holds the point
    links = grid.links.reshape(grid.levels, *grid.resolution)
    inside = (place * 2 ** halvings[:, None] + 1) * size / 2 - 0.5
    inside = torch.minimum(inside.clamp(min=0), (size - 1).to(inside))
    cell = torch.minimum(inside.floor().long(), size - 2)
    fraction = inside - cell
    weighted = semantic.probabilities * semantic.evidence[:, None]
    total = torch.zeros(len(points), weighted.shape[1], device=grid.device)
    for corner in torch.cartesian_prod(*[torch.arange(2, device=grid.device)] * 3):
        rows = links[(level, *(cell + corner).T)].long()
        share = torch.where(corner == 1, fraction, 1 - fraction).prod(-1).float() * (rows >= 0)
        total += share[:, None] * weighted[rows.clamp(min=0)]
    return class_of(total)
