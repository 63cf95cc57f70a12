"""The exported network computes what the trained one does."""

import pytest
import torch

pytest.importorskip("onnxruntime", reason="needs onnx, onnxscript and onnxruntime")
pytest.importorskip("onnxscript", reason="needs onnx, onnxscript and onnxruntime")

from enet import onnx_export  # noqa: E402
from enet.task_train import train  # noqa: E402
from tests.enet.bindings import bind_split  # noqa: E402
from utils.errors import UserError  # noqa: E402


@pytest.fixture
def checkpoint(views, tmp_path):
    import gin

    gin.bind_parameter("NetworkOptions.stem", "conv_sum")
    bind_split(["scene0000_00"], ["scene0001_00"], None)
    train(
        views=[str(views)], runs_dir=str(tmp_path / "runs"), name="run", epochs=2, batch_size=4, device="cpu",
    )  # fmt: skip
    yield tmp_path / "runs/run/training/best.ckpt"
    gin.clear_config()


def test_logits_agree_at_an_odd_size_and_another_batch(checkpoint, tmp_path):
    import numpy as np
    import onnxruntime

    output = tmp_path / "network.onnx"
    result = onnx_export.export_onnx(checkpoint, output, (31, 45), tolerance=1e-4)
    assert result["relative_difference"] < 1e-4 and result["pixels_of_same_class"] > 0.999
    session = onnxruntime.InferenceSession(output)
    inputs = {"color": np.zeros((1, 3, 31, 45), np.float32), "sh": np.zeros((1, 27, 31, 45), np.float32)}
    assert session.run(None, inputs)[0].shape == (1, 21, 31, 45)


def test_other_results_are_refused_and_leave_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_write", lambda module, path, size: path.write_bytes(b"another network"))
    monkeypatch.setattr(onnx_export, "_compare", lambda module, path, size: (0.5, 0.7))
    output = tmp_path / "network.onnx"
    with pytest.raises(UserError, match="differ.*by 0.5.*tolerance"):
        onnx_export.export_onnx(checkpoint, output, (31, 45), tolerance=1e-4)
    assert not list(tmp_path.glob("*network*"))


def test_damaged_checkpoint_is_named(tmp_path):
    broken = tmp_path / "broken.ckpt"
    torch.save({"state_dict": {}}, broken)
    with pytest.raises(UserError, match="broken.ckpt"):
        onnx_export.export_onnx(broken, tmp_path / "network.onnx", (31, 45), tolerance=1e-4)
