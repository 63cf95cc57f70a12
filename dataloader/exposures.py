"""``capture.npz`` beside a field: exposures and pose corrections of its training cameras, as a fit estimated them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.arrays import read_npz
from utils.errors import reading
from utils.files import atomic_path
from utils.limits import FARTHEST

CAPTURE_FILE = "capture.npz"
_PER_CAMERA = ("gain", "offset", "turn", "shift")
_WHAT = "the exposures of a fit"
_DAMAGED = "fit the scene again, or delete it to render every view at the average exposure"


class Exposures(NamedTuple):
    """What the file holds; :class:`model.capture.CaptureModel` says what it means.

    camera_to_world float64 ``[N, 4, 4]``; gain and offset float32 ``[N, 3]``; turn and shift float64 ``[N, 3]``; near.
    """

    camera_to_world: Tensor
    gain: Tensor
    offset: Tensor
    turn: Tensor
    shift: Tensor
    near: float


def save_exposures(folder: str | Path, exposures: Exposures) -> None:
    """Write the file into a field's folder."""
    arrays = {name: np.asarray(values) for name, values in exposures._asdict().items()}
    with atomic_path(Path(folder) / CAPTURE_FILE) as temporary:
        np.savez(temporary, **arrays)


def load_exposures(folder: str | Path) -> Exposures | None:
    """Read the file of a field's folder; None where there is none.

    Raises:
        UserError: it is damaged, or holds numbers that are not finite.
    """
    path = Path(folder) / CAPTURE_FILE
    if not path.is_file():
        return None
    with reading(path, _WHAT, _DAMAGED):
        arrays = read_npz(path, _WHAT, ("camera_to_world", *_PER_CAMERA, "near"), advice=_DAMAGED)
        values = {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}
        pose, near = values["camera_to_world"].reshape(-1, 4, 4), values["near"].item()
        gain, offset, turn, shift = (values[name].reshape(len(pose), 3) for name in _PER_CAMERA)
        for name, numbers in values.items():
            if not len(pose) or not (numbers.abs() < FARTHEST).all():  # also where one is NaN
                raise ValueError(f"{name} is empty or holds a number that is not finite or beyond {FARTHEST:g}")
        if near <= 0:
            raise ValueError(f"near is {near}")
        return Exposures(pose, gain.float(), offset.float(), turn, shift, near)
