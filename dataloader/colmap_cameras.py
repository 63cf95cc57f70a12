"""The camera models of COLMAP: which become a :class:`Lens`, and what is said of the others.

https://colmap.github.io/cameras.html. A camera is made when an image uses it: rigs and databases hold cameras that no
image of the model was taken with, and these do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataloader.lens import Lens
from utils.errors import UserError, short

# Number of parameters, and where among them are fx, fy, cx, cy, then the distortion (k1, k2, p1, p2).
_READ = {
    "SIMPLE_PINHOLE": (3, (0, 0, 1, 2), ()),
    "PINHOLE": (4, (0, 1, 2, 3), ()),
    "SIMPLE_RADIAL": (4, (0, 0, 1, 2), (3,)),
    "RADIAL": (5, (0, 0, 1, 2), (3, 4)),
    "OPENCV": (8, (0, 1, 2, 3), (4, 5, 6, 7)),
}
# In the order of their numbers in binary files, with the number of their parameters.
_NUMBERED = (
    ("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8), ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4), ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16), ("SIMPLE_DIVISION", 4), ("DIVISION", 5), ("SIMPLE_FISHEYE", 3), ("FISHEYE", 4),
)  # fmt: skip


@dataclass(frozen=True)
class ColmapCamera:
    """A camera as the file lists it.

    Attributes:
        source: the file.
        number: its id.
        model: its model's name.
        size: (height, width).
        parameters: as the model orders them.
    """

    source: Path
    number: int
    model: str
    size: tuple[int, int]
    parameters: tuple[float, ...]

    def lens(self) -> Lens:
        """Raises :class:`UserError` when the model is no pinhole with at most OpenCV's four distortion parameters."""
        if self.model not in _READ:
            raise UserError(f"{self.source}: camera {self.number} has the model {short(self.model)}; expected one of "
                            f"{', '.join(_READ)}: undistort the images with COLMAP's image_undistorter, or choose one "
                            "of these models")
        count, pinhole, distortion = _READ[self.model]
        if len(self.parameters) != count:
            raise UserError(f"{self.source}: camera {self.number} of model {self.model} has {len(self.parameters)} "
                            f"parameters instead of {count}; export the model again")
        fx, fy, cx, cy = (self.parameters[index] for index in pinhole)
        k1, k2, p1, p2 = [self.parameters[index] for index in distortion] + [0.0] * (4 - len(distortion))
        return Lens(self.size, (fx, fy), (cx, cy), (k1, k2, 0.0, 0.0), (p1, p2), source=str(self.source))


def model_of_number(number: int, camera: int) -> tuple[str, int]:
    """Name and number of parameters of a camera model in binary files.

    Raises:
        ValueError: the number is not known, so that what follows it cannot be read either.
    """
    if not 0 <= number < len(_NUMBERED):
        raise ValueError(f"camera {camera} has the unknown model number {number}: a newer COLMAP's, which can export "
                         "the model as text")
    return _NUMBERED[number]
