"""What a network takes beside the colour, by name: SH images, and geometry that the field knows.

Geometry comes as one tensor ``[B, G, H, W]`` with the chosen kinds' channels in the order of :data:`GEOMETRY`; how they
are computed is in :mod:`enet.geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.spherical_harmonics import SH_CHANNELS

SH = "sh"
GEOMETRY = {"depth": 1, "normal": 3, "height": 1, "alpha": 1}
INPUTS = (SH, *GEOMETRY)


@dataclass(frozen=True)
class Beside:
    """The images beside the colour.

    Attributes:
        uses_sh: whether SH images are among them.
        geometry: kinds of geometry, in the order of :data:`GEOMETRY`.
    """

    uses_sh: bool = False
    geometry: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> Beside:
        """From some of :data:`INPUTS`, in any order."""
        unknown = [name for name in names if name not in INPUTS]
        if unknown:
            raise ValueError(f"input {unknown[0]!r} is unknown; use some of {', '.join(INPUTS)}")
        return cls(SH in names, tuple(name for name in GEOMETRY if name in names))

    @property
    def names(self) -> list[str]:
        """What :meth:`of` takes."""
        return [SH] * self.uses_sh + list(self.geometry)

    @property
    def geometry_channels(self) -> int:
        """Channels of the geometry."""
        return sum(GEOMETRY[name] for name in self.geometry)

    @property
    def channels(self) -> int:
        """Channels of all of them together."""
        return SH_CHANNELS * self.uses_sh + self.geometry_channels

    def join(
        self,
        color: Tensor,  # [B, 3, H, W]
        sh: Tensor | None,  # [B, 27, H, W]
        geometry: Tensor | None,  # [B, G, H, W]
    ) -> Tensor | None:
        """SH and geometry as one image ``[B, channels, H, W]``; None where the network takes colour alone.

        Raises:
            ValueError: one that is taken is missing, or of another shape.
        """
        self.check(color, sh, geometry)
        parts = [sh] * self.uses_sh + [geometry] * bool(self.geometry)
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] if parts else None

    def check(self, color: Tensor, sh: Tensor | None, geometry: Tensor | None) -> None:
        """Raise ``ValueError`` where an image that is taken is missing, or not of the colour's size."""
        for taken, what, images, channels in (
            (self.uses_sh, "SH images", sh, SH_CHANNELS),
            (bool(self.geometry), f"{', '.join(self.geometry)} images", geometry, self.geometry_channels),
        ):  # fmt: skip
            wanted = (color.shape[0], channels, *color.shape[-2:])  # len() would fix the batch of an exported network
            if taken and (images is None or tuple(images.shape) != wanted):
                found = None if images is None else tuple(images.shape)
                raise ValueError(f"{what} of shape {wanted} are needed, found {found}")
