"""A trained network's predictions of rendered views."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dataloader import CameraList
from enet.geometry import geometry_images, pixel_to_gravity, stored_channels
from enet.picture import blurred
from enet.sh_frames import sh_matrices
from model.radiance_field import RenderedView
from utils.lenses import Lens
from utils.spherical_harmonics import transform_sh_image


class Predictor:
    """A network and the input it expects.

    Attributes:
        size: (height, width) of its training views.
        focal: (x, y) focal lengths of these in pixels; what a browser sees is rendered at that scale.
        color: what its colour was: "rgb" for rendered, "photo" for photographs.
        outputs: render outputs that it needs.
    """

    def __init__(self, checkpoint: str | Path, cameras: CameraList, size: tuple[int, int], device: torch.device):
        """Load a network.

        Args:
            checkpoint: its file; see :func:`enet.checkpoints.load_checkpoint`.
            cameras: of the scene, which give the scale of the training views.
            size: height and width of these where the file does not say it.
            device: to predict on.

        Raises:
            UserError: that cannot be done.
        """
        from enet.checkpoints import load_checkpoint, trained_size
        from enet.options import ViewOptions

        self._device = device
        self._module = load_checkpoint(checkpoint, device)
        self._options = ViewOptions(**self._module.hparams["views"])
        self._beside = self._module.network.beside
        self.size = trained_size(self._module) or tuple(size)
        intrinsics = cameras.resized(self.size).intrinsics[0]
        self.focal = float(intrinsics[0, 0]), float(intrinsics[1, 1])
        self.color = self._options.color
        self.outputs = ("rgb", *["sh"] * self._beside.uses_sh, *stored_channels(self._beside.geometry))

    @torch.inference_mode()
    def predict(
        self,
        view: RenderedView,
        camera_to_world: Tensor,  # [4, 4]
        intrinsics: Tensor,  # [3, 3], in pixels of the view
        world_to_grid: Tensor,  # rotation [3, 3]
        lens: Lens | None = None,
    ) -> Tensor:  # uint8 [H, W]
        """Class indices of a view, which has what ``outputs`` names; its colour may be a photograph."""
        images = {name: getattr(view, name).to(self._device)[None] for name in self.outputs}
        sh = geometry = None
        if self._beside.uses_sh:
            rotation = camera_to_world[None, :3, :3].double()
            matrices = sh_matrices(self._options.sh_frame, rotation, world_to_grid.double())[:, 0]
            sh = transform_sh_image(images["sh"], matrices.to(self._device))
        if self._beside.geometry:
            to_gravity = pixel_to_gravity(camera_to_world[None], intrinsics[None], lens).to(self._device)
            geometry = geometry_images(
                self._beside.geometry, images.get("depth"), images["alpha"], to_gravity, self._options.surface_alpha
            )
        logits = self._module(blurred(images["rgb"].clamp(0, 1), self._options.blur), sh, geometry)
        return logits[0].argmax(0).to(torch.uint8).cpu()
