"""The fit of one scene: levels, steps, exposure, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lib.plenoxel.options import RenderOptions
from model.capture import NEAR_METRES, CaptureModel
from model.fitting.background import BackgroundOptimizer
from model.fitting.exposure import ExposureEstimate
from model.fitting.extent import camera_reach
from model.fitting.frames import Frames
from model.fitting.optimizer import GridOptimizer
from model.fitting.options import FitBackground, FitGrid, FitOpen, FitOptimization, FitPoses, FitRegularization
from model.fitting.placement import Placement
from model.fitting.point_cloud import PointCloud
from model.fitting.poses import PoseRefinement
from model.fitting.ray_sampler import RayBatch, RaySampler
from model.fitting.refinement import prune, refine
from model.fitting.schedule import level_of
from model.fitting.start import starting_grid
from model.grid import PlenoxelGrid
from model.sphere_layers import SphereLayers
from utils.checkpoints import open_checkpoint
from utils.errors import UserError, reading
from utils.files import atomic_path
from utils.seeding import generator

logger = logging.getLogger(__name__)

STEPS_PER_DRAW = 16
"""Rays are drawn for this many steps at once. A fit can be interrupted and resumed between two draws."""

_RATE_RESOLUTION = 256  # voxels along each axis that FitOpen.density_rate is meant for


@dataclass(frozen=True)
class FitOptions:
    """All that a fit's result depends on besides the data and the seed."""

    grid: FitGrid = field(default_factory=FitGrid)
    optimization: FitOptimization = field(default_factory=FitOptimization)
    regularization: FitRegularization = field(default_factory=FitRegularization)
    rendering: RenderOptions = field(default_factory=RenderOptions)
    poses: FitPoses = field(default_factory=FitPoses)
    background: FitBackground = field(default_factory=FitBackground)
    open: FitOpen = field(default_factory=FitOpen)

    def __post_init__(self) -> None:
        levels = len(self.grid.resolutions)
        if len(self.optimization.steps) != levels:
            raise UserError(
                f"FitOptimization.steps has {len(self.optimization.steps)} entries, "
                f"FitGrid.resolutions has {levels}; they must be as many"
            )
        if len(self.optimization.rays_per_step) not in (1, levels):
            raise UserError(
                f"FitOptimization.rays_per_step has {len(self.optimization.rays_per_step)} entries; use 1 or {levels}"
            )

    @property
    def total_steps(self) -> int:
        return sum(self.optimization.steps)

    @property
    def costs(self) -> list[tuple[int, float]]:
        """Steps of each level, and what one roughly costs: its rays' samples."""
        sides = self.grid.resolutions
        return [(steps, float(self.rays_per_step(level) * sides[level]))
                for level, steps in enumerate(self.optimization.steps)]  # fmt: skip

    def density_rate(self, resolution: int) -> tuple[float, float]:
        """The learning rate of densities, at the first and at the last step, with so many voxels along each axis."""
        first_last = self.open.density_rate
        if self.optimization.density_rate is not None or first_last is None:
            return self.optimization.density_rate_from(self.grid.start)
        return tuple(rate * resolution / _RATE_RESOLUTION for rate in first_last)

    def rays_per_step(self, level: int) -> int:
        """Rays in each step of a level."""
        rays = self.optimization.rays_per_step
        return rays[level if len(rays) > 1 else 0]


class Fitter:
    """Fits a grid to photographs. On the CPU the same seed gives the same bits, resumed or not.

    Args:
        frames: training photographs, on the device to fit on.
        placement: of the grid in the world.
        cloud: surface points in metres to start from; None where there are none.
        near: distance within which cameras are similar, see :class:`CaptureModel`.
    """

    def __init__(
        self,
        frames: Frames,
        placement: Placement,
        cloud: PointCloud | None,
        options: FitOptions,
        seed: int = 0,
        exposure: bool = True,
        near: float = NEAR_METRES,
    ):
        self.options, self.step, self.seconds = options, 0, 0.0
        device, transform = frames.images.device, placement.transform()
        self._frames, self._transform, self._near = frames, transform, near
        given = transform.to_grid(frames.camera_to_world)
        self.poses, self._pose_rounds = PoseRefinement(frames, given, options.poses), 0
        self.sampler = RaySampler(
            frames, given, transform.scene_scale,
            generator(seed, "rays", device=device),
            with_distances=options.regularization.depth > 0 or options.regularization.free_space > 0,
        )
        self.exposure = ExposureEstimate(len(frames), device, exposure)
        self._tv_generator = generator(seed, "total variation")
        self._squared_error = torch.zeros((), device=device)
        self._errors_of = 0
        reach = camera_reach(frames.camera_to_world)
        clearance = options.grid.camera_clearance if frames.have_depth else options.open.clearance * reach
        grid = starting_grid(
            options.grid.resolutions[0], options.grid, cloud, frames, placement, options.open.nested or 1, clearance
        )
        self._free = 0.0  # distance in the grid's units up to which every ray is taken as free
        if not frames.have_depth:
            self._free = options.open.near * transform.scene_scale * reach
        self._background: BackgroundOptimizer | None = None
        if options.background.layers:
            layers = SphereLayers.around(options.background.layers, options.background.rows, device)
            grid.background = layers
            self._background = BackgroundOptimizer(layers, options.background, options.rendering, options.total_steps)
        self._set_grid(grid)

    @property
    def grid(self) -> PlenoxelGrid:
        return self._optimizer.grid

    @property
    def finished(self) -> bool:
        return self.step >= self.options.total_steps

    @property
    def level(self) -> int:
        """The level that the next step belongs to."""
        return level_of(self.step, self.options.optimization.steps)

    def run(self, listener: Callable[[Fitter, bool], None] | None = None, stop_at: int | None = None) -> None:
        """Run until all steps are done, or until ``stop_at`` steps are.

        Args:
            listener: called after every draw with the fitter and whether a level has just ended.
            stop_at: a step at which a draw ends.
        """
        last = self.options.total_steps if stop_at is None else stop_at
        started = time.monotonic() - self.seconds
        while self.step < last:
            level = self.level
            self._mend_poses()
            self._run_draw(level)
            level_ended = self.level != level or self.finished
            if level_ended:
                self._end_level()
            self.seconds = time.monotonic() - started
            if listener is not None:
                listener(self, level_ended)
                started = time.monotonic() - self.seconds

    def training_psnr(self) -> float:
        """PSNR in dB of all rays since the last call, against exposure-corrected photographs."""
        mean = float(self._squared_error) / max(1, self._errors_of)
        self._squared_error.zero_()
        self._errors_of = 0
        return -10 * float(torch.log10(torch.tensor(max(mean, 1e-12))))

    def rates(self) -> tuple[float, float]:
        """The learning rates of densities and SH coefficients in the next step."""
        return self._optimizer.rates(self.step)

    def capture(self) -> CaptureModel | None:
        """Exposures and pose corrections of the training cameras so far; None when neither is estimated."""
        if not self.exposure.enabled and not self.options.poses.rounds:
            return None
        turn, shift = self.poses.movements()
        to_world = self._transform.rotation  # of row vectors: the transpose of the world-to-grid rotation
        return CaptureModel(
            self._frames.camera_to_world.double().cpu(), self.exposure.gain.cpu(), self.exposure.offset.cpu(),
            turn @ to_world, shift @ to_world / self._transform.scene_scale, self._near,
        )  # fmt: skip

    def _mend_poses(self) -> None:
        if self._pose_rounds < self.options.poses.due(self.step, self.options.total_steps):
            self.poses.update(self.grid, self.exposure, self.options.rendering)
            self.sampler.move_cameras(self.poses.camera_to_grid)
            self._pose_rounds += 1

    def _run_draw(self, level: int) -> None:
        rays_per_step = self.options.rays_per_step(level)
        steps = min(STEPS_PER_DRAW, sum(self.options.optimization.steps[: level + 1]) - self.step)
        rays = self._draw(steps, rays_per_step)
        if self._free:
            rays = replace(rays, distances=torch.full_like(rays.colors[:, 0], self._free))
        targets = self.exposure.to_field(rays.colors, rays.frames)
        rendered = torch.empty_like(targets)
        backgrounds = self._backgrounds(rays, steps)
        for first, background in zip(range(0, len(targets), rays_per_step), backgrounds, strict=True):
            part = slice(first, first + rays_per_step)
            change = 0.0
            if rays.transparency is not None:
                usual = self.options.rendering.background_brightness
                change = (background - usual) * rays.transparency[part, None]
            seen = self._optimizer.step(self.step, rays.part(part), targets[part] + change, background)
            rendered[part] = seen - change
            self.step += 1
        self._squared_error += ((rendered - targets) ** 2).mean(-1).sum()
        self._errors_of += len(targets)
        self.exposure.observe(rendered, rays.colors, rays.frames)
        self.exposure.update()

    def _draw(self, steps: int, rays_per_step: int) -> RayBatch:
        """The rays of so many steps; the last ones of each are patches, where structure counts."""
        weights = self.options.regularization
        patches, side = weights.patches(rays_per_step), weights.structure_side
        if not patches:
            return self.sampler.draw(steps * rays_per_step)
        alone, together = rays_per_step - patches * side**2, patches * side**2
        single, squares = self.sampler.draw(steps * alone), self.sampler.draw_patches(steps * patches, side)
        return RayBatch.together([
            batch.part(slice(step * count, (step + 1) * count))
            for step in range(steps) for batch, count in ((single, alone), (squares, together))
        ])

    def _backgrounds(self, rays: RayBatch, steps: int) -> list[float | None]:
        """A new grey level in each step behind transparent pixels, or fog of the one level would fit as well.

        Likewise behind the background's layers, or what is as bright as the usual level would be left transparent.
        """
        if rays.transparency is None and self._background is None:
            return [None] * steps
        return torch.rand(steps, generator=self.sampler.generator, device=rays.colors.device).tolist()

    def _end_level(self) -> None:
        options = self.options
        before = self.grid.num_voxels
        if self.finished:
            grid = prune(self.grid, options.grid, self.sampler, options.rendering)
        else:
            resolution = options.grid.resolutions[self.level]
            grid = refine(self.grid, resolution, options.grid, self.sampler, options.rendering)
        if not grid.num_voxels:
            raise UserError(
                f"nothing is left of the grid after step {self.step}: pruning removed all {before} voxels; "
                "lower FitGrid.weight_threshold or density_threshold, or check poses and intrinsics"
            )
        self._set_grid(grid)
        logger.debug("step %d: %d voxels became %d at %d^3", self.step, before, grid.num_voxels, grid.resolution[0])

    def _set_grid(self, grid: PlenoxelGrid) -> None:
        options = self.options
        rate = options.density_rate(grid.resolution[0])
        self._optimizer = None  # frees the old one's memory before the new one takes its own
        self._optimizer = GridOptimizer(
            grid, replace(options.optimization, density_rate=rate), options.regularization, options.rendering,
            options.total_steps, self._tv_generator, self._background,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write all that is needed to resume, atomically."""
        optimizer = self._optimizer
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "links": self.grid.links,
            "density": self.grid.density,
            "sh": self.grid.sh,
            "square_density": optimizer.square_density,
            "square_sh": optimizer.square_sh,
            "exposure": self.exposure.state_dict(),
            "ray_generator": self.sampler.generator.get_state(),
            "tv_generator": self._tv_generator.get_state(),
            "camera_to_grid": self.poses.camera_to_grid,
            "pose_rounds": self._pose_rounds,
        }
        if self._background is not None:
            state["background"], state["square_background"] = self._background.layers.texture, self._background.square
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Resume from what :meth:`save` wrote; raises :class:`UserError` when it cannot be read."""
        what, advice = "the state of an interrupted fit", "delete it to start this scene again"
        state = open_checkpoint(path, what, advice, self.grid.device)
        with reading(path, what, advice):
            self._set_grid(PlenoxelGrid(state["links"], state["density"], state["sh"], background=self.grid.background))
            if self._background is not None:
                self._background.layers.texture.copy_(state["background"])
                self._background.square.copy_(state["square_background"])
            self._optimizer.square_density.copy_(state["square_density"])
            self._optimizer.square_sh.copy_(state["square_sh"])
            self.exposure.load_state_dict(state["exposure"])
            self.sampler.generator.set_state(state["ray_generator"].cpu())
            self._tv_generator.set_state(state["tv_generator"].cpu())
            self.poses.camera_to_grid = state["camera_to_grid"].double()
            self._pose_rounds = state["pose_rounds"]
            self.sampler.move_cameras(self.poses.camera_to_grid)
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            if not all(torch.isfinite(values).all() for values in (self.grid.density, self.grid.sh)):
                raise ValueError("its field holds NaN or infinity")
