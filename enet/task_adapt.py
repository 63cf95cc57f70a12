"""Task ``adapt``: a trained network's normalisation adapted to views of other scenes, without labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from utils.device import choose_device
from utils.errors import UserError
from utils.labels import label_set
from utils.outputs import commit_output, prepare_output
from utils.plans import Plan, plan_output
from utils.scenes import resolve_scenes
from utils.tasks import task

logger = logging.getLogger(__name__)


@task(
    summary="adapt a trained network's normalisation to scenes, without their labels",
    inputs=("checkpoint", "views"),
    records="{output_dir}",
    configures=(label_set,),
)
def adapt(
    checkpoint: str = gin.REQUIRED,
    views: Sequence[str] = gin.REQUIRED,
    output_dir: str = gin.REQUIRED,
    scenes: str | Sequence[str] = "all",
    share: float = 0.7,
    batch_size: int = 32,
    device: str = "auto",
    other_size: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Write ``output_dir/network/best.ckpt``, which every task takes as it takes the checkpoint itself.

    The running statistics of all batch normalisations become mixtures of their own and of those that the views have.
    Nothing is trained, and labels are not looked at.

    Args:
        checkpoint: best.ckpt or last.ckpt of a training run.
        views: folders of view stores; the first holds every scene, the others add what they have.
        output_dir: where the folder "network" goes.
        scenes: "all", a list of names, or a text file.
        share: of the views' statistics, over 0 and at most 1; the rest are those of the training.
        batch_size: most views of a batch, all of which come from all over the scenes.
        device: "auto", "cpu" or "cuda".
        other_size: whether views may have another size than those that the network was trained on.
        overwrite: adapt again although a network of other settings is there.
    """
    import torch

    from dataloader import ViewStore
    from enet.adaptation import adapt_norms
    from enet.checkpoints import check_size, load_checkpoint
    from enet.splits import stores_of
    from enet.view_inputs import channels_of
    from utils.checkpoints import open_checkpoint
    from utils.files import atomic_path
    from utils.identity import file_identity, store_identity

    if not 0 < share <= 1:
        raise UserError(f"adapt.share = {share}: expected a share over 0 and at most 1")
    if batch_size < 2:
        raise UserError(f"adapt.batch_size = {batch_size}: expected 2 or more")
    file, target = Path(checkpoint), Path(output_dir) / "network"
    content = open_checkpoint(file, "a checkpoint of the train task", "train again", "cpu")
    if "hyper_parameters" not in content:
        raise UserError(f"{file} is another project's network, which cannot be adapted; expected best.ckpt or "
                        "last.ckpt of the train task")
    module = load_checkpoint(file, choose_device(device))
    names = resolve_scenes(scenes, views[0])
    stores = [ViewStore(selected.path) for selected in stores_of(names, views)]
    for store in stores:
        check_size(module, file, store.size, other_size, "adapt.other_size")
        for channel in channels_of(module):
            store.check_channel(channel)
    if len({store.size for store in stores}) > 1:
        sizes = ", ".join(sorted({f"{store.size[1]}x{store.size[0]}" for store in stores}))
        raise UserError(f"the views have several sizes ({sizes}); expected one: adapt.scenes chooses among scenes")
    settings = {
        "checkpoint": file_identity(file), "share": share, "batch_size": batch_size,
        "stores": [{"folder": store.path.absolute().parent.name, "scene": store.scene,
                    "store": store_identity(store.path, channels_of(module))} for store in stores],
    }  # fmt: skip
    count = sum(map(len, stores))

    def work() -> dict[str, Any]:
        partial = prepare_output(target, settings, overwrite)
        told = {"views": count, "scenes": list(names), "share": share}
        if partial is None:
            logger.info("%s is finished; nothing to do", target)
            return told
        adapt_norms(module, stores, share, batch_size)
        weights = module.cpu().state_dict()
        kept = {"hyper_parameters": content["hyper_parameters"], "state_dict": weights, "adapted": told}
        with atomic_path(partial / "best.ckpt") as temporary:
            torch.save(kept, temporary)
        commit_output(target)
        logger.info("%s: adapted to %d views of %d scenes", target, count, len(names))
        return told

    detail = f"{count} views of {len(names)} scenes"
    return Plan(work, [plan_output("network", target, settings, overwrite, detail)])
