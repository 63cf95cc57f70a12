"""Task ``export``: a trained network as an ONNX file, checked against the original."""

from __future__ import annotations

from pathlib import Path

import gin

from utils.labels import label_set
from utils.outputs import MAKE, REPLACE
from utils.plans import Item, Plan
from utils.tasks import task


@task(
    summary="write a trained network as an ONNX file and check that it computes the same",
    inputs=("checkpoint",),
    records="{output_dir}",
    configures=(label_set,),
)
def export(
    checkpoint: str = gin.REQUIRED,
    output_dir: str = gin.REQUIRED,
    size: tuple[int, int] | None = None,
    tolerance: float = 1e-4,
    other_size: bool = False,
) -> Plan:
    """Write ``output_dir/network.onnx``: colour in 0..1 (and raw SH) to logits, normalisation included.

    The batch's size is free, the image's is fixed. Needs the packages onnx, onnxscript and onnxruntime.

    Args:
        checkpoint: best.ckpt or last.ckpt of a training run.
        output_dir: where network.onnx goes.
        size: height and width of the images; None for what the network was trained on.
        tolerance: largest allowed difference of the logits, as a share of the largest logit.
        other_size: whether ``size`` may be another than that of the images that the network was trained on.
    """
    from enet.onnx_export import export_onnx, require_packages

    require_packages()
    output = Path(output_dir) / "network.onnx"
    return Plan(
        lambda: export_onnx(Path(checkpoint), output, None if size is None else tuple(size), tolerance, other_size),
        [Item("network", output, REPLACE if output.exists() else MAKE)],
    )
