"""One scene's exports: what they are made from, and making them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dataloader import CameraList, Scene, SparsePoints, ViewStore, load_scene
from dataloader.hold_out import choose_held_out, held_out_of, load_held_out
from dataloader.nerfstudio_writer import View, check_cameras, write_nerfstudio
from lib.plenoxel.options import RenderOptions
from model.export.colors import COLORS, SeenVoxels, see_voxels, voxel_colors
from model.export.geometry import visible_points, write_mesh, write_points
from model.export.isosurface import require_scikit_image
from model.export.options import GridOptions, MeshOptions, PointOptions
from model.export.single_grid import write_single_grid
from model.radiance_field import RadianceField
from model.semantic_field import SEMANTIC_FILE, SemanticField, load_fused
from utils.cameras import opaque_depth
from utils.errors import UserError, check_choice
from utils.files import write_json
from utils.identity import FileSet, field_inputs, scan_inputs, store_identity
from utils.labels import label_settings
from utils.outputs import commit_output, prepare_output
from utils.plans import Item, plan_output

logger = logging.getLogger(__name__)
MESH, POINTS, NERFSTUDIO, GRID = FORMS = ("mesh", "points", "nerfstudio", "perfception")
FIGURES_FILE = "figures.json"
_VERSION = 1  # of the computation: increased whenever the same settings give other bytes
_STORE_CHANNELS = ("rgb", "depth", "alpha")


@dataclass(frozen=True)
class ExportSettings:
    """How scenes are exported; see the task ``export_scene``.

    Raises:
        UserError: a value is out of range.
    """

    mesh: MeshOptions
    points: PointOptions
    grid: GridOptions
    rendering: RenderOptions
    colors: str
    image_side: int
    holdout_every: int
    device: torch.device

    def __post_init__(self) -> None:
        check_choice("export_scene.colors", self.colors, COLORS)
        if self.image_side < 8:
            raise UserError(f"export_scene.image_side = {self.image_side}: expected 8 pixels or more")
        if self.holdout_every < 0:
            raise UserError(f"export_scene.holdout_every = {self.holdout_every}: expected 0 or more")


@dataclass(frozen=True)
class SceneExport:
    """What is exported, and from where.

    Attributes:
        name: of the scene.
        field_path: the field's folder.
        scan_path: the scene's folder, or None.
        store_path: of the rendered views, or None.
        fused_path: folder of the fused field, or None.
        settings: how.
    """

    name: str
    field_path: Path
    scan_path: Path | None
    store_path: Path | None
    fused_path: Path | None
    settings: ExportSettings

    def plan(self, form: str, output: Path, overwrite: bool, opened: bool) -> Item:
        """What :meth:`write` would do.

        Args:
            opened: whether the scan is opened, if it is needed.

        Raises:
            UserError: something that the form needs is missing, or the output is there with other settings.
        """
        self._check(form)
        if opened and form == NERFSTUDIO:
            check_cameras(self._cameras())
        inputs = self._inputs(form, opened)
        return plan_output(f"{self.name} as {form}", output, inputs, overwrite, partly=not opened)

    def write(self, form: str, output: Path, overwrite: bool) -> dict[str, Any]:
        """Write one form; returns its figures."""
        self._check(form)
        folder = prepare_output(output, self._inputs(form, opened=True), overwrite)
        if folder is None:
            logger.info("%s is finished already", output)
            return {"seconds": None}
        started = time.monotonic()
        try:
            make = {MESH: self._mesh, POINTS: self._points, NERFSTUDIO: self._nerfstudio, GRID: self._grid}[form]
            figures = make(folder)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        write_json(folder / FIGURES_FILE, figures)
        commit_output(output)
        return {**figures, "seconds": round(time.monotonic() - started, 2)}

    def _check(self, form: str) -> None:
        has_field = bool(field_inputs(self.field_path).files)
        if not has_field and form != NERFSTUDIO:
            raise UserError(f"{self.field_path} holds no field; expected last.ckpt, data.ckpt or nested.npz there: run "
                            "'fit', or download the scene")
        if form == MESH:
            require_scikit_image()
        if self._sees(form) and self.scan_path is None and self.store_path is None:
            what, otherwise = (f"form {form!r}", "leave the form out") if form != MESH else (
                f"a mesh with export_scene.colors = {self.settings.colors!r} and MeshOptions.weight = "
                f"{self.settings.mesh.weight:g}", "set colors = 'field' and MeshOptions.weight = 0"
            )  # fmt: skip
            raise UserError(f"{what} needs the recorded cameras; set export_scene.scans_dir or views_dir, or "
                            f"{otherwise}")

    def _sees(self, form: str) -> bool:
        """Whether a form needs recorded cameras."""
        colored = self.settings.colors == "cameras" and self.fused_path is None
        return form in (POINTS, NERFSTUDIO) or form == MESH and (colored or self.settings.mesh.weight > 0)

    def _inputs(self, form: str, opened: bool) -> dict[str, Any]:
        """What determines a form."""
        settings = self.settings
        inputs: dict[str, Any] = {"version": _VERSION, "form": form, "field": field_inputs(self.field_path),
                                  "device": settings.device.type}  # fmt: skip
        if form == GRID:
            inputs |= {"grid": asdict(settings.grid)}
        else:
            inputs |= {"mesh": asdict(settings.mesh)} if form == MESH else {"points": asdict(settings.points)}
            inputs |= {"colors": settings.colors}
        if form in (MESH, POINTS) and self.fused_path is not None:
            inputs |= {"fused": FileSet({SEMANTIC_FILE: self.fused_path / SEMANTIC_FILE}), **label_settings()}
        measures = form == GRID and self.scan_path is not None and settings.grid.measured > 0
        if not self._sees(form) and not measures:
            return inputs
        inputs |= {"image_side": settings.image_side, "rendering": asdict(settings.rendering)}
        if form == NERFSTUDIO:
            inputs |= {"holdout_every": settings.holdout_every}
        if self.store_path is not None and form != GRID:
            inputs |= {"store": store_identity(self.store_path, _STORE_CHANNELS)}
        if opened and self.scan_path is not None:
            pictures = measures or (form == NERFSTUDIO and self.store_path is None)
            inputs |= {"scan": scan_inputs(self._scan, depth=form == NERFSTUDIO, mesh=False) if pictures
                       else self._scan.geometry_identity()}  # fmt: skip
        return inputs

    @cached_property
    def _scan(self) -> Scene:
        return load_scene(self.scan_path, self.settings.rendering.background_brightness)

    @cached_property
    def _store(self) -> ViewStore:
        return ViewStore(self.store_path)

    def _cameras(self) -> CameraList:
        """Of the views that a nerfstudio data set holds."""
        return self._scan.cameras() if self.store_path is None else self._store.cameras

    @cached_property
    def _field(self) -> RadianceField:
        return RadianceField.load(self.field_path, self.settings.device)

    @cached_property
    def _seen(self) -> SeenVoxels:
        cameras = self._store.cameras if self.scan_path is None else self._scan.cameras()
        scale = min(1.0, self.settings.image_side / max(cameras.image_size))
        cameras = cameras.resized(tuple(max(1, round(scale * side)) for side in cameras.image_size))
        return see_voxels(self._field, cameras, self.settings.rendering)

    @cached_property
    def _semantic(self) -> SemanticField | None:
        return None if self.fused_path is None else load_fused(self.fused_path, self._field.grid)

    def _mesh(self, folder: Path) -> dict[str, Any]:
        seen = self._seen if self._sees(MESH) else None
        figures = write_mesh(folder / "mesh.ply", self._field, self.settings.mesh, self._colors(MESH), seen,
                             self._semantic)
        logger.info("%s: mesh of %d faces; %d connected parts of fewer than %d faces dropped", self.name,
                    figures["faces"], figures["specks_dropped"], self.settings.mesh.least_faces)
        return figures

    def _points(self, folder: Path) -> dict[str, Any]:
        return write_points(folder / "points.ply", self._field, self.settings.points, self._seen.weight,
                            self._colors(POINTS), self._semantic)

    def _colors(self, form: str) -> torch.Tensor:
        by_cameras = self.settings.colors == "cameras" and self._sees(form)
        return voxel_colors(self._field.grid, self._seen if by_cameras else None)

    def _nerfstudio(self, folder: Path) -> dict[str, Any]:
        cameras = self._cameras()
        check_cameras(cameras)
        figures = write_nerfstudio(folder, cameras, self._views(), self._held_out(cameras), self._sparse_points())
        if figures["depth_beyond_range"]:
            logger.warning("%s: %d pixels are farther away than 65.5 units, which 16-bit depth cannot hold; they are "
                           "written as having no depth", self.name, figures["depth_beyond_range"])
        return figures

    def _grid(self, folder: Path) -> dict[str, Any]:
        scan = None if self.scan_path is None else self._scan
        settings = self.settings
        figures = write_single_grid(folder, self._field, self.field_path, settings.grid, scan, settings.image_side,
                                    settings.rendering)
        if "photographs" in figures:
            logger.info("%s: PSNR of %d %s photographs %.2f dB, was %.2f dB", self.name, figures["photographs"],
                        figures["measured"], figures["psnr_after"], figures["psnr_before"])
        return figures

    def _views(self) -> Iterator[View]:
        if self.store_path is None:
            for index in range(len(self._scan)):
                yield View(self._scan.read_color(index), self._scan.read_depth(index, self._scan.image_size),
                           self._scan.read_mask(index))  # fmt: skip
            return
        store = self._store
        for index in range(len(store)):
            depth = opaque_depth(store.read("depth", index), store.read("alpha", index))
            yield View(store.read_stored("rgb", index), depth)

    def _held_out(self, cameras: CameraList) -> list[str]:
        """Names that the field's fit held out, or the store says, or else the data set or the setting."""
        names = load_held_out(self.field_path)
        if names is None and self.store_path is not None:
            found = held_out_of(self._store)
            names = None if found is None else sorted(found)
        if names is not None:
            return names
        splits = None if self.store_path is not None else self._scan.splits
        return choose_held_out(cameras.names, self.settings.holdout_every, splits)

    def _sparse_points(self) -> SparsePoints | None:
        """Those of the field's voxels that cameras see; the scan's own where there is no field."""
        if field_inputs(self.field_path).files:
            return visible_points(self._field, self.settings.points, self._seen.weight, self._colors(NERFSTUDIO))
        return self._scan.points if self.scan_path is not None else None
