"""Scenes on one device: those used least recently make room for others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from model.annotated_field import AnnotatedField


class ResidentScenes:
    """Fields and meshes of scenes by number, read when they are first asked for.

    Args:
        load: reads one.
        most: bytes that all may take; one scene is there whatever it takes.

    Attributes:
        reads: how often a scene was read.
    """

    def __init__(self, load: Callable[[int], AnnotatedField], most: float):
        self._load, self._most = load, most
        self._scenes: OrderedDict[int, AnnotatedField] = OrderedDict()
        self.reads = 0

    def __getitem__(self, number: int) -> AnnotatedField:
        if number in self._scenes:
            self._scenes.move_to_end(number)
            return self._scenes[number]
        self.reads += 1
        self._scenes[number] = self._load(number)
        while len(self._scenes) > 1 and self.nbytes > self._most:
            self._scenes.popitem(last=False)
        return self._scenes[number]

    @property
    def numbers(self) -> list[int]:
        """Those that are there, the least recently used first."""
        return list(self._scenes)

    @property
    def nbytes(self) -> int:
        """Bytes that all take."""
        return sum(scene.nbytes for scene in self._scenes.values())
