"""The options of a fit, in seven groups."""

from __future__ import annotations

from dataclasses import dataclass

import gin

from model.fitting.similarity import WINDOW
from utils.errors import UserError, check_choice

STARTS = ("auto", "depth", "mesh", "points", "dense")
PRUNE_RULES = ("weight", "density")


@gin.configurable
@dataclass(frozen=True)
class FitData:
    """Which frames are fitted, and how they are read.

    Attributes:
        holdout_every: every n-th frame in numeric order (0, n, 2n, ...) is held out of the fit for evaluation; 0 holds
            none out. A dataset with splits of its own is fitted to "train" and evaluated on "test" (or "val") unless
            this is 0.
        max_frames: use at most this many frames for training, evenly spaced.
        max_image_side: larger photographs are reduced so that their longer side has this many pixels.
        blurry_share: leave out this share of the training frames, the blurriest relative to their neighbours.
        exposure: estimate a gain and an offset for each photograph and colour channel along with the field, which then
            shows the scene at the average exposure. Never for images with transparency: the background behind it has
            the same brightness in all of them, and fog would compensate for any other.
    """

    holdout_every: int = 8
    max_frames: int = 1000
    max_image_side: int = 640
    blurry_share: float = 0.0
    exposure: bool = True

    def __post_init__(self) -> None:
        if self.holdout_every < 0 or self.holdout_every == 1:
            raise UserError(f"FitData.holdout_every = {self.holdout_every}: expected 2 or more, or 0 to hold none out")
        if self.max_frames < 1 or self.max_image_side < 1 or not 0 <= self.blurry_share < 1:
            raise UserError(
                f"FitData.max_frames = {self.max_frames}, FitData.max_image_side = {self.max_image_side} and "
                f"FitData.blurry_share = {self.blurry_share}: expected positive numbers, and a share from 0 to below 1"
            )


@gin.configurable
@dataclass(frozen=True)
class FitGrid:
    """The grid, from its initialisation to its last resolution.

    Attributes:
        resolutions: voxels along each axis, one entry per level, coarse to fine.
        start: "depth" (surfaces seen by the depth camera, plus all space that no depth measurement says anything
            about), "mesh" (the scene's mesh, plus the same), "points" (structure from motion's points, plus the same),
            "dense" (every voxel that a camera sees), or "auto", the first of these for which there are data. Space
            seen through transparent pixels is never initialised.
        fill_unknown: whether "depth", "mesh" and "points" also initialise voxels that no depth measurement found empty.
            Black and glass surfaces return no depth; without this they remain holes.
        camera_clearance: metres around every training camera in which such voxels are not initialised, since the
            person holding the camera was there; without this they become floaters that explain one photograph each.
            Only with measured depth.
        camera_space: the grid's extent where it cannot be estimated from depth, points or a box: a multiple of the
            cameras' largest distance from what they look at, or from their centroid when they look outwards.
        thicken: voxels by which the initial surfaces are dilated.
        surface_opacity: opacity of one voxel of an initial surface.
        unknown_opacity: opacity of one voxel of the other initial voxels.
        prune_by: "weight" (the largest rendering weight any training ray gives a voxel) or "density".
        weight_threshold: voxels with smaller weights are pruned, when pruning by weight.
        density_threshold: voxels with smaller densities are pruned, when pruning by density.
        dilate: voxels by which the remaining ones are dilated before the next level.
    """

    resolutions: tuple[int, ...] = (128, 256)
    start: str = "auto"
    fill_unknown: bool = True
    camera_clearance: float = 0.6
    camera_space: float = 2.0
    thicken: int = 1
    surface_opacity: float = 0.3
    unknown_opacity: float = 0.01
    prune_by: str = "weight"
    weight_threshold: float = 0.005
    density_threshold: float = 1.0
    dilate: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", tuple(int(size) for size in self.resolutions))
        if not self.resolutions or min(self.resolutions) < 2:
            raise UserError(f"FitGrid.resolutions needs entries of at least 2, found {self.resolutions}")
        check_choice("FitGrid.start", self.start, STARTS)
        check_choice("FitGrid.prune_by", self.prune_by, PRUNE_RULES)


@gin.configurable
@dataclass(frozen=True)
class FitOpen:
    """What differs where nothing bounds a scene: no depth, no mesh, no transparency, and no box before the cameras.

    There the grid must reach far, and fog that a single photograph needs tends to gather before its camera.

    Attributes:
        nested: so many grids of each resolution about what cameras look at, each reaching half as far as the next, so
            that voxels shrink towards it; the third smallest has the extent that ``FitGrid.camera_space`` says. None
            takes 4 in open scenes, but 1 where 4 does not divide the resolutions, and where structure from motion's
            points say that voxels would not be smaller than in one grid around them, as in a room.
        clearance: space around every training camera in which no voxel is initialised, as a share of the cameras'
            largest distance from what they look at, or from their middle where they look outwards.
        near: up to this share of that distance, a ray's weights are penalised.
        near_weight: by so much, as ``FitRegularization.free_space`` does before measured surfaces.
        variation: in nested grids total variation counts so many times as ``FitRegularization`` says, at the first and
            at the last step; it is a mean over cells, of which they have more.
        density_rate: what ``FitOptimization.density_rate`` is here, where that is None, at 256 voxels along each axis.
            It is in proportion to the resolution, as the density is that makes a voxel opaque. None takes what fog has
            elsewhere.
    """

    nested: int | None = None
    clearance: float = 0.15
    near: float = 0.5
    near_weight: float = 0.003
    variation: tuple[float, float] = (10.0, 1.0)
    density_rate: tuple[float, float] | None = (8.0, 0.5)

    def __post_init__(self) -> None:
        if self.nested is not None and not 1 <= self.nested <= 16:
            raise UserError(f"FitOpen.nested = {self.nested}: expected 1 to 16 nested grids, or None")
        for name in ("clearance", "near", "near_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"FitOpen.{name} = {getattr(self, name)}: expected 0 or more")
        if len(self.variation) != 2 or not min(self.variation) >= 0:
            raise UserError(f"FitOpen.variation = {self.variation}: expected two numbers of at least 0")
        rate = self.density_rate
        if rate is not None and (len(rate) != 2 or not min(rate) > 0):
            raise UserError(f"FitOpen.density_rate = {rate}: expected two positive numbers, or None")


@gin.configurable
@dataclass(frozen=True)
class FitBackground:
    """The background beyond the grid: layered sphere images out to infinity (svox2's background model).

    Attributes:
        layers: how many; 0 for none. None takes 4 where no depth, mesh or transparency bounds the
            scene, else none.
        rows: of each image, from pole to pole; it has twice as many columns.
        rate: learning rate of their colours and, in units of 30, of their densities, at the first and at the last step;
            RMSProp's constants are the usual ones.
    """

    layers: int | None = None
    rows: int = 512
    rate: tuple[float, float] = (3e-2, 1e-3)

    def __post_init__(self) -> None:
        if self.layers is not None and (self.layers < 0 or self.layers == 1) or self.rows < 2:
            raise UserError(
                f"FitBackground.layers = {self.layers} and rows = {self.rows}: expected 0 or at least 2 layers, and at "
                "least 2 rows"
            )


@gin.configurable
@dataclass(frozen=True)
class FitOptimization:
    """Steps and learning rates. Rates fall log-linearly over all steps (svox2's schedule).

    Attributes:
        steps: optimisation steps of each level.
        rays_per_step: random rays in a step, one entry a level, or one for all.
        density_rate: learning rate of densities, at the first and at the last step. None takes 30 to 1 where the grid
            starts from measured surfaces (depth or mesh), 1.5 to 0.3 where it starts as faint fog (points or dense):
            densities must not converge before colours, or fog takes on the colours behind it instead of vanishing.
            Where nothing bounds the scene, ``FitOpen.density_rate``.
        sh_rate: learning rate of SH coefficients, at the first and at the last step.
        delay_steps: rates are reduced during this many steps at the beginning.
        delay_factor: by this factor at the very first step.
        smoothing: RMSProp's beta.
        epsilon: RMSProp's epsilon. Voxels with smaller gradients learn slowly; a density's is a mean over a step's
            rays, times the length of a sample.
    """

    steps: tuple[int, ...] = (1500, 4500)
    rays_per_step: tuple[int, ...] = (16384,)
    density_rate: tuple[float, float] | None = None
    sh_rate: tuple[float, float] = (3e-2, 1e-3)
    delay_steps: int = 0
    delay_factor: float = 0.01
    smoothing: float = 0.95
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        for name in ("steps", "rays_per_step"):
            if min(getattr(self, name), default=0) < 1:
                raise UserError(f"FitOptimization.{name} = {getattr(self, name)}: expected numbers of at least 1")

    def density_rate_from(self, start: str) -> tuple[float, float]:
        """``density_rate``, or what it means for a grid that starts from ``FitGrid.start``."""
        if self.density_rate is not None:
            return self.density_rate
        return (1.5, 0.3) if start in ("points", "dense") else (30.0, 1.0)


@gin.configurable
@dataclass(frozen=True)
class FitRegularization:
    """Weights of the losses that are added to the photometric mean squared error.

    Attributes:
        tv_density: total variation of densities, at the first and at the last step.
        tv_sh: total variation of SH coefficients, at the first and at the last step.
        tv_fraction: share of the grid's cells that a step samples, a random contiguous run.
        beta: pulls each ray's final transmittance to 0 or 1 (Neural Volumes' beta loss).
        sparsity: Cauchy penalty log(1 + 2 sigma^2) on the samples' densities (SNeRG).
        depth: squared error of the expected distance where depth was measured, in grid units. Three times as much gains
            nothing and costs 1 dB where depth is off by 2% (docs/fitting.md).
        free_space: sum of a ray's weights in front of a measured surface.
        free_space_margin: how far in front, in voxels.
        structure: 1 - the structural similarity (SSIM) of patches.
        structure_share: share of a step's rays that are in such patches, where the weight is not 0.
        structure_side: of a patch, in pixels.
    """

    tv_density: tuple[float, float] = (5e-4, 5e-4)
    tv_sh: tuple[float, float] = (5e-3, 5e-3)
    tv_fraction: float = 0.01
    beta: float = 0.0
    sparsity: float = 0.0
    depth: float = 0.1
    free_space: float = 0.01
    free_space_margin: float = 2.0
    structure: float = 0.0
    structure_share: float = 0.25
    structure_side: int = 16

    def __post_init__(self) -> None:
        if not self.structure >= 0:
            raise UserError(f"FitRegularization.structure = {self.structure}: expected 0 or more")
        if not 0 < self.structure_share <= 1 or self.structure_side < WINDOW:
            raise UserError(
                f"FitRegularization.structure_share = {self.structure_share} and structure_side = "
                f"{self.structure_side}: expected a share of up to 1, and at least the {WINDOW} pixels of a window"
            )

    def patches(self, rays_per_step: int) -> int:
        """How many patches a step of so many rays has."""
        return round(self.structure_share * rays_per_step / self.structure_side**2) if self.structure else 0


@gin.configurable
@dataclass(frozen=True)
class FitPoses:
    """How the training cameras' poses are refined along with the field.

    Attributes:
        rounds: number of refinement steps of every pose during the fit; 0 keeps the given poses.
        tracked_only: only where there is measured depth, so that poses come from tracking. Structure from motion has
            fitted its poses to the photographs already, and those of generated images are exact.
        first: share of all steps after which the first round comes.
        last: share of all steps after which the last round comes.
        max_image_side: photographs are compared at this size.
        translation_sigma: standard deviation of the given positions, as a share of the median depth of their views.
        rotation_sigma: standard deviation of the given rotations, radians.
    """

    rounds: int = 10
    tracked_only: bool = True
    first: float = 0.1
    last: float = 0.8
    max_image_side: int = 270
    translation_sigma: float = 0.01
    rotation_sigma: float = 0.01

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise UserError(f"FitPoses.rounds must not be negative, found {self.rounds}")
        if not 0 <= self.first <= self.last <= 1:
            raise UserError(
                f"FitPoses.first and last are shares of all steps, 0 <= first <= last <= 1; found {self.first} and "
                f"{self.last}"
            )
        if min(self.translation_sigma, self.rotation_sigma) <= 0 or self.max_image_side < 8:
            raise UserError("FitPoses: the sigmas must be positive, and max_image_side at least 8")

    def due(self, step: int, total_steps: int) -> int:
        """How many rounds should be over when ``step`` of ``total_steps`` steps are."""
        progress = step / max(1, total_steps)
        if not self.rounds or progress < self.first:
            return 0
        share = (progress - self.first) / max(self.last - self.first, 1e-9)
        return min(self.rounds, 1 + int(share * (self.rounds - 1) + 1e-9))
