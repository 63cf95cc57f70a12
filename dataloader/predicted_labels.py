"""Labels that a network predicted for a store's views, in place of its own: classes, and how sure they are.

A folder, as 'fuse' writes it: ``label.npy`` uint8 ``[N, H, W]``, class indices, and ``confidence.npy`` alike, 255 for
1, in the order of the store's views.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.view_array import ViewArray, channel_file
from dataloader.view_store import ViewStore
from utils.errors import UserError
from utils.identity import file_identity, value_identity
from utils.labels import label_set

LABEL_FILE, CONFIDENCE_FILE = "label.npy", "confidence.npy"


@dataclass(frozen=True)
class PredictedLabels:
    """Predicted labels of a store.

    Attributes:
        folder: that holds them.
        trained_on: the scenes that the network which predicted them was trained or validated on.
    """

    folder: Path
    trained_on: tuple[str, ...] = ()

    def identity(self) -> str:
        """Of classes and confidence."""
        return value_identity([file_identity(self.folder / name) for name in (LABEL_FILE, CONFIDENCE_FILE)])

    def open(self, store: ViewStore) -> OpenedLabels:
        """For reading, checked against the store without reading pixels.

        Raises:
            UserError: they are absent or damaged, or have other sizes than the store's views.
        """
        shape = (len(store), *store.size)
        names = (Path(name).stem for name in (LABEL_FILE, CONFIDENCE_FILE))
        arrays = [ViewArray(self.folder, name, np.dtype(np.uint8), shape) for name in names]
        for array in arrays:
            array.offsets  # noqa: B018  (its file is checked here)
        return OpenedLabels(*arrays)


@dataclass(frozen=True)
class OpenedLabels:
    """The same, opened; holds neither pixels nor open files."""

    classes: ViewArray
    confidences: ViewArray

    def label(self, view: int) -> Tensor:
        """Class indices uint8 ``[H, W]`` of a view.

        Raises:
            UserError: they are no class indices.
        """
        labels = torch.from_numpy(self.classes.read(view, view + 1)[0])
        if int(labels.max()) >= label_set().num_classes:
            path = channel_file(self.classes.folder, self.classes.name)
            raise UserError(f"{path} holds class {int(labels.max())} in view {view}; expected class "
                            f"indices 0..{label_set().num_classes - 1}: run 'fuse' again")
        return labels

    def confidence(self, view: int) -> Tensor:
        """uint8 ``[H, W]`` of a view; 255 is 1."""
        return torch.from_numpy(self.confidences.read(view, view + 1)[0])
