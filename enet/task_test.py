"""Task ``test``: scores of a trained network on any scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gin

from utils.device import choose_device
from utils.labels import label_set
from utils.plans import Plan
from utils.scenes import resolve_scenes
from utils.tasks import task


@task(
    summary="evaluate a trained network on any scenes",
    inputs=("checkpoint", "views"),
    records="{output_dir}",
    configures=(label_set,),
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
    overwrite: bool = False,
) -> Plan:
    """Score the checkpoint by the ScanNet benchmark's rule; sample pictures go to ``output_dir/scores/samples``.

    Colour channel, SH axes and normalisation are those that the checkpoint was trained with.

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
        overwrite: evaluate again although other settings' scores are there.
    """
    from enet.evaluation import CheckpointTest, views_to_test

    names = resolve_scenes(scenes, views[0])
    chosen = views_to_test(views, names, frames)
    measurement = CheckpointTest(
        Path(checkpoint), chosen, names, Path(output_dir) / "scores", batch_size, samples, choose_device(device),
        color, other_size,
    )  # fmt: skip
    return Plan(lambda: measurement.run(overwrite), [measurement.plan(overwrite)])
