"""The camera models of COLMAP: which become a :class:`CalibratedCamera`, and what is said of the others.

https://colmap.github.io/cameras.html. A camera is made when an image uses it: rigs and databases hold cameras that no
image of the model was taken with, and these do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataloader.calibrated_camera import CalibratedCamera
from utils.errors import UserError, reading, short
from utils.lenses import FISHEYE, PERSPECTIVE, Lens

# Number of parameters, and where among them are fx, fy, cx, cy, then those of the lens (:class:`Lens`) by their names.
_READ = {
    "SIMPLE_PINHOLE": (3, (0, 0, 1, 2), {}),
    "PINHOLE": (4, (0, 1, 2, 3), {}),
    "SIMPLE_RADIAL": (4, (0, 0, 1, 2), {"radial": (3,)}),
    "RADIAL": (5, (0, 0, 1, 2), {"radial": (3, 4)}),
    "OPENCV": (8, (0, 1, 2, 3), {"radial": (4, 5), "tangential": (6, 7)}),
    "FULL_OPENCV": (12, (0, 1, 2, 3), {"radial": (4, 5, 8), "tangential": (6, 7), "divisor": (9, 10, 11)}),
    "OPENCV_FISHEYE": (8, (0, 1, 2, 3), {"radial": (4, 5, 6, 7)}),
    "SIMPLE_RADIAL_FISHEYE": (4, (0, 0, 1, 2), {"radial": (3,)}),
    "RADIAL_FISHEYE": (5, (0, 0, 1, 2), {"radial": (3, 4)}),
    "THIN_PRISM_FISHEYE": (12, (0, 1, 2, 3), {"radial": (4, 5, 8, 9), "tangential": (6, 7), "prism": (10, 11)}),
    "SIMPLE_FISHEYE": (3, (0, 0, 1, 2), {}),
    "FISHEYE": (4, (0, 1, 2, 3), {}),
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

    def calibrated(self) -> CalibratedCamera:
        """Raises :class:`UserError` when the model is none of those above."""
        if self.model not in _READ:
            raise UserError(f"{self.source}: camera {self.number} has the model {short(self.model)}; expected one of "
                            f"{', '.join(_READ)}: undistort the images with COLMAP's image_undistorter, or choose one "
                            "of these models")
        count, pinhole, named = _READ[self.model]
        if len(self.parameters) != count:
            raise UserError(f"{self.source}: camera {self.number} of model {self.model} has {len(self.parameters)} "
                            f"parameters instead of {count}; export the model again")
        fx, fy, cx, cy = (self.parameters[index] for index in pinhole)
        coefficients = {name: tuple(self.parameters[index] for index in where) for name, where in named.items()}
        projection = FISHEYE if self.model.endswith("FISHEYE") else PERSPECTIVE
        with reading(self.source, "the calibration of a camera", "export the model again"):
            lens = Lens(projection, **{**coefficients, "radial": _padded(coefficients.get("radial", ()))})
        return CalibratedCamera(self.size, (fx, fy), (cx, cy), lens, source=str(self.source))


def _padded(radial: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Radial coefficients with those that a model does not have as 0."""
    return (*radial, *(0.0,) * (4 - len(radial)))


def model_of_number(number: int, camera: int) -> tuple[str, int]:
    """Name and number of parameters of a camera model in binary files.

    Raises:
        ValueError: the number is not known, so that what follows it cannot be read either.
    """
    if not 0 <= number < len(_NUMBERED):
        raise ValueError(f"camera {camera} has the unknown model number {number}: a newer COLMAP's, which can export "
                         "the model as text")
    return _NUMBERED[number]
