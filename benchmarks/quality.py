"""Does the estimated render quality tell where renders are wrong? On held-out frames that did not calibrate it.

Every folder is a WORK with fields and original views with photographs (scripts/pipeline.sh, scripts/demo.sh). The
first half of the first folder's scenes calibrates: a line is fitted to the logarithm of the error. The table is of the
second half and of the other folders' scenes: the area under the ROC for the worst fifth of the pixels, AUSE (RMSE, 100
steps), and Spearman's rank correlation; of the estimate, of each input alone, of the estimate without it, and of two
baselines: the variance of colour along the ray, and a per-voxel Hessian (FisherRF, Bayes' Rays: the inverse of how much
rays weigh a voxel). Errors are root mean squares over 5x5 pixels, colours matched by a gain and an offset per channel.

    python benchmarks/quality.py CALIBRATE [WORK ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.calibration import Ranking, fit_line, rank_errors  # noqa: E402
from analysis.evidence import matched_colors  # noqa: E402
from analysis.observers import frames_not_fitted  # noqa: E402
from analysis.quality import FEATURES, QualityEstimator, QualityOptions, stored_view  # noqa: E402
from dataloader import ViewStore  # noqa: E402
from dataloader.perfception import FIELD_PREFIX  # noqa: E402
from model import render_features, spread_features  # noqa: E402
from model.radiance_field import RadianceField  # noqa: E402
from utils.spherical_harmonics import sh_basis  # noqa: E402

LEAST_ERROR = 0.01
HESSIAN_PRIOR = 0.1


class Scene(NamedTuple):
    """Held-out pixels of a scene: features ``[P, 5]``, errors ``[P]``, baselines by name; mean quality by default."""

    name: str
    features: np.ndarray
    error: np.ndarray
    baselines: dict[str, np.ndarray]
    quality: float


@torch.no_grad()
def measure(work: Path, name: str) -> Scene:
    """A scene's held-out frames."""
    path, store = work / "fields" / f"{FIELD_PREFIX}{name}", ViewStore.open(work / "views" / "original" / name)
    field, options = RadianceField.load(path), QualityOptions()
    estimator = QualityEstimator.of_scene(store.path, options, path, field)
    held_out = frames_not_fitted(path, store.path)
    views = [index for index, frame in enumerate(store.cameras.names) if frame in held_out]
    voxels = baseline_features(field, store, [k for k in range(len(store)) if k not in views])
    features, errors, variances, hessians, qualities = [], [], [], [], []
    for index in views:
        view = stored_view(store, index)
        photo = store.read("photo", index)
        squared = ((matched_colors(view.color, photo) - photo) ** 2).mean(0)
        error = F.avg_pool2d(squared[None], options.smoothing, 1, options.smoothing // 2, count_include_pad=False)[0]
        rays = field.view_rays(view.camera_to_world, view.intrinsics, store.size, view.lens)
        rendered = render_features(field.grid, voxels, *rays) / view.alpha.clamp(min=0.05)[..., None]
        known = view.surface > 0
        features.append(estimator.features(view)[:, known].T)
        errors.append(error.sqrt()[known])
        variances.append((rendered[..., 3] - (rendered[..., :3] ** 2).sum(-1)).clamp(min=0)[known])
        hessians.append(rendered[..., 4][known])
        qualities.append(float(estimator.estimate(view).mean()))
    joined = {"colour variance along the ray": variances, "per-voxel Hessian": hessians}
    baselines = {label: torch.cat(values).numpy() for label, values in joined.items()}
    return Scene(name, torch.cat(features).numpy(), torch.cat(errors).numpy(), baselines, float(np.mean(qualities)))


def baseline_features(field: RadianceField, store: ViewStore, views: list[int]) -> Tensor:  # float32 [V, 5]
    """Per voxel: colour of degree 0, its squared length, and the inverse of how much training rays weigh it."""
    grid = field.grid
    weight = torch.zeros(grid.num_voxels)
    for view in views:
        rays = field.view_rays(store.cameras.camera_to_world[view], store.cameras.intrinsics[view], store.size,
                               store.cameras.lens)  # fmt: skip
        weight += spread_features(grid, torch.ones(*store.size, 1), *rays)[1]
    color = grid.sh.reshape(grid.num_voxels, 3, -1)[:, :, 0].float() * float(sh_basis(torch.eye(3)[:1])[0, 0]) + 0.5
    squares = (color**2).sum(1, keepdim=True)
    return torch.cat((color, squares, 1 / (weight + HESSIAN_PRIOR)[:, None]), 1).contiguous()


def fitted(scenes: list[Scene], columns: list[int]) -> np.ndarray:
    """Coefficients of a line in some of the features."""
    return fit_line([scene.features[:, columns] for scene in scenes], [log_error(scene) for scene in scenes])


def log_error(scene: Scene) -> np.ndarray:
    return np.log(scene.error + LEAST_ERROR)


def predicted(scene: Scene, line: np.ndarray, columns: list[int]) -> np.ndarray:
    return line[0] + scene.features[:, columns] @ line[1:]


def main(folders: list[str]) -> None:
    groups = []
    for folder in folders:
        root = Path(folder)
        names = sorted(path.parent.name for path in (root / "views" / "original").glob("*/cameras.json"))
        groups.append([measure(root, name) for name in names])
        print(f"{folder}: {len(names)} scenes", file=sys.stderr)
    half = max(1, len(groups[0]) // 2)
    calibration = groups[0][:half]
    groups[0] = groups[0][half:]
    tested = {Path(folder).name: scenes
              for folder, scenes in zip(folders, groups, strict=True) if scenes}  # fmt: skip
    every = list(range(len(FEATURES)))
    for label, columns in (("coefficients", every), ("coefficients_without_photographs", every[1:])):
        print(f"QualityOptions.{label} = ({', '.join(f'{value:.3f}' for value in fitted(calibration, columns))})")
    print(f"of {len(calibration)} scenes of {folders[0]}\n")
    heads = [f"{name} ({len(scenes)}): AUROC | AUSE | Spearman" for name, scenes in tested.items()]
    print(f"| | {' | '.join(heads)} |")
    print("| --- " * (1 + 3 * len(tested)) + "|")

    def line(label: str, ranked) -> None:
        cells = []
        for scenes in tested.values():
            mean = Ranking(*np.nanmean([rank_errors(ranked(scene), scene.error) for scene in scenes], axis=0))
            cells.append(f"{mean.auroc:.3f} | {mean.ause:.3f} | {mean.spearman:.2f}")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)

    rows = [("**all inputs**", every), ("without photographs", every[1:])]
    rows += [(f"without {FEATURES[k]}", [c for c in every if c != k]) for k in every[1:]]
    rows += [(f"{FEATURES[k]} alone", [k]) for k in every]
    for label, columns in rows:
        coefficients = fitted(calibration, columns)
        line(label, lambda scene, a=coefficients, c=columns: predicted(scene, a, c))
    for label in ("colour variance along the ray", "per-voxel Hessian"):
        line(label, lambda scene, name=label: scene.baselines[name])
    print()
    line_of_all = fitted(calibration, every)
    for name, scenes in tested.items():
        bias = np.mean([np.median(predicted(scene, line_of_all, every) - log_error(scene)) for scene in scenes])
        quality = [scene.quality for scene in scenes]
        print(f"{name}: predicted / true error {np.exp(bias):.2f} in the median; mean quality of a scene's held-out "
              f"views {min(quality):.2f} to {max(quality):.2f} with the defaults of QualityOptions")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
