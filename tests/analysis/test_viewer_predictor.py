"""What the viewer's network sees of a view is what it was trained on: blur, axes of SH, geometry."""

import pytorch_lightning as pl
import torch

from analysis.viewer.predictor import Predictor
from dataloader import CameraList
from enet.geometry import geometry_images, pixel_to_gravity
from enet.inputs import GEOMETRY
from enet.module import SegmentationModule
from enet.picture import blurred
from enet.sh_frames import sh_matrices
from model.radiance_field import RenderedView
from utils.cameras import look_at
from utils.spherical_harmonics import transform_sh_image

SIZE = (28, 36)


def test_a_view_goes_in_as_in_training(tmp_path):
    views = {"sh_frame": "camera", "blur": 1.5, "surface_alpha": 0.3}
    module = SegmentationModule({"stem": "conv_sum", "inputs": ("sh", *GEOMETRY)}, views=views, size=SIZE)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    pose = look_at(torch.tensor([[1.0, 0.5, 1.4]]).double(), torch.tensor([[-1.0, 0.2, 0.7]]).double())
    intrinsics = torch.tensor([[[30.0, 0, 17], [0, 31, 15], [0, 0, 1]]]).double()
    cameras = CameraList("room", ["0"], pose, intrinsics, SIZE)
    predictor = Predictor(tmp_path / "best.ckpt", cameras, SIZE, torch.device("cpu"))
    assert predictor.outputs == ("rgb", "sh", "depth", "alpha")
    view = RenderedView(torch.rand(3, *SIZE), torch.randn(27, *SIZE), 1 + torch.rand(SIZE), torch.rand(SIZE))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    sh = transform_sh_image(view.sh[None], sh_matrices("camera", pose[:, :3, :3], turn)[:, 0])
    to_gravity = pixel_to_gravity(pose, intrinsics)
    geometry = geometry_images(tuple(GEOMETRY), view.depth[None], view.alpha[None], to_gravity, 0.3)
    expected = module.predict(blurred(view.rgb[None], 1.5), sh, geometry)[0].argmax(0)
    found = predictor.predict(view, pose[0], intrinsics[0], turn)
    assert found.dtype == torch.uint8 and torch.equal(found.long(), expected)
    assert len(expected.unique()) > 1
