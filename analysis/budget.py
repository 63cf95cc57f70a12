"""How many novel views each target gets, so that classes are balanced over all scenes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gin


@gin.configurable
@dataclass(frozen=True)
class BudgetOptions:
    """How many cameras are made.

    Attributes:
        views_per_class: of each class over all scenes, shared evenly by the scenes that show it: a class that few
            scenes show gets more in each.
        min_per_target: cameras that every target gets where so many can be placed.
        max_per_target: most cameras of one target.
        max_per_scene: most cameras of one scene; 0 is no limit.
    """

    views_per_class: int = 240
    min_per_target: int = 2
    max_per_target: int = 24
    max_per_scene: int = 96


def class_quota(num_scenes: int, num_targets: int, options: BudgetOptions) -> int:
    """Cameras of one class in one scene.

    Args:
        num_scenes: scenes that show the class.
        num_targets: its targets in this scene.
        options: the budget.
    """
    wanted = math.ceil(options.views_per_class / max(1, num_scenes))
    least, most = (count * num_targets for count in (options.min_per_target, options.max_per_target))
    return min(max(wanted, least), most)


def share_out(
    available: Sequence[int], classes: Sequence[int], scenes_with_class: Mapping[int, int], options: BudgetOptions
) -> list[int]:
    """Cameras that each target of one scene gets.

    Cameras are dealt out one by one: the first of every target, then the second of every target, and so on, until a
    class has its quota or the scene is full. So targets of one class get about the same, and no target gets none while
    another has two.

    Args:
        available: cameras that could be placed for each target.
        classes: the class of each target; in this order they are served.
        scenes_with_class: scenes that show each class, for :func:`class_quota`.
        options: the budget.
    """
    left = {
        index: class_quota(scenes_with_class.get(index, 1), classes.count(index), options) for index in set(classes)
    }
    room = options.max_per_scene or sum(available)
    given = [0] * len(available)
    for turn in range(max(available, default=0)):
        for target, class_index in enumerate(classes):
            if turn < available[target] and left[class_index] > 0 and room > 0:
                given[target] += 1
                left[class_index] -= 1
                room -= 1
    return given
