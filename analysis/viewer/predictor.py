"""A trained network's predictions of rendered views."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dataloader import CameraList
from enet.sh_frames import sh_matrices
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
        options = ViewOptions(**self._module.hparams["views"])
        self.size = trained_size(self._module) or tuple(size)
        intrinsics = cameras.resized(self.size).intrinsics[0]
        self.focal = float(intrinsics[0, 0]), float(intrinsics[1, 1])
        self.color, self._sh_frame = options.color, options.sh_frame
        self.outputs = ("rgb", "sh") if self._module.network.uses_sh else ("rgb",)

    @torch.inference_mode()
    def predict(
        self,
        color: Tensor,  # float32 [3, H, W] 0..1
        sh: Tensor | None,  # float32 [27, H, W], in the grid's axes
        camera_to_world: Tensor,  # [4, 4]
        world_to_grid: Tensor,  # rotation [3, 3]
    ) -> Tensor:  # uint8 [H, W]
        """Class indices of a view; ``sh`` is needed where ``outputs`` names it."""
        if "sh" in self.outputs:
            rotation = camera_to_world[None, :3, :3].double()
            matrices = sh_matrices(self._sh_frame, rotation, world_to_grid.double())[:, 0]
            sh = transform_sh_image(sh.to(self._device)[None], matrices.to(self._device))
        else:
            sh = None
        logits = self._module(color.clamp(0, 1).to(self._device)[None], sh)
        return logits[0].argmax(0).to(torch.uint8).cpu()
