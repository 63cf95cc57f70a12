"""ONNX export with a check of equality in ONNX Runtime."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enet.checkpoints import check_size, load_checkpoint, trained_size
from enet.module import SegmentationModule
from enet.stems import COLOR_CHANNELS
from utils.errors import UserError
from utils.files import atomic_path
from utils.spherical_harmonics import SH_CHANNELS

logger = logging.getLogger(__name__)
_REQUIRED = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Raise :class:`UserError` that names the packages that are missing."""
    missing = [name for name in _REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the export task needs {', '.join(missing)}; install it: pip install {' '.join(missing)}")


def export_onnx(
    checkpoint: Path, output: Path, size: tuple[int, int] | None, tolerance: float, other_size: bool = False
) -> dict[str, Any]:
    """Export a checkpoint and compare logits on random views; see the export task.

    Raises:
        UserError: a package is missing, no size is known, the checkpoint cannot be read, or the exported network's
            output differs.
    """
    require_packages()
    module = load_checkpoint(checkpoint, torch.device("cpu"))
    size = size or trained_size(module)
    if size is None:
        raise UserError(f"{checkpoint} does not say which size it was trained on; set export.size = (height, width)")
    check_size(module, checkpoint, size, other_size, "export.other_size")
    with atomic_path(output) as temporary:
        _write(module, temporary, size)
        difference, same_class = _compare(module, temporary, size)
        if not difference <= tolerance:
            raise UserError(
                f"{output} was not written: its logits differ from {checkpoint}'s by {difference:.2g} of the largest, "
                f"more than export.tolerance = {tolerance:g}"
            )
    logger.info("%s: logits agree to %.1e of the largest", output, difference)
    return {
        "bytes": output.stat().st_size,
        "relative_difference": difference,
        "pixels_of_same_class": same_class,
        "inputs": list(_example(module, 1, size)),
    }


def _example(module: SegmentationModule, batch: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Random views with colours in 0..1, and what is beside them spread like the training's."""
    generator = torch.Generator().manual_seed(batch)
    views = {"color": torch.rand(batch, COLOR_CHANNELS, *size, generator=generator)}
    beside = module.network.beside
    for name, channels in (("sh", SH_CHANNELS * beside.uses_sh), ("geometry", beside.geometry_channels)):
        if channels:
            noise = torch.randn(batch, channels, *size, generator=generator)
            mean, std = (getattr(module, f"{name}_{moment}")[:, None, None] for moment in ("mean", "std"))
            views[name] = noise * std + mean
    return views


def _write(module: SegmentationModule, path: Path, size: tuple[int, int]) -> None:
    views = _example(module, 2, size)
    batch = torch.export.Dim("batch", min=1)
    for library in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            kwargs=views,
            input_names=list(views),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch} for name in views},
            dynamo=True,
            verbose=False,
        )
        program.save(path, external_data=False)


def _compare(module: SegmentationModule, path: Path, size: tuple[int, int]) -> tuple[float, float]:
    """Largest difference of logits relative to the largest logit, and the share of pixels with the same class."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    views = _example(module, 3, size)
    found = torch.from_numpy(session.run(None, {name: view.numpy() for name, view in views.items()})[0])
    with torch.inference_mode():
        expected = module(**views)
    difference = float((found - expected).abs().max() / expected.abs().max())
    return difference, float((found.argmax(1) == expected.argmax(1)).double().mean())
