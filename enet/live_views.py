"""Views rendered and annotated as they are needed, from fields and meshes that lie on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from enet.decoding import ViewFinisher, ViewImages
from enet.draws import NUM_DRAWS
from enet.fresh_poses import FreshPoses
from enet.geometry import mirror_signs, stored_channels
from enet.live_cameras import BatchCameras, LiveCameras
from enet.live_options import DataOptions
from enet.live_scenes import LiveScene
from enet.options import AugmentationOptions, ViewOptions
from enet.resident_scenes import SHARE_OF_COMPACT, ResidentScenes, ScenePool
from enet.scene_order import visiting_steps
from enet.view_source import DeferredBatch, Step, TrainingOrder, ViewSource, in_order
from lib.plenoxel.options import RenderOptions
from model.annotated_field import AnnotatedField, AnnotatedViews
from model.view_rendering import RENDERER_VERSIONS
from utils.errors import UserError


class LiveViews(ViewSource):
    """Views of scenes at recorded poses, or in training at new ones near them or elsewhere in the same scene.

    View i of the recorded poses is what the stores of the same scenes have as view i. Fields and meshes are read when
    they are first needed, and stay on the device as far as ``data.resident`` allows.
    """

    def __init__(
        self,
        scenes: Sequence[LiveScene],
        data: DataOptions,
        options: ViewOptions,
        uses_sh: bool,
        augmentation: AugmentationOptions | None = None,
        weighted: bool = False,
        geometry: Sequence[str] = (),
        poses: FreshPoses | None = None,
        pool: ScenePool | None = None,
    ):
        """Take over the scenes, without reading fields or meshes.

        Args:
            scenes: with the recorded poses that are used.
            data: how they are rendered and annotated.
            options: the network's input from a view.
            uses_sh: whether it takes SH images.
            augmentation: of training views; None changes nothing.
            weighted: whether pixels are weighted by render quality: that of ``poses``, 1 at recorded ones.
            geometry: kinds of geometry that the network takes, in the order of :data:`enet.inputs.GEOMETRY`.
            poses: new poses of views that get random numbers; None leaves them the recorded ones.
            pool: what keeps the scenes on devices, also for other sources; None makes one.

        Raises:
            UserError: photographs are asked for, or a weight that ``poses`` do not have.
        """
        if options.color != "rgb":
            raise UserError(f"ViewOptions.color = {options.color!r}, but live views are renders; use 'rgb', or "
                            "data.source = 'stored'")
        if weighted and (poses is None or not poses.rates):
            raise UserError("LossOptions asks for render quality, which views at recorded poses do not have; set "
                            "data.poses = @DomePoses(), or switch LossOptions.quality off")
        self.scenes = sorted(scene.name for scene in scenes)
        self.size, self.has_sh, self.has_weight = data.size, uses_sh, weighted
        self.geometry, self.num_draws = tuple(geometry), NUM_DRAWS + (0 if poses is None else poses.num_draws)
        self._scenes, self._data, self._options, self._augmentation = list(scenes), data, options, augmentation
        self._render = RenderOptions()
        mirroring = augmentation is not None and augmentation.mirror > 0
        turned = uses_sh and (options.sh_frame != "grid" or mirroring)
        self.cameras = LiveCameras(self._scenes, poses, options.sh_frame if turned else None, bool(self.geometry))
        channels = stored_channels(self.geometry)
        self._outputs = ("rgb", *(("sh",) if uses_sh else ()), *(("depth", "alpha") if weighted else channels))
        self.pool = pool or ScenePool(data)
        self.pool.add(self._scenes)

    def __len__(self) -> int:
        return len(self.cameras)

    def identity(self) -> dict[str, Any]:
        """As in the base class, but that files are not read: :class:`utils.identity.FileSet` stands for them."""
        poses = self.cameras.fresh
        return {
            "live": [scene.identity() for scene in self._scenes],
            "size": list(self.size), "label_rule": self._data.label_rule, "near": self._data.near,
            "options": vars(self._render), "renderers": RENDERER_VERSIONS, "fits": self.fits,
            "resident": None if self.fits else self._data.resident,
            "statistics_views": self._data.statistics_views, "poses": None if poses is None else poses.identity(),
        }  # fmt: skip

    def describe(self, view: int) -> str:
        return self.cameras.describe(view)

    @cached_property
    def nbytes(self) -> list[int]:
        """What each scene takes on a GPU, nearly."""
        return [scene.nbytes for scene in self._scenes]

    @property
    def fits(self) -> bool:
        """Whether all scenes may be on a device at once."""
        return sum(self.nbytes) <= self._data.resident_bytes

    def training_steps(self, order: TrainingOrder, epoch: int) -> Sequence[Step]:
        if self.fits:
            return super().training_steps(order, epoch)
        most = self._data.resident_bytes * (1 - SHARE_OF_COMPACT)
        return visiting_steps(self.cameras.scene, self.nbytes, most, order, self.num_draws, epoch)

    def statistics_steps(self, batch_size: int) -> Sequence[Step]:
        most = self._data.statistics_views
        if not most or len(self) <= most:
            return super().statistics_steps(batch_size)
        spread = torch.linspace(0, len(self) - 1, most, dtype=torch.float64).long()
        return [Step(spread[step.views]) for step in in_order(most, batch_size)]

    def batches(self, steps: Sequence[Step], device: torch.device) -> Iterator[DeferredBatch]:
        """One batch for every step; its views are rendered when the batch is asked for, on the current stream.

        Raises:
            UserError: a field or a mesh cannot be read.
        """
        resident = self.pool.on(device)
        finish = ViewFinisher(
            self._options, self.geometry, mirror_signs(self.geometry).to(device), self._augmentation
        )  # fmt: skip
        draws = [None if step.draws is None else step.draws.to(device, non_blocking=True) for step in steps]
        for step, numbers in zip(steps, draws, strict=True):
            yield DeferredBatch(finish, self._render_step(step, resident, device), numbers)

    def prepare(self) -> None:
        """Search the places of new poses in all scenes."""
        self.cameras.prepare()

    def release(self) -> None:
        self.pool.release()

    @torch.no_grad()
    def _render_step(self, step: Step, resident: ResidentScenes, device: torch.device) -> ViewImages:
        cameras = self.cameras.of_step(step)
        placed = cameras.to(device, self.size)
        parts: list[AnnotatedViews] = []
        weights: list[Tensor | None] = []
        for scene, rows in cameras.by_scene:
            annotated = resident[self._scenes[scene].name]
            views = annotated.look(placed.of(rows), self.size, self._render, self._outputs, self._data.near)
            parts.append(views)
            weights.append(self._quality(cameras, scene, rows, views, annotated) if self.has_weight else None)
        images = [
            _joined([getattr(part, name) for part in parts], placed.order)
            for name in ("rgb", "label", "sh", "depth", "alpha")
        ]
        return ViewImages(*images, _joined(weights, placed.order), placed.sh_matrices, placed.to_gravity)

    def _quality(
        self, cameras: BatchCameras, scene: int, rows: slice, views: AnnotatedViews, annotated: AnnotatedField
    ) -> Tensor:
        """Of a scene's views; 1 at recorded poses."""
        full = torch.ones_like(views.alpha)
        drawn = cameras.drawn[rows]
        if not drawn.any():
            return full
        quality = self.cameras.drawer(scene).quality(views, cameras.poses_of(rows), annotated.field)
        return torch.where(drawn.to(full.device, non_blocking=True)[:, None, None], quality, full)


def _joined(parts: Sequence[Tensor | None], order: Tensor | None) -> Tensor | None:
    """The parts of a batch behind each other, then in the batch's order."""
    if parts[0] is None:
        return None
    whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return whole if order is None else whole.index_select(0, order)
