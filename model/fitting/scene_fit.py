"""Fitting one scene folder, from its photographs to a finished field folder with its measurements."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gin
import torch

from dataloader.field_facts import RESULTS_FILE
from model.fitting.evaluation import (
    MEASUREMENTS,
    HeldOutView,
    depth_picture,
    mean_measurements,
    render_held_out,
    side_by_side,
)
from model.fitting.fitter import FitOptions, Fitter
from model.fitting.frames import check_enough, fitted_size, load_training_frames, split_frames
from model.fitting.options import FitData
from model.fitting.preparation import prepare_fitter
from model.fitting.unseen import TrainingViews
from model.radiance_field import RadianceField
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.identity import scan_inputs
from utils.images import write_image
from utils.outputs import commit_output, prepare_output
from utils.progress import Progress
from utils.threads import ordered_map

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from dataloader import Scene


logger = logging.getLogger(__name__)

_CHECKPOINT = "resume.ckpt"
_LOGGED_VIEWS = 3
_BITS = (4, 8, 16, 32)
_SECONDS_BETWEEN_SCALARS = 2.0

Job = Callable[[], object]


@dataclass(frozen=True)
class FitSettings:
    """How one scene is fitted and saved.

    Attributes:
        data: which frames.
        options: grid, optimisation, regularization, rendering.
        seed: of the random rays and cells.
        bits: of the saved SH coefficients: 4, 8, 16 or 32.
        checkpoint_seconds: between two checkpoints to resume from.

    Raises:
        UserError: a field cannot be saved with so many bits.
    """

    data: FitData
    options: FitOptions
    seed: int = 0
    bits: int = 8
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise UserError(f"fit.bits = {self.bits}: expected {', '.join(map(str, _BITS))}")
        if not self.checkpoint_seconds >= 0:
            raise UserError(f"fit.checkpoint_seconds = {self.checkpoint_seconds}: expected 0 or more seconds")


def fit_inputs(settings: FitSettings, device: torch.device, scene: Scene | None = None) -> dict[str, Any]:
    """What determines a field: the settings, and the scene's frames, cameras and pictures where it is given.

    The mesh counts where the fit may start from it: where ``FitGrid.start`` says so, or without depth maps.
    """
    options = {
        **asdict(settings.data), **asdict(settings.options), "seed": settings.seed, "bits": settings.bits,
        "device": device.type,
    }  # fmt: skip
    if scene is None:
        return options
    start = settings.options.grid.start
    return {**options, "scan": scan_inputs(scene, mesh=start == "mesh" or start == "auto" and not scene.depth_size)}


def plan_fit(scene: Scene, settings: FitSettings) -> str:
    """What a fit of this scene works on, in a few words.

    Raises:
        UserError: it cannot be fitted.
    """
    training, held_out = split_frames(scene.frames, settings.data, scene.splits)
    check_enough(scene, len(training))
    height, width = fitted_size(scene.image_size, settings.data.max_image_side)
    grids = " then ".join(f"{size}^3" for size in settings.options.grid.resolutions)
    return f"{len(training)} frames of {width}x{height}, {len(held_out)} held out, {grids}"


def fit_scene(
    scene_path: Path, output: Path, settings: FitSettings, device: torch.device, overwrite: bool = False,
    on_contradiction: str = "warn",
) -> dict[str, Any]:  # fmt: skip
    """Fit the scene and write the folder ``output`` in PeRFception's format; returns its ``results.json``.

    A finished folder with the same settings is left alone. With ``--resume``, an unfinished one is continued.

    Raises:
        UserError: its depth maps and poses contradict each other, and ``on_contradiction`` is "refuse".
    """
    from dataloader import load_scene
    from dataloader.consistency import find_contradiction

    started = time.monotonic()
    scene = load_scene(scene_path, settings.options.rendering.background_brightness)
    partial = prepare_output(output, fit_inputs(settings, device, scene), overwrite)
    if partial is None:
        return read_json(output / RESULTS_FILE, kind=dict)
    for remark in scene.remarks:
        logger.info("%s: %s", scene.name, remark)
    contradiction = find_contradiction(scene)
    if contradiction is not None and on_contradiction == "refuse":
        raise UserError(f"{scene_path}: {contradiction}; correct the files, or set fit.on_contradiction = 'warn'")
    if contradiction is not None:
        logger.warning("%s: %s", scene.name, contradiction)
    _SceneFit(scene, partial, settings, device, started).run()
    commit_output(output)
    return read_json(output / RESULTS_FILE, kind=dict)


class _SceneFit:
    """The state of :func:`fit_scene`."""

    def __init__(self, scene: Scene, partial: Path, settings: FitSettings, device: torch.device, started: float):
        self._started = started
        self.scene = scene
        self.partial, self.settings, self.device = partial, settings, device
        self.size = fitted_size(self.scene.image_size, settings.data.max_image_side)
        _, self.held_out = split_frames(scene.frames, settings.data, scene.splits)
        self._last_checkpoint = self._last_scalars = time.monotonic()

    def run(self) -> None:
        """Fit, save, measure."""
        from torch.utils.tensorboard import SummaryWriter

        from dataloader.nested_field import check_bits

        settings = self.settings
        frames = load_training_frames(self.scene, settings.data, self.device)
        fitter, placement = prepare_fitter(self.scene, frames, settings.data, settings.options, settings.seed)
        if fitter.grid.levels > 1:
            check_bits(settings.bits)
        self.transform = placement.transform([self.scene.frames[index] for index in frames.indices])
        checkpoint = self.partial / _CHECKPOINT
        if checkpoint.exists():
            fitter.load(checkpoint)
            logger.info("%s: resuming after step %d", self.scene.name, fitter.step)
        loaded = time.monotonic()
        with SummaryWriter(self.partial / "tensorboard", purge_step=fitter.step) as writer:
            writer.add_text("config", f"```\n{gin.config_str()}\n```")
            self._optimize(fitter, writer)
            self._save(fitter)
            training, fitted = fitter.seconds, frames.indices
            del fitter, frames  # evaluation loads what was saved; these are gigabytes
            results = self._measure(fitted, writer)
        seconds = {
            "training_seconds": round(training, 2), "loading_seconds": round(loaded - self._started, 2),
            "seconds": round(time.monotonic() - self._started, 2),
        }  # fmt: skip
        write_json(self.partial / RESULTS_FILE, {**results, **seconds})
        checkpoint.unlink(missing_ok=True)

    def _optimize(self, fitter: Fitter, writer: SummaryWriter) -> None:
        total = fitter.options.total_steps
        with Progress(f"fitting {self.scene.name}", total, "step", fitter.options.costs) as meter:
            meter.skip(fitter.step)
            shown = fitter.step

            def listen(fitter: Fitter, level_ended: bool) -> None:
                nonlocal shown
                now = time.monotonic()
                note = ""
                if level_ended or now - self._last_scalars > _SECONDS_BETWEEN_SCALARS:
                    self._last_scalars = now
                    note = self._log_scalars(fitter, writer)
                if level_ended and not fitter.finished:
                    self._log_views(fitter, writer)
                if now - self._last_checkpoint > self.settings.checkpoint_seconds:
                    fitter.save(self.partial / _CHECKPOINT)
                    self._last_checkpoint = time.monotonic()
                meter.update(fitter.step - shown, note)
                shown = fitter.step

            fitter.run(listen)

    def _log_scalars(self, fitter: Fitter, writer: SummaryWriter) -> str:
        psnr = fitter.training_psnr()
        density_rate, sh_rate = fitter.rates()
        scalars = {
            "psnr/training": psnr, "rate/density": density_rate, "rate/sh": sh_rate,
            "grid/voxels": fitter.grid.num_voxels, "grid/resolution": fitter.grid.resolution[0],
        }  # fmt: skip
        for name, value in scalars.items():
            writer.add_scalar(name, value, fitter.step)
        return f"PSNR {psnr:.1f} dB"

    def _views(self, field: RadianceField, indices: list[int]) -> Iterator[HeldOutView]:
        return render_held_out(field, self.scene, indices, self.size, self.settings.options.rendering)

    def _log_views(self, fitter: Fitter, writer: SummaryWriter) -> None:
        field = RadianceField(fitter.grid, self.transform, fitter.capture())
        views = list(self._views(field, self.held_out[:_LOGGED_VIEWS]))
        _on_threads(job for view in views for job in _picture_logs(view, writer, fitter.step))
        if views:
            psnr = mean_measurements([view.measurements() for view in views])["psnr"]
            writer.add_scalar("psnr/held_out_sample", psnr, fitter.step)

    def _save(self, fitter: Fitter) -> None:
        from dataloader.hold_out import save_held_out

        if not (torch.isfinite(fitter.grid.density).all() and torch.isfinite(fitter.grid.sh).all()):
            raise UserError(f"{self.scene.path}: the field holds NaN or infinite values after step {fitter.step}; "
                            "lower FitOptimization.density_rate and sh_rate, or look at the scan with 'verify'")
        fitter.grid.save(self.partial, self.transform, bits=self.settings.bits)
        save_held_out(self.partial, self.scene.name, [self.scene.frames[index] for index in self.held_out])
        capture = fitter.capture()
        if capture is not None:
            capture.save(self.partial)

    def _measure(self, fitted: list[int], writer: SummaryWriter) -> dict[str, Any]:
        """Evaluate what was saved, not what was in memory."""
        field, step = RadianceField.load(self.partial, self.device), self.settings.options.total_steps
        per_frame: dict[str, dict[str, float]] = {}
        pictures = self.partial / "render_model"
        unseen = self._unseen_shares(field, fitted)

        def measure() -> Iterator[Job]:
            for view in self._views(field, self.held_out):
                per_frame[view.frame] = {**view.measurements(), "never_seen": unseen[view.frame]}
                yield functools.partial(write_image, pictures / f"{view.frame}.jpg", side_by_side(view))
                if len(per_frame) <= _LOGGED_VIEWS:
                    yield from _picture_logs(view, writer, step)

        _on_threads(measure())
        mean = mean_measurements(list(per_frame.values()), (*MEASUREMENTS, "never_seen"))
        for name, value in mean.items():
            if value is not None:
                writer.add_scalar(f"{name}/held_out", value, step)
        _log_settings(self.settings, mean, writer)
        layers = field.grid.background
        return {
            **mean, "training_frames": len(fitted), "voxels": field.grid.num_voxels,
            "resolution": list(field.grid.resolution), "nested_grids": field.grid.levels,
            "voxel_metres": field.grid.voxel_size[0] / self.transform.scene_scale,
            "background_layers": 0 if layers is None else layers.texture.shape[2], "image_size": list(self.size),
            "held_out": per_frame,
        }  # fmt: skip

    def _unseen_shares(self, field: RadianceField, fitted: list[int]) -> dict[str, float]:
        """Of each held-out frame, the share that no training camera saw."""
        if not self.held_out:
            return {}
        rendering = self.settings.options.rendering
        views = TrainingViews.render(field, self.scene, fitted, rendering)
        return {self.scene.frames[index]: views.unseen_in(field, self.scene, index, rendering)
                for index in self.held_out}  # fmt: skip


def _picture_logs(view: HeldOutView, writer: SummaryWriter, step: int) -> Iterator[Job]:
    yield functools.partial(writer.add_image, f"held_out/{view.frame}", side_by_side(view), step)
    yield functools.partial(writer.add_image, f"depth/{view.frame}", depth_picture(view.depth), step)


def _on_threads(jobs: Iterable[Job]) -> None:
    """Compress and write pictures while the next ones are rendered: that takes longer than rendering them."""
    for _ in ordered_map(lambda job: job(), jobs):
        pass


def _log_settings(settings: FitSettings, measured: dict[str, float | None], writer: SummaryWriter) -> None:
    """The settings as hyper-parameters, with their results."""
    groups = {"data": settings.data, **vars(settings.options)}
    values = {f"{group}.{name}": value for group, fields in groups.items() for name, value in asdict(fields).items()}
    values = {name: value if isinstance(value, (bool, int, float, str)) else str(value)
              for name, value in {**values, "seed": settings.seed, "bits": settings.bits}.items()}  # fmt: skip
    known = {f"hparam/{name}": value for name, value in measured.items() if value is not None}
    writer.add_hparams(values, known, run_name=".")
