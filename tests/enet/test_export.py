"""The exported network computes what the checkpoint's does."""

import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

pytest.importorskip("onnxruntime", reason="needs onnx, onnxscript and onnxruntime")
pytest.importorskip("onnxscript", reason="needs onnx, onnxscript and onnxruntime")

from enet import onnx_export  # noqa: E402
from enet.module import SegmentationModule  # noqa: E402
from utils.errors import UserError  # noqa: E402

SIZE = (31, 45)


def write_checkpoint(path: Path, seed: int) -> Path:
    """A network as a training leaves it: with statistics of its views, and of its batches in its normalisations."""
    module = SegmentationModule(network={"stem": "conv_sum"}, views={}, seed=seed)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "color_mean", "sh_mean")):
            buffer.copy_(0.2 * torch.randn(buffer.shape))
        if name.endswith(("running_var", "color_std", "sh_std")):
            buffer.copy_(0.5 + torch.rand(buffer.shape))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The network's file, exported from a checkpoint once, and what is told of it."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = write_checkpoint(folder / "best.ckpt", seed=0)
    result = onnx_export.export_onnx(checkpoint, folder / "network.onnx", SIZE, tolerance=1e-4)
    return folder / "network.onnx", result


def test_logits_agree_at_an_odd_size_and_another_batch(exported):
    import numpy as np
    import onnxruntime

    path, result = exported
    assert result["relative_difference"] < 1e-4 and result["pixels_of_same_class"] > 0.999
    session = onnxruntime.InferenceSession(path)
    inputs = {"color": np.zeros((1, 3, *SIZE), np.float32), "sh": np.zeros((1, 27, *SIZE), np.float32)}
    assert session.run(None, inputs)[0].shape == (1, 21, *SIZE)


def test_other_results_are_refused_and_leave_nothing(exported, tmp_path, monkeypatch):
    """Instead of the checkpoint's network another one is written."""
    monkeypatch.setattr(onnx_export, "_write", lambda module, path, size: shutil.copy(exported[0], path))
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", seed=1)
    with pytest.raises(UserError, match="network.onnx was not written: its logits differ from .*best.ckpt's by"):
        onnx_export.export_onnx(checkpoint, tmp_path / "network.onnx", SIZE, tolerance=1e-2)
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_damaged_checkpoint_is_named(tmp_path):
    broken = tmp_path / "broken.ckpt"
    torch.save({"state_dict": {}}, broken)
    with pytest.raises(UserError, match="broken.ckpt"):
        onnx_export.export_onnx(broken, tmp_path / "network.onnx", SIZE, tolerance=1e-4)
