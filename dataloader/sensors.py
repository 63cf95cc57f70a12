"""Which recording of a data set with several cameras is read."""

from __future__ import annotations

from dataclasses import dataclass

import gin

from utils.errors import UserError, check_choice

DSLR, DSLR_UNDISTORTED, IPHONE = "dslr", "dslr_undistorted", "iphone"
_SCANNETPP = (DSLR, DSLR_UNDISTORTED, IPHONE)
_ARKITSCENES = ("lowres_wide", "vga_wide", "wide")


@gin.configurable
@dataclass(frozen=True)
class SensorOptions:
    """What is read of scenes in ScanNet++'s and ARKitScenes' layouts; others have one camera.

    Attributes:
        scannetpp: "dslr" (fisheye photographs as they were taken), "dslr_undistorted" (what the toolbox made of them)
            or "iphone" (with depth).
        arkitscenes: folder of photographs: "lowres_wide" (256x192, with each depth map), "vga_wide" (640x480) or
            "wide" (1920x1440); photographs between two depth maps have none.
        least_confidence: of ARKitScenes' depth, which is 0 (low) to 2 (high); what is less sure is no measurement.
        largest_gap: seconds from a photograph of ARKitScenes to the poses before and after it, between which its own
            is interpolated.

    Raises:
        UserError: a value that is none of these.
    """

    scannetpp: str = "dslr"
    arkitscenes: str = "lowres_wide"
    least_confidence: int = 1
    largest_gap: float = 0.1

    def __post_init__(self) -> None:
        check_choice("SensorOptions.scannetpp", self.scannetpp, _SCANNETPP)
        check_choice("SensorOptions.arkitscenes", self.arkitscenes, _ARKITSCENES)
        check_choice("SensorOptions.least_confidence", self.least_confidence, (0, 1, 2))
        if not 0 <= self.largest_gap < float("inf"):
            raise UserError(f"SensorOptions.largest_gap = {self.largest_gap}; expected seconds, 0 or more")
