"""Which lenses a capture's readers leave as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import gin

from utils.errors import UserError, check_choice
from utils.lenses import Lens

KEPT = ("fisheye", "all", "none")


@gin.configurable
@dataclass(frozen=True)
class LensOptions:
    """Whether rays go through a capture's own lens, or its pictures are made those of a pinhole on reading.

    Every task that opens a scan reads this; view stores and camera lists record the lens they were made with.

    Attributes:
        keep: "fisheye" keeps fisheye lenses and undistorts the others' pictures, "all" keeps every lens, "none"
            undistorts all, of which a fisheye lens's lose what a pinhole of its focal length does not show.
        widest: degrees from the optical axis up to which a fisheye lens's pictures are used, for those whose outermost
            part is black or badly calibrated.
    """

    keep: str = "fisheye"
    widest: float = 180.0

    def __post_init__(self) -> None:
        check_choice("LensOptions.keep", self.keep, KEPT)
        if not 0 < self.widest <= 180:
            raise UserError(f"LensOptions.widest = {self.widest}: expected degrees from the optical axis, up to 180")

    def keeps(self, lens: Lens) -> bool:
        """Whether pictures taken with ``lens`` stay as they are; those of a pinhole do anyway."""
        return not lens.is_pinhole and (self.keep == "all" or self.keep == "fisheye" and lens.is_fisheye)

    def limited(self, lens: Lens) -> Lens:
        """The lens, seeing no farther than :attr:`widest`."""
        return replace(lens, limit=min(lens.limit, math.radians(self.widest))) if lens.is_fisheye else lens
