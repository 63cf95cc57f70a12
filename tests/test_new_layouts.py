"""ScanNet++ and ARKitScenes all the way: verify, fit, render and annotate, by their configs of configs/data."""

import gin
import pytest
import torch

import run as entry
from dataloader import ViewStore, load_scene
from tests.dataloader.layout_fixtures import COUNT, TEST, phone_names, write_arkitscenes, write_scannetpp
from tests.dataloader.scannet_fixture import trace_room_labels
from utils.files import read_json
from utils.labels import benchmark_set, read_label_set
from utils.paths import PROJECT

SMALL = {
    "fit": ("FitGrid.resolutions = (16, 32)", "FitOptimization.steps = (30, 30)", "FitPoses.rounds = 0",
            "FitOptimization.rays_per_step = (400,)", "DEVICE = 'cpu'"),
    "render": ("DEVICE = 'cpu'", "SIZE = (24, 32)"),
    "annotate": ("DEVICE = 'cpu'",),
    "verify": (),
    "analyze": (),
}  # fmt: skip


def run(tmp_path, task, data, *bindings):
    gin.clear_config()
    given = (*SMALL[task], f"DATA = '{tmp_path}/DATA'", f"WORK = '{tmp_path}/WORK'", *bindings)
    configs = ["--ginc", f"configs/stage/{task}.gin", "--ginc", f"configs/data/{data}.gin"]
    return entry.main([task, *configs, *(word for line in given for word in ("--ginb", line))])


@pytest.mark.parametrize("sensor", ["dslr", "iphone"])
def test_scannetpp(tmp_path, sensor):
    scene = write_scannetpp(tmp_path / "DATA")
    chosen = f"SensorOptions.scannetpp = '{sensor}'"
    for task in ("verify", "fit", "render", "annotate"):
        assert run(tmp_path, task, "scannetpp", chosen) == 0
    results = read_json(tmp_path / "WORK" / "fields" / f"plenoxel_scannet_{scene.name}" / "results.json")
    held_out = {"dslr": [name.removesuffix(".JPG") for name in TEST], "iphone": phone_names()[::8]}
    assert list(results["held_out"]) == held_out[sensor] and results["psnr"] > 15
    store = ViewStore(tmp_path / "WORK" / "views" / "original" / scene.name)
    table = read_label_set(PROJECT / "configs" / "labels" / "scannetpp100.tsv")
    class_of = torch.tensor([table.names.index(name) if name in table.names else 0 for name in benchmark_set().names])
    labels, cameras = store.tensor("label"), store.cameras
    assert len(labels) == COUNT
    for view in range(COUNT):
        exact, _ = trace_room_labels(cameras.camera_to_world[view], cameras.intrinsics[view], store.size)
        assert (class_of[exact] == labels[view]).double().mean() > 0.98
    assert run(tmp_path, "analyze", "scannetpp") == 0
    counted = read_json(tmp_path / "WORK" / "analysis" / "run" / "metrics.json")
    assert counted["num_frames"] == COUNT and list(counted["share"])[1:] == list(table.names[1:])
    assert counted["share"]["wall"] == pytest.approx(float((labels == 1).double().mean()))


def test_arkitscenes(tmp_path):
    folder = write_arkitscenes(tmp_path / "DATA" / "Training")
    for task in ("verify", "fit", "render"):
        assert run(tmp_path, task, "arkitscenes") == 0
    results = read_json(tmp_path / "WORK" / "fields" / f"plenoxel_scannet_{folder.name}" / "results.json")
    assert results["psnr"] > 18
    store = ViewStore(tmp_path / "WORK" / "views" / "original" / folder.name)
    assert store.cameras.names == load_scene(folder).frames
    assert run(tmp_path, "annotate", "arkitscenes") != 0
