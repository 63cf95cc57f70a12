"""Task ``test``: scores of a trained network on any scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from utils.device import choose_device
from utils.tasks import task


@task(
    summary="measure a trained network on any scenes",
    inputs=("checkpoint", "views"),
    records="{output_dir}",
)
def test(
    checkpoint: str = gin.REQUIRED,
    views: Sequence[str] = gin.REQUIRED,
    output_dir: str = gin.REQUIRED,
    scenes: str | Sequence[str] = "all",
    every: int = 0,
    batch_size: int = 160,
    samples: int = 12,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score the checkpoint by the ScanNet benchmark's rule; sample pictures go to ``output_dir/scores/samples``.

    Colour channel, SH axes and normalisation are those that the checkpoint was trained with.

    Args:
        checkpoint: best.ckpt or last.ckpt of a training run.
        views: folders of view stores; the first holds every scene, the others add what they have.
        output_dir: where the scores go.
        scenes: "all", a list of names, or a text file.
        every: only views k of the first folder with k % every == 0, those that SplitOptions.val_every holds out.
        batch_size: views of a batch; does not change the scores.
        samples: how many pictures (image, truth, prediction) to keep.
        device: "auto", "cpu" or "cuda".
        overwrite: measure again although other settings' scores are there.
    """
    from enet.evaluation import test_checkpoint

    return test_checkpoint(
        Path(checkpoint), views, Path(output_dir) / "scores", scenes, batch_size, every, samples,
        choose_device(device), overwrite,
    )  # fmt: skip
