"""Scenes on one device: those used least recently make room, and leave behind what they are made from in few bytes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from model.annotated_field import AnnotatedField, CompactScene

SHARE_OF_COMPACT = 0.5  # of the memory that scenes may take


class ResidentScenes:
    """Fields and meshes of scenes by number, read when they are first asked for.

    Where memory is limited, scenes that were read stay in their compact form, as long as these take at most half of it;
    the rest is for scenes that can be rendered.

    Args:
        load: reads one.
        most: bytes that all may take; infinite is no limit. One scene that can be rendered is there whatever it takes.

    Attributes:
        reads: how often a scene was read.
        unpacked: how often one was made from its compact form.
    """

    def __init__(self, load: Callable[[int], AnnotatedField], most: float):
        self._load, self._most = load, most
        self._ready: OrderedDict[int, AnnotatedField] = OrderedDict()
        self._compact: dict[int, CompactScene] = {}
        self.reads = self.unpacked = 0

    def __getitem__(self, number: int) -> AnnotatedField:
        if number in self._ready:
            self._ready.move_to_end(number)
            return self._ready[number]
        if number in self._compact:
            self.unpacked += 1
            scene = self._compact[number].unpack()
        else:
            self.reads += 1
            scene = self._load(number)
            self._keep_compact(number, scene)
        self._ready[number] = scene
        while len(self._ready) > 1 and self.ready_bytes + self.compact_bytes > self._most:
            self._ready.popitem(last=False)
        return scene

    def _keep_compact(self, number: int, scene: AnnotatedField) -> None:
        if math.isinf(self._most):
            return
        compact = CompactScene.of(scene)
        if compact is not None and self.compact_bytes + compact.nbytes <= SHARE_OF_COMPACT * self._most:
            self._compact[number] = compact

    @property
    def numbers(self) -> list[int]:
        """Scenes that can be rendered at once, the least recently used first."""
        return list(self._ready)

    @property
    def compact_bytes(self) -> int:
        """Bytes of compact scenes, with their meshes."""
        return sum(scene.nbytes for scene in self._compact.values())

    @property
    def ready_bytes(self) -> int:
        """Bytes of scenes that can be rendered, without meshes that compact ones hold."""
        return sum(scene.field_bytes if number in self._compact else scene.nbytes
                   for number, scene in self._ready.items())  # fmt: skip
