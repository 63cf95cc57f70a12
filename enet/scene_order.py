"""Which scenes are visited when, where not all fit on a device: in groups that do, each process its own scenes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from enet.view_source import Step, TrainingOrder
from utils.errors import UserError
from utils.seeding import generator


def own_scenes(num_scenes: int, order: TrainingOrder) -> Tensor:
    """Numbers int64 of the scenes that a process has, the same in all epochs.

    Raises:
        UserError: there are more processes than scenes.
    """
    if num_scenes < order.world_size:
        raise UserError(f"train.devices = {order.world_size}, but there are {num_scenes} training scenes, which do not "
                        "fit on one device (data.resident), so that each process needs some of its own; use fewer")
    dealt = torch.randperm(num_scenes, generator=generator(order.seed, "scenes of processes"))
    return dealt[order.rank :: order.world_size].sort().values


def group_scenes(scenes: Sequence[int], nbytes: Sequence[int], most: float) -> list[list[int]]:
    """Scenes in their order, cut into groups that take at most ``most`` bytes together, or are a single scene.

    Args:
        scenes: their numbers.
        nbytes: of every scene by its number.
        most: see above.
    """
    groups: list[list[int]] = []
    taken = 0
    for scene in scenes:
        if not groups or taken + nbytes[scene] > most:
            groups.append([])
            taken = 0
        groups[-1].append(scene)
        taken += nbytes[scene]
    return groups


def visiting_steps(
    scene: Tensor,  # int64 [N], the scene of each view
    nbytes: Sequence[int],
    most: float,
    order: TrainingOrder,
    num_draws: int,
    epoch: int,
) -> list[Step]:
    """A process's steps of an epoch, which visit its scenes one group after the other.

    Views of the process's scenes come without repetition, or in whole passes and a part of one, and in random order
    within a group; so do the scenes. All is a function of seed, epoch and rank.

    Args:
        nbytes: of every scene, on a device.
        most: that a group may take.
    """
    mine = own_scenes(len(nbytes), order)
    names = ("order", epoch, order.rank)
    shuffled = mine[torch.randperm(len(mine), generator=generator(order.seed, "scenes", *names[1:]))]
    group_of = torch.empty(len(nbytes), dtype=torch.int64)
    for number, group in enumerate(group_scenes(shuffled.tolist(), nbytes, most)):
        group_of[group] = number
    views = torch.isin(scene, mine).nonzero()[:, 0]
    share = TrainingOrder(len(order) * order.batch_size, order.batch_size)
    passes = -(-share.epoch_views // len(views))
    random = generator(order.seed, *names)
    drawn = torch.cat([views[torch.randperm(len(views), generator=random)] for _ in range(passes)])[: share.epoch_views]
    visited = drawn[group_of[scene[drawn]].argsort(stable=True)]
    draws = torch.rand(len(visited), num_draws, generator=generator(order.seed, "augmentation", epoch, order.rank))
    batches = zip(visited.split(order.batch_size), draws.split(order.batch_size), strict=True)
    return [Step(*batch) for batch in batches]
