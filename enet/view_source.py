"""Where views come from: a source, the steps it is asked for, and the batches it gives for them.

This is the whole interface of views, stored or rendered, for training and evaluation. What is drawn and when is a
function of seed and epoch alone, so that a run can be resumed exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from enet.mixing import mixed_order
from utils.seeding import generator


@dataclass
class ViewBatch:
    """Views ready for the network, up to normalisation.

    Attributes:
        color: float32 [B, 3, H, W], 0..1.
        sh: float32 [B, 27, H, W], or None.
        label: uint8 [B, H, W], class indices.
        weight: float32 [B, H, W], 0..1, weight of each pixel in the loss, or None.
        geometry: float32 [B, G, H, W], see :mod:`enet.geometry`, or None.
    """

    color: Tensor
    sh: Tensor | None
    label: Tensor
    weight: Tensor | None = None
    geometry: Tensor | None = None

    def first(self, count: int) -> ViewBatch:
        """The first ``count`` views."""
        return ViewBatch(*(None if values is None else values[:count] for values in vars(self).values()))


class DeferredBatch:
    """A batch on the device that uses it, in its source's own form.

    Decoding or rendering waits until the network needs it, so that a training step can be recorded as a whole. The
    parts are the source's own: Lightning, which converts the tensors of collections and dataclasses to the
    training's precision, does not look into this class.

    Attributes:
        make: makes the views of ``parts``: decodes or renders, augments if requested. It does not synchronise
            the host with the device.
        parts: tensors that differ from batch to batch, of equal shapes in a training, and what holds them; what
            stays the same belongs to ``make``.
    """

    def __init__(self, make: Callable[..., ViewBatch], *parts: Any):
        self.make, self.parts = make, parts

    def resolve(self) -> ViewBatch:
        """The views."""
        return self.make(*self.parts)


@dataclass(frozen=True)
class Step:
    """The views of one batch of one process.

    Attributes:
        views: int64 [B], their numbers in the source.
        draws: float32 [B, D], uniform random numbers of each view; None where nothing is random.
    """

    views: Tensor
    draws: Tensor | None = None

    def to(self, device: torch.device) -> Step:
        """The same on another device."""
        draws = None if self.draws is None else self.draws.to(device, non_blocking=True)
        return Step(self.views.to(device, non_blocking=True), draws)


pytree.register_dataclass(Step)


@dataclass(frozen=True)
class TrainingOrder:
    """The schedule of a process's training views, a function of the epoch. Its length is an epoch's steps.

    Attributes:
        epoch_views: views of an epoch, over all processes.
        batch_size: views of a batch of each process.
        seed: together with the epoch, determines everything random.
        rank: of this process.
        world_size: how many processes there are.
    """

    epoch_views: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return max(self.epoch_views // (self.batch_size * self.world_size), 1)

    def shuffled(self, num_views: int, num_draws: int, epoch: int) -> list[Step]:
        """Steps of ``epoch``, over ``num_views`` views that get ``num_draws`` random numbers each.

        Views come without repetition, or in several whole passes and a part of one when an epoch has more than there
        are. Over several processes, batch k of one process of a twice as large batch is the union of the batches k of
        two. The last, incomplete batch of an epoch is left out unless it is the only one.
        """
        order_generator = generator(self.seed, "order", epoch)
        passes = -(-self.epoch_views // num_views)
        order = torch.cat([torch.randperm(num_views, generator=order_generator) for _ in range(passes)])
        return self._steps(order, num_draws, epoch)

    def mixed(self, folder: Tensor, shares: Sequence[float], num_draws: int, epoch: int) -> list[Step]:
        """As :meth:`shuffled`, over views of several folders of which each gets its share of the epoch.

        Args:
            folder: int64 [N], the folder of each view.
            shares: of the folders, see :func:`enet.mixing.mixed_order`.
            num_draws: random numbers of each view.
            epoch: counted from 0.
        """
        order = mixed_order(folder, shares, self.epoch_views, generator(self.seed, "order", epoch))
        return self._steps(order, num_draws, epoch)

    def _steps(self, order: Tensor, num_draws: int, epoch: int) -> list[Step]:
        """This process's part of views in an order that all processes share."""
        draws = torch.rand(self.epoch_views, num_draws, generator=generator(self.seed, "augmentation", epoch))
        # Fewer views than one joint batch are shared out equally.
        views = min(self.batch_size, self.epoch_views // self.world_size)
        shape = (len(self), self.world_size, views)
        used = len(self) * self.world_size * views
        mine = (slice(None), self.rank)
        steps = zip(order[:used].reshape(shape)[mine], draws[:used].reshape(*shape, num_draws)[mine], strict=True)
        return [Step(*step) for step in steps]


def in_order(num_views: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Step]:
    """Every view once, the last batch as short as it comes; of several processes each takes every n-th batch."""
    return [Step(views) for views in torch.arange(num_views).split(batch_size)[rank::world_size]]


class ViewSource(ABC):
    """Annotated views, numbered from 0, that become batches on any device.

    A source is the same in every process: it is pickled into those that share a training, without its data on a
    device. Its batches depend on the steps it is given and on nothing else, so that a resumed training sees the same.

    Attributes:
        scenes: names of the scenes that are seen, sorted, each once.
        size: (height, width) of the views.
        has_sh: whether batches hold SH images.
        has_weight: whether batches hold weights.
        geometry: kinds of geometry that batches hold, in the order of :data:`enet.inputs.GEOMETRY`.
        num_draws: random numbers that each training view gets, first those of :class:`enet.draws.Draws`.
    """

    scenes: list[str]
    size: tuple[int, int]
    has_sh: bool
    has_weight: bool
    geometry: tuple[str, ...] = ()
    num_draws: int

    @abstractmethod
    def __len__(self) -> int:
        """Views there are."""

    @abstractmethod
    def identity(self) -> Any:
        """JSON-able; equal for equal views, so that a run knows whether it was made from them."""

    def describe(self, view: int) -> str:
        """Which view a number is, for people."""
        return f"view {view}"

    @abstractmethod
    def batches(self, steps: Sequence[Step], device: torch.device) -> Iterator[DeferredBatch]:
        """One batch for every step, on ``device``. All steps are known at once, so a source can prepare them ahead."""

    def training_steps(self, order: TrainingOrder, epoch: int) -> Sequence[Step]:
        """What this process trains on in ``epoch``: as many steps in every process.

        A source that does not have all views in every process and at every time overrides this.
        """
        return order.shuffled(len(self), self.num_draws, epoch)

    def expected_draws(self, epochs: int) -> Tensor:
        """float64 [N]: how often each view is drawn in a training of ``epochs``, relative to the mean of all views."""
        return torch.ones(len(self), dtype=torch.float64)

    def ordered_steps(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Sequence[Step]:
        """This process's share of steps that evaluate every view once, unaugmented."""
        return in_order(len(self), batch_size, rank, world_size)

    def statistics_steps(self, batch_size: int) -> Sequence[Step]:
        """Steps over whose views class frequencies and normalisation are computed, unaugmented.

        They are all views; a source that has too many to see them all before training overrides this.
        """
        return self.ordered_steps(batch_size)

    def prepare(self) -> None:  # noqa: B027  (nothing to do for a source that has all it needs)
        """Find out what training steps need and no epoch changes, before processes that share a training start."""

    def release(self) -> None:  # noqa: B027  (nothing to do for a source that keeps nothing on a device)
        """Free what lies on devices; it is made again where it is needed."""
