"""The page's content about scenes: radiance fields, classes, domes, and examples of rendered views."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from analysis.coverage import class_pixels
from analysis.dome_plots import contact_sheet, pick_evenly
from analysis.false_color import depth_color, sh_false_color
from analysis.filtering import REASONS, count_reasons
from analysis.report.embedding import embed_drawing, embed_figure, embed_file, embed_photo
from analysis.statistics import from_names
from analysis.statistics_plots import plot_before_and_after
from analysis.surface import field_depth
from dataloader import CameraList, ViewStore
from dataloader.perfception import FIELD_PREFIX
from utils.errors import UserError, reading
from utils.files import read_json
from utils.images import read_image
from utils.labels import UNANNOTATED, colorize, label_set

_PAIRS_PER_SCENE = 2
_STRIPS_PER_SCENE = 4


def fields_section(fields_dir: Path, examples: int) -> dict[str, Any] | None:
    """Held-out PSNR and SSIM of every field, and render beside photograph for some; None when nothing was fitted."""
    results = {path.parent.name.removeprefix(FIELD_PREFIX): (path.parent, _field_results(path))
               for path in sorted(fields_dir.glob("*/results.json"))}
    if not results:
        return None
    measured = [values for _, values in results.values() if values.get("psnr") is not None]
    scenes = [{"scene": name, **{key: value for key, value in values.items() if key != "held_out"}}
              for name, (_, values) in results.items()]
    return {
        "scenes": scenes,
        "psnr": statistics.fmean(values["psnr"] for values in measured) if measured else None,
        "ssim": statistics.fmean(values["ssim"] for values in measured) if measured else None,
        "pairs": [pair for name in list(results)[:examples] for pair in _held_out_pairs(name, *results[name])],
    }


def _field_results(path: Path) -> dict[str, Any]:
    results = read_json(path, kind=dict)
    with reading(path, "the results of a fit", "fit the scene again"):
        for values in (results, *results.get("held_out", {}).values()):
            if values.get("psnr") is not None:
                float(values["psnr"]), float(values["ssim"])
    return results


def _held_out_pairs(scene: str, folder: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The worst held-out view of the better half and of all: a typical one and a failure."""
    frames = sorted(results.get("held_out", {}), key=lambda frame: -results["held_out"][frame]["psnr"])
    chosen = [frames[len(frames) // 2], frames[-1]][:_PAIRS_PER_SCENE] if frames else []
    pairs = []
    for frame, kind in zip(dict.fromkeys(chosen), ("median", "worst"), strict=False):
        file = folder / "render_model" / f"{frame}.jpg"
        if file.exists():
            values = results["held_out"][frame]
            pairs.append({"scene": scene, "frame": frame, "kind": kind, "psnr": values["psnr"], "ssim": values["ssim"],
                          "picture": embed_photo(read_image(file))})
    return pairs


def classes_section(analysis_dir: Path, novel_views_dir: Path) -> dict[str, Any] | None:
    """Class shares of the original views, and of original and novel views together; None before ``analyze``."""
    path = analysis_dir / "statistics.json"
    if not path.exists():
        return None
    found = read_json(path)
    with reading(path, "class statistics", "run 'analyze' again"):
        before = from_names(found["total"]["pixels"]).long()
        tail = set(found["total"]["tail_classes"])
    novel = _novel_pixels(novel_views_dir)
    section: dict[str, Any] = {
        "total": found["total"],
        "before": before.tolist(),
        "after": None if novel is None else (before + novel).tolist(),
        "sh": found.get("sh"),
        "pictures": {name: embed_file(analysis_dir / f"{name}.png")
                     for name in ("class_distribution", "scene_distribution", "window_coverage", "sh_classes")
                     if (analysis_dir / f"{name}.png").exists()},
    }
    if novel is not None:
        section["before_after"] = embed_figure(plot_before_and_after(before, before + novel, tail))
    return section


def _novel_pixels(novel_views_dir: Path) -> torch.Tensor | None:
    """Pixels of every class in all annotated novel stores, int64 ``[C]``; None when there are none."""
    total = None
    for meta in sorted(novel_views_dir.glob("*/meta.json")):
        store = ViewStore.open(meta.parent)
        if "label" not in store.channels:
            continue
        counts = [class_pixels(labels).sum(0) for _, labels in store.blocks("label")]
        none = torch.zeros(label_set().num_classes, dtype=torch.int64)
        total = torch.stack([none if total is None else total, *counts]).sum(0)
    return total


def domes_section(domes_dir: Path, examples: int) -> dict[str, Any] | None:
    """How many dome cameras were accepted and the others' reasons, with floor plans and annotations of some scenes."""
    lists = {path.stem: CameraList.load(path) for path in sorted(domes_dir.glob("*.json"))}
    judged = [info for cameras in lists.values() for info in cameras.info if "accepted" in info]
    if not judged:
        return None
    by_class: dict[str, list[int]] = {}
    with reading(domes_dir, "a folder of judged dome cameras", "run 'filter' again"):
        for info in judged:
            counts = by_class.setdefault(info["target_class"], [0, 0])
            counts[0] += 1
            counts[1] += bool(info["accepted"])
    shown = [name for name in lists if len(lists[name])][:examples]
    return {
        "reasons": [{"name": name, "count": count, "meaning": REASONS.get(name, "kept")}
                    for name, count in count_reasons(judged).items()],
        "classes": [{"name": name, "cameras": counts[0], "accepted": counts[1]}
                    for name, counts in sorted(by_class.items(), key=lambda entry: -entry[1][1])],
        "plans": [{"scene": name, "picture": embed_file(domes_dir / name / "plan.png")}
                  for name in shown if (domes_dir / name / "plan.png").exists()],
    }


def views_section(views_dir: Path, examples: int) -> list[dict[str, Any]]:
    """Colour, SH, annotation and depth of some rendered views of some scenes."""
    sheets = []
    for meta in sorted(views_dir.glob("*/meta.json"))[:examples]:
        try:
            store = ViewStore.open(meta.parent)
            views = pick_evenly(len(store), _STRIPS_PER_SCENE)
            pictures = [picture for view in views for picture in _pictures(store, view)]
        except UserError:
            continue
        columns = _shown_channels(store)
        sheets.append({"scene": store.scene, "columns": columns, "views": len(store),
                       "picture": embed_drawing(contact_sheet(pictures, 2 * len(columns)))})
    return sheets


def _shown_channels(store: ViewStore) -> list[str]:
    return [name for name in ("photo", "rgb", "sh", "label", "depth", "quality") if name in store.channels]


def _pictures(store: ViewStore, view: int) -> list[torch.Tensor]:
    """Each shown channel of one view as a picture uint8 ``[3, H, W]``."""
    painters = {
        "photo": lambda image: (image * 255).round().to(torch.uint8),
        "rgb": lambda image: (image * 255).round().to(torch.uint8),
        "sh": sh_false_color,
        "label": colorize,
        "depth": depth_color,
        "quality": lambda image: (image * 255).round().to(torch.uint8).expand(3, -1, -1),
    }
    return [painters[name](field_depth(store, view) if name == "depth" else store.read(name, view))
            for name in _shown_channels(store)]


def tail_gain(section: dict[str, Any]) -> float | None:
    """Share of tail classes among annotated pixels with novel views, divided by the share without."""
    if section.get("after") is None or not section["total"]["tail_classes"]:
        return None
    tail = from_names(dict.fromkeys(section["total"]["tail_classes"], 1)).bool()
    shares = []
    for counts in (section["before"], section["after"]):
        pixels = torch.tensor(counts, dtype=torch.float64)
        pixels[UNANNOTATED] = 0
        shares.append(float(pixels[tail].sum() / pixels.sum().clamp(min=1)))
    return shares[1] / shares[0] if shares[0] > 0 else None
