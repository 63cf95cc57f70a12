"""Task ``test``: scores of a trained network on any scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from dataloader.lens_options import LensOptions
from dataloader.sensors import SensorOptions
from lib.plenoxel.options import RenderOptions
from model.fusion import FusionOptions
from model.fusion_refinement import RefinementOptions
from utils.device import choose_device
from utils.errors import UserError
from utils.labels import label_set
from utils.plans import Plan
from utils.scenes import resolve_scenes
from utils.tasks import task


@task(
    summary="evaluate a trained network on any scenes",
    inputs=("checkpoint", "views"),
    records="{output_dir}",
    configures=(FusionOptions, RefinementOptions, RenderOptions, SensorOptions, LensOptions, label_set),
)
def test(
    checkpoint: str = gin.REQUIRED,
    views: Sequence[str] = gin.REQUIRED,
    output_dir: str = gin.REQUIRED,
    scenes: str | Sequence[str] = "all",
    frames: str = "all",
    batch_size: int = 160,
    samples: int = 12,
    device: str = "auto",
    color: str | None = None,
    other_size: bool = False,
    fused: bool = False,
    fields_dir: str = "",
    calibration: str = "",
    overwrite: bool = False,
) -> Plan:
    """Score the checkpoint by the ScanNet benchmark's rule; sample pictures go to ``output_dir/scores/samples``.

    Colour channel, SH axes and normalisation are those that the checkpoint was trained with. Scores of predictions that
    are fused in fields go to ``output_dir/fused``, and beside the others into the metrics.

    Args:
        checkpoint: best.ckpt or last.ckpt of a training run, or a network file of the original project or ENet-ScanNet.
        views: folders of view stores; the first holds every scene, the others add what they have.
        output_dir: where the scores go.
        scenes: "all", a list of names, or a text file.
        frames: "all", or "held_out": only the frames of the first folder that were held out of the scenes' fields
            (FitData.holdout_every), those that SplitOptions.val_frames validates on.
        batch_size: views of a batch; does not change the scores.
        samples: how many pictures (image, ground truth, prediction) to keep.
        device: "auto", "cpu" or "cuda".
        color: what another project's network was trained on, which its file does not say: "rgb" for rendered colour,
            "photo" for photographs; None for rendered colour if it takes SH images, else photographs.
        other_size: whether views may have another size than those that the network was trained on.
        fused: also fuse each scene's predictions in its field, as 'fuse' does, and score what is rendered back into the
            tested views. Only these are fused; no labels are used.
        fields_dir: folder of the scenes' fields; needed with ``fused``.
        calibration: with ``fused``, folder "fused" of another test of the checkpoint, on labelled validation rooms,
            whose temperature its predictions are given; "" takes FusionOptions.temperature.
        overwrite: evaluate again although other settings' scores are there.
    """
    from enet.evaluation import CheckpointTest, views_to_test
    from enet.fused_test import FusedTest

    names = resolve_scenes(scenes, views[0])
    chosen = views_to_test(views, names, frames)
    measurement = CheckpointTest(
        Path(checkpoint), chosen, names, Path(output_dir) / "scores", batch_size, samples, choose_device(device),
        color, other_size,
    )  # fmt: skip
    if calibration and not fused:
        raise UserError(f"test.calibration = {calibration!r} is of fused predictions; set test.fused = True too")
    if not fused:
        return Plan(lambda: measurement.run(overwrite), [measurement.plan(overwrite)])
    if not fields_dir:
        raise UserError("test.fused = True needs test.fields_dir, the folder of the tested scenes' fields")
    in_fields = FusedTest.of(measurement, fields_dir, calibration)

    def work() -> dict[str, Any]:
        return {**measurement.run(overwrite), "fused": in_fields.run(overwrite)}

    return Plan(work, [measurement.plan(overwrite), in_fields.plan(overwrite)])
