"""ScanNet's own label images of recorded frames: ``label-filt/N.png``, raw category ids of 16 bits, 0 for none."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.label_mesh import find_categories, read_categories
from dataloader.scannet_files import frame_files, match_frames
from dataloader.scene import SCANNET, Scene, size_text
from utils.errors import UserError, reading
from utils.image_files import open_image
from utils.label_table import LARGEST_ID, NAMES
from utils.labels import UNANNOTATED, ids_to_classes, label_set

FOLDER = "label-filt"
_SAME_ASPECT = 0.01
_UNKNOWN = -1


class LabelImages:
    """Label images of a scene in ScanNet's layout, as classes of the label set.

    Attributes:
        frames: names of the frames that have one, in the scene's order.

    Raises:
        UserError: the scene has none, or is of another layout.
    """

    def __init__(self, scene: Scene):
        self._folder, self._scene = scene.path / FOLDER, scene
        self._files = match_frames(scene.frames, frame_files(self._folder, (".png",)))
        self.frames = list(self._files)
        if scene.layout != SCANNET or not self.frames:
            raise UserError(f"{self._folder} holds no label image of a frame that is read; expected N.png, of 16 bits, "
                            f"with the numbers of color/: unpack SCENE_2d-{FOLDER}.zip of ScanNet there")

    def read(self, frame: str) -> Tensor:
        """Class indices uint8 ``[H, W]``, 0 where there is none.

        Raises:
            UserError: the image is damaged, or has an aspect ratio or an id that it cannot have.
        """
        path = self._files[frame]
        with open_image(path, "label") as image:
            ids = np.array(image)
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > LARGEST_ID:
            raise UserError(f"{path} holds {ids.dtype} {list(ids.shape)}; expected one channel of ids of at most "
                            f"{LARGEST_ID}: download it again")
        height, width = self._scene.image_size
        if abs(ids.shape[1] / ids.shape[0] * height / width - 1) > _SAME_ASPECT:
            raise UserError(f"{path} is {size_text(ids.shape)}, the photographs are {width}x{height}, which is another "
                            "aspect ratio; take the images that belong to them")
        classes = self._class_of_id[ids]
        if (classes == _UNKNOWN).any():
            raise UserError(f"{path} holds the id {ids[classes == _UNKNOWN][0]}, which {self._table} does not list; "
                            "download both again")
        return torch.from_numpy(classes.astype(np.uint8))

    @cached_property
    def _table(self) -> Path:
        return find_categories(self._scene)

    @cached_property
    def _class_of_id(self) -> np.ndarray:
        """int16 ``[65536]``, the class of every raw category's id."""
        if label_set().id_system == "scannet":
            return label_set().class_of_id.astype(np.int16)
        classes = np.full(LARGEST_ID + 1, _UNKNOWN, dtype=np.int16)
        classes[UNANNOTATED] = UNANNOTATED
        with reading(self._table, "ScanNet's table of categories", "download it again"):
            for row in read_categories(self._table):
                classes[int(row["id"])] = ids_to_classes(np.array(_id_of_set(row)))
        return classes


def _id_of_set(row: dict[str, str]) -> int:
    """The label set's id of a raw category."""
    if label_set().id_system == NAMES:
        return label_set().known_ids.get(row["raw_category"].strip(), UNANNOTATED)
    return int(row["nyu40id"] or UNANNOTATED)
