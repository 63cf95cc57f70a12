"""Class statistics against shares known beforehand, and the task that writes them."""

import json

import numpy as np
import pytest
import torch

from analysis.plotting import shown_classes
from analysis.statistics import scene_statistics, summarize_scenes, tail_classes
from analysis.task_analyze import analyze
from tests.analysis.box_room import SIZE, ray_cast, trajectory, write_store
from utils.errors import UserError
from utils.labels import class_index, label_set

PAPER_SHARES = {
    "wall": 22.4, "unannotated": 20.2, "floor": 19.2, "chair": 6.0, "table": 4.6, "cabinet": 4.4, "door": 3.8,
    "bed": 3.5, "otherfurniture": 3.1, "sofa": 2.5, "desk": 2.1, "window": 1.6, "bookshelf": 1.2, "curtain": 1.0,
    "refrigerator": 0.77, "counter": 0.71, "toilet": 0.67, "bathtub": 0.65, "picture": 0.46, "shower curtain": 0.46,
    "sink": 0.43,
}  # fmt: skip


def test_the_default_threshold_gives_the_papers_list_from_its_shares():
    pixels = torch.tensor([round(1e6 * PAPER_SHARES[name]) for name in label_set().names])
    found = tail_classes(pixels, "share", 0.011)
    assert set(found) == set(label_set().tail)
    assert found[0] == class_index("sink")


def test_tail_rules():
    pixels = torch.zeros(21, dtype=torch.int64)
    pixels[1], pixels[18], pixels[16] = 1000, 5, 9
    assert tail_classes(pixels, "share", 0.01) == [18, 16]
    assert tail_classes(pixels, "share", 0.006) == [18]
    assert tail_classes(pixels, "paper", 0.0) == [18, 16]
    assert tail_classes(pixels, ["wall", "sink", "bathtub"], 0.0) == [18, 1]
    with pytest.raises(UserError, match="rare"):
        tail_classes(pixels, "rare", 0.01)
    with pytest.raises(UserError, match="spoon"):
        tail_classes(pixels, ["spoon"], 0.01)


def test_pixels_frames_and_coverage_of_a_store(tmp_path):
    store = write_store(tmp_path / "room")
    labels, _ = ray_cast(trajectory())
    found = scene_statistics(store, 0.5)
    for name in ("wall", "sink", "bed"):
        k = class_index(name)
        assert found.pixels[k] == (labels == k).sum()
        assert found.frames_with_class[k] == (labels == k).flatten(1).any(1).sum()
    window = labels[:, 12:36, 16:48] == class_index("sink")
    assert torch.allclose(found.coverage[:, class_index("sink")], window.flatten(1).float().mean(1))
    listed = found.to_json()["window_coverage"]
    assert list(listed) == [str(k) for k in range(12)] and "bed" not in listed["0"]


def test_totals_are_sums_over_scenes(tmp_path):
    scenes = {name: scene_statistics(write_store(tmp_path / name, trajectory(n)), 0.5).to_json()
              for name, n in (("a", 4), ("b", 6))}
    total = summarize_scenes(scenes, "share", 0.011)
    assert total["num_frames"] == 10 and total["num_scenes"] == 2
    assert sum(total["pixels"].values()) == 10 * SIZE[0] * SIZE[1]
    assert total["pixels"]["sink"] == scenes["a"]["pixels"]["sink"] + scenes["b"]["pixels"]["sink"]
    assert sum(total["share"].values()) == pytest.approx(1)
    assert total["scenes_with_class"]["sink"] == 2 and total["scenes_with_class"]["bed"] == 0


def test_broken_and_unannotated_stores_are_named(tmp_path):
    broken = write_store(tmp_path / "broken", labels=torch.full((12, *SIZE), 77, dtype=torch.uint8))
    with pytest.raises(UserError, match="broken.*77"):
        scene_statistics(broken, 0.5)


def test_analyze_writes_statistics_and_plots_once(tmp_path):
    for name in ("a", "b"):
        write_store(tmp_path / "views" / name)
    arguments = (str(tmp_path / "views"), str(tmp_path / "out"))
    metrics = analyze(*arguments, tail=["toilet"], sh_pixels=600)
    assert metrics["tail_classes"] == ["toilet"] and metrics["num_frames"] == 24
    written = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert written["total"]["tail_rule"] == "given by name" and set(written["scenes"]) == {"a", "b"}
    accuracy = written["sh"]["accuracy"]
    assert accuracy["sh"] > 0.9 and accuracy["rgb"] < 0.6  # the store's fifth SH channel is the class and noise
    plots = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert plots == ["class_distribution.png", "scene_distribution.png", "sh_classes.png", "window_coverage.png"]
    counted = tmp_path / "out" / "scenes" / "a" / "statistics.json"
    before = counted.stat().st_mtime_ns
    assert analyze(*arguments, tail=["toilet"], sh_pixels=600) == metrics
    assert counted.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="window"):
        analyze(*arguments, window=0.4, sh_pixels=600)


def test_analyze_needs_no_sh(tmp_path):
    write_store(tmp_path / "views" / "a", with_sh=False)
    assert analyze(str(tmp_path / "views"), str(tmp_path / "out"))["sh"] is None


def test_figures_show_all_classes_of_a_small_set_and_the_most_frequent_of_a_large_one():
    assert shown_classes(np.zeros(21)).tolist() == list(range(1, 21))
    counts = np.zeros(101)
    counts[[0, 7, 50, 99]] = 1000, 3, 9, 1
    assert shown_classes(counts).tolist() == [7, 50, 99]
    assert shown_classes(np.arange(101)).tolist() == list(range(61, 101))
