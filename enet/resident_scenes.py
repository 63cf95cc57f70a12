"""Scenes on one device: those used least recently make room, and leave behind what they are made from in few bytes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch

from enet.live_options import DataOptions
from enet.live_scenes import LiveScene
from model.annotated_field import AnnotatedField, CompactScene
from utils.device import exact_device, free_cached

SHARE_OF_COMPACT = 0.5  # of the memory that scenes may take


class ResidentScenes:
    """Fields and meshes of scenes by name or number, read when they are first asked for.

    Where memory is limited, scenes that were read stay in their compact form, as long as these take at most half of it;
    the rest is for scenes that can be rendered.

    Args:
        load: reads one.
        most: bytes that all may take; infinite is no limit. One scene that can be rendered is there whatever it takes.

    Attributes:
        reads: how often a scene was read.
        unpacked: how often one was made from its compact form.
    """

    def __init__(self, load: Callable[[Any], AnnotatedField], most: float):
        self._load, self._most = load, most
        self._ready: OrderedDict[Hashable, AnnotatedField] = OrderedDict()
        self._compact: dict[Hashable, CompactScene] = {}
        self.reads = self.unpacked = 0

    def __getitem__(self, name: Hashable) -> AnnotatedField:
        if name in self._ready:
            self._ready.move_to_end(name)
            return self._ready[name]
        if name in self._compact:
            self.unpacked += 1
            scene = self._compact[name].unpack()
        else:
            self.reads += 1
            scene = self._load(name)
            self._keep_compact(name, scene)
        self._ready[name] = scene
        while len(self._ready) > 1 and self.ready_bytes + self.compact_bytes > self._most:
            self._ready.popitem(last=False)
        return scene

    def _keep_compact(self, name: Hashable, scene: AnnotatedField) -> None:
        if math.isinf(self._most):
            return
        compact = CompactScene.of(scene)
        if compact is not None and self.compact_bytes + compact.nbytes <= SHARE_OF_COMPACT * self._most:
            self._compact[name] = compact

    @property
    def names(self) -> list[Hashable]:
        """Scenes that can be rendered at once, the least recently used first."""
        return list(self._ready)

    @property
    def compact_bytes(self) -> int:
        """Bytes of compact scenes, with their meshes."""
        return sum(scene.nbytes for scene in self._compact.values())

    @property
    def ready_bytes(self) -> int:
        """Bytes of scenes that can be rendered, without meshes that compact ones hold."""
        return sum(scene.field_bytes if name in self._compact else scene.nbytes
                   for name, scene in self._ready.items())  # fmt: skip


class ScenePool:
    """The scenes of all sources of a training, on each device once.

    It is pickled into processes that share a training without what is on devices.

    Args:
        data: how scenes are annotated, and the memory that they may take on each device.
    """

    def __init__(self, data: DataOptions):
        self._data = data
        self._scenes: dict[str, LiveScene] = {}
        self._on_device: dict[torch.device, ResidentScenes] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_device": {}}

    def add(self, scenes: Sequence[LiveScene]) -> None:
        """Make scenes known by their names; nothing is read."""
        self._scenes |= {scene.name: scene for scene in scenes}

    def on(self, device: torch.device) -> ResidentScenes:
        """Those on a device, by their names."""
        device = exact_device(device)
        if device not in self._on_device:
            self._on_device[device] = ResidentScenes(partial(self._load, device), self._data.resident_bytes)
        return self._on_device[device]

    def release(self) -> None:
        """Free what is on devices, for other processes as well."""
        self._on_device.clear()
        free_cached()

    def _load(self, device: torch.device, name: str) -> AnnotatedField:
        scene = self._scenes[name]
        return AnnotatedField.load(scene.field, scene.scan, self._data.label_rule, device)
