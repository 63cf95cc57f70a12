"""The loaded scene: the field, and if available mesh, cameras, views and a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from analysis.quality import QualityEstimator, QualityOptions
from analysis.viewer.camera_math import BrowserCamera, view_shape
from analysis.viewer.figures import scene_figures
from analysis.viewer.live_quality import LiveQuality
from analysis.viewer.predictor import Predictor
from dataloader import CameraList, Mesh, ViewStore, load_scene
from dataloader.label_mesh import label_files, load_label_mesh, unread_labels
from dataloader.perfception import FIELD_PREFIX
from model import RadianceField, RenderOptions
from model.semantic_field import SEMANTIC_FILE, SemanticField, load_fused
from utils.cameras import look_at
from utils.errors import UserError

logger = logging.getLogger(__name__)

TRAJECTORY, DOMES = "trajectory", "domes"
_DEFAULT_FOV = 1.0
_SEEN_FOR_START = 32


@dataclass(frozen=True)
class ScenePaths:
    """Where a scene's parts are or would be; only the field must exist.

    Attributes:
        field: a PeRFception scene folder.
        scan: the scene's folder: trajectory and labelled mesh.
        views, novel_views: view stores of the trajectory and of the domes.
        domes: camera list that 'filter' (or 'sample') wrote.
        checkpoints: of trained networks.
        fused: folder that 'fuse' wrote.
    """

    field: Path
    scan: Path | None = None
    views: Path | None = None
    novel_views: Path | None = None
    domes: Path | None = None
    checkpoints: Sequence[Path] = ()
    fused: Path | None = None


@dataclass(frozen=True)
class CameraSource:
    """Cameras of one kind, and the store of their views as far as they were rendered."""

    title: str
    cameras: CameraList
    store: ViewStore | None = None

    def store_index(self, index: int) -> int | None:
        """Which view of the store shows camera ``index``; None where it was not rendered."""
        if self.store is None:
            return None
        names = self.store.cameras.names
        return names.index(self.cameras.names[index]) if self.cameras.names[index] in names else None

    def browser_camera(self, index: int) -> BrowserCamera:
        """Camera ``index`` as a browser's camera."""
        return BrowserCamera(self.cameras.camera_to_world[index], *view_shape(self.cameras, index))


@dataclass(frozen=True)
class SceneState:
    """A scene as the viewer shows it.

    Attributes:
        name: of the scene.
        field: on the device that renders.
        options: how it is rendered.
        sources: camera sources by title; those that hold no camera are left out.
        mesh: the labelled mesh, or None.
        predictors: trained networks, by name.
        quality: estimates the quality of what is rendered; None without views as observations.
        semantic: fused class probabilities of the field's voxels, or None.
        figures: lines of Markdown about the scene.
    """

    name: str
    field: RadianceField
    options: RenderOptions
    sources: dict[str, CameraSource]
    mesh: Mesh | None = None
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    quality: LiveQuality | None = None
    semantic: SemanticField | None = None
    figures: Sequence[str] = ()

    @cached_property
    def depth_limit(self) -> float:
        """Metres at the far end of the depth's colours: the diagonal of what is occupied, without outliers."""
        grid = self.field.grid
        rows = torch.arange(0, grid.num_voxels, max(1, grid.num_voxels // 10_000), device=grid.device)
        points = self.field.transform.points_from_grid(grid.voxel_centers(rows).double().cpu())
        ends = torch.quantile(points, points.new_tensor((0.02, 0.98)), dim=0)
        return max(float((ends[1] - ends[0]).norm()), 0.1)

    def initial_camera(self) -> BrowserCamera:
        """The camera that sees farthest, as far as depth is stored; else the first, or one at the grid's centre."""
        for source in self.sources.values():
            return source.browser_camera(widest_view(source))
        eye = self.field.transform.points_from_grid(torch.tensor(self.field.grid.center, dtype=torch.float64))
        return BrowserCamera(look_at(eye, eye + torch.tensor([1.0, 0, 0], dtype=torch.float64)), _DEFAULT_FOV, 1.5)


def load_scene_state(
    scene: str,
    paths: ScenePaths,
    options: RenderOptions,
    quality: QualityOptions,
    size: tuple[int, int],
    device: torch.device,
) -> SceneState:
    """Load a scene; logs what is missing.

    Args:
        scene: its name.
        paths: of its parts.
        options: how to render.
        quality: how to estimate the quality of what is rendered.
        size: (height, width) of the trajectory's views where no store has it, and of the network's training views.
        device: to render on.

    Raises:
        UserError: the field is absent, something is damaged, or there is a checkpoint but no camera that gives the
            scale of its training views.
    """
    if not paths.field.is_dir():
        raise UserError(f"{paths.field} does not exist; run the 'fit' task for {scene}, or correct view.fields_dir")
    sources = {source.title: source for source in _sources(paths, size) if len(source.cameras)}
    mesh, field = _mesh(paths), RadianceField.load(paths.field, device)
    return SceneState(
        name=scene,
        field=field,
        options=options,
        sources=sources,
        mesh=mesh,
        predictors=_predictors(paths.checkpoints, sources, size, device),
        quality=_quality(paths, quality, mesh, field),
        semantic=_semantic(paths.fused, field),
        figures=scene_figures(scene, paths.field, named_networks(paths.checkpoints), paths.fused),
    )


def widest_view(source: CameraSource) -> int:
    """The camera with the largest mean depth among some evenly chosen stored views; 0 without stored depth."""
    if source.store is None or "depth" not in source.store.channels:
        return 0
    step = max(1, len(source.cameras) // _SEEN_FOR_START)
    candidates = [index for index in range(0, len(source.cameras), step) if source.store_index(index) is not None]
    depths = {index: float(source.store.read("depth", source.store_index(index)).mean()) for index in candidates}
    return max(depths, key=depths.get, default=0)


def field_path(fields_dir: Path, scene: str) -> Path:
    """The folder of a scene's field."""
    return fields_dir / f"{FIELD_PREFIX}{scene}"


def _existing(path: Path | None, what: str) -> Path | None:
    if path is not None and path.exists():
        return path
    logger.info("without %s%s", what, f": {path} does not exist" if path is not None else "")
    return None


def _sources(paths: ScenePaths, size: tuple[int, int]) -> list[CameraSource]:
    sources = []
    views, novel = _existing(paths.views, "stored views"), _existing(paths.novel_views, "stored novel views")
    domes, scan = _existing(paths.domes, "domes"), _existing(paths.scan, "the scan")
    if views is not None:
        store = ViewStore.open(views)
        sources.append(CameraSource(TRAJECTORY, store.cameras, store))
    elif scan is not None:
        sources.append(CameraSource(TRAJECTORY, load_scene(scan).cameras(size)))
    store = None if novel is None else ViewStore.open(novel)
    if domes is not None:
        sources.append(CameraSource(DOMES, CameraList.load(domes), store))
    elif store is not None:
        sources.append(CameraSource(DOMES, store.cameras, store))
    return sources


def _mesh(paths: ScenePaths) -> Mesh | None:
    if paths.scan is None or not paths.scan.exists():
        return None
    scene = load_scene(paths.scan)
    if unread := unread_labels(scene):
        logger.info("without the labelled mesh: %s", unread)
        return None
    path = _existing(label_files(scene)["mesh"], "the labelled mesh")
    return None if path is None else load_label_mesh(scene)


def _quality(
    paths: ScenePaths, options: QualityOptions, mesh: Mesh | None, field: RadianceField
) -> LiveQuality | None:
    """From the trajectory's stored depth and photographs, as far as the field was fitted to them."""
    if paths.views is None or not paths.views.exists():
        return None
    if not {"depth", "depth_mesh"} & set(ViewStore.open(paths.views).channels):
        logger.info("without quality: %s has no depth", paths.views)
        return None
    try:
        estimator = QualityEstimator.of_scene(paths.views, options, paths.field, field)
    except UserError as error:
        logger.info("without quality: %s", error)
        return None
    return LiveQuality(estimator, mesh)


def _semantic(fused: Path | None, field: RadianceField) -> SemanticField | None:
    path = _existing(None if fused is None else fused / SEMANTIC_FILE, "fused labels")
    if path is None:
        return None
    try:
        return load_fused(path.parent, field.grid)
    except UserError as error:
        logger.info("without fused labels: %s", error)
        return None


def named_networks(checkpoints: Sequence[Path]) -> dict[str, Path]:
    """Checkpoints by the names of their runs, RUN/training/best.ckpt, else of their files; equal ones get numbers."""
    found: dict[str, Path] = {}
    for path in checkpoints:
        name = path.absolute().parents[1].name if path.parent.name == "training" else path.stem
        found[name if name not in found else f"{name} ({len(found) + 1})"] = path
    return found


def _predictors(
    checkpoints: Sequence[Path], sources: dict[str, CameraSource], size: tuple[int, int], device: torch.device
) -> dict[str, Predictor]:
    if checkpoints and not sources:
        raise UserError(
            "view.checkpoint needs the scene's cameras, which give the scale of the training views; set view.views_dir "
            "or view.scans_dir"
        )
    found = {}
    for name, path in named_networks(checkpoints).items():
        found[name] = Predictor(path, next(iter(sources.values())).cameras, size, device)
        if found[name].color == "photo":
            logger.info("%s was trained on photographs: it predicts those of recorded cameras alone", path)
    return found
