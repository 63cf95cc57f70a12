"""The temperature that one test finds and others take: whose network and rooms it may be of."""

from dataclasses import asdict
from pathlib import Path

import gin
import pytest
import torch

from enet.calibration import calibrated_options
from enet.module import SegmentationModule
from enet.options import NetworkOptions, ViewOptions
from enet.task_fuse import fuse
from enet.task_test import test as run_test
from model.fusion import FusionOptions
from model.task_annotate import annotate
from tests.model.test_render_task import SIZE, work  # noqa: F401  (a fixture)
from tests.model.test_render_task import call as render
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.identity import file_identity


@pytest.fixture(autouse=True)
def clean_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def tested(tmp_path) -> tuple[Path, Path]:
    """What a test leaves, and the network's file."""
    network = tmp_path / "net.ckpt"
    network.write_bytes(b"weights")
    folder = tmp_path / "fused"
    folder.mkdir()
    write_json(folder / "settings.json", {"checkpoint": file_identity(network)})
    write_json(folder / "results.json", {"calibration": {"temperature": 1.75}, "by_scene": {"scene0001_00": {}}})
    return folder, network


def test_the_temperature_is_taken_and_nothing_else_changes(tested):
    gin.bind_parameter("FusionOptions.certainty", 0.5)
    assert calibrated_options(*tested, ["scene0002_00"]) == FusionOptions(certainty=0.5, temperature=1.75)
    assert calibrated_options("", tested[1], ["scene0001_00"]) == FusionOptions(certainty=0.5)


def test_what_it_is_not_of_is_refused(tested, tmp_path):
    folder, network = tested
    with pytest.raises(UserError, match="scene0001_01.*scans of the same room"):
        calibrated_options(folder, network, ["scene0001_01"])
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"others")
    with pytest.raises(UserError, match="of another network than .*other.ckpt"):
        calibrated_options(folder, other, ["scene0002_00"])
    with pytest.raises(UserError, match="results.json does not exist.*test.fused = True"):
        calibrated_options(tmp_path, network, [])
    gin.bind_parameter("FusionOptions.temperature", 2.0)
    with pytest.raises(UserError, match="both set; choose one"):
        calibrated_options(folder, network, [])


@pytest.mark.parametrize("content, message", [
    ({"calibration": {"temperature": None}, "by_scene": {}}, "none of its rooms is labelled"),
    ({"calibration": {"temperature": -1}, "by_scene": {}}, "its temperature is -1"),
    ({"calibration": {"temperature": "warm"}, "by_scene": {}}, "its temperature is 'warm'"),
    ({"mean_iou": 0.5}, "results.json"),
])  # fmt: skip
def test_what_is_no_calibration_is_one_sentence(tested, content, message):
    folder, network = tested
    write_json(folder / "results.json", content)
    with pytest.raises(UserError, match=message):
        calibrated_options(folder, network, [])


def test_a_calibration_is_of_a_checkpoint_and_of_fused_predictions(tmp_path):
    (tmp_path / "stored").mkdir()
    with pytest.raises(UserError, match=r"fuse.calibration = 'x' is of a network"):
        fuse(str(tmp_path), str(tmp_path), str(tmp_path), predictions=str(tmp_path / "stored"), calibration="x")


def test_fuse_uses_what_test_found(work, tmp_path):  # noqa: F811
    """A room under two names: one is calibrated on, the other fused, as with FusionOptions.temperature."""
    render(work, work / "calibrated")
    annotate(str(work / "scans"), str(work / "calibrated"), device="cpu")
    for folder, prefix in (("calibrated", ""), ("fields", "plenoxel_scannet_")):
        twin = work / folder / f"{prefix}scene0007_00"
        twin.symlink_to(work / folder / f"{prefix}scene0000_00")
    module = SegmentationModule(asdict(NetworkOptions()), views=asdict(ViewOptions()), scenes=["scene0009_00"],
                                size=SIZE, seed=3)  # fmt: skip
    network = tmp_path / "net.ckpt"
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, network)
    fields, views = str(work / "fields"), str(work / "calibrated")
    run_test(str(network), [views], str(tmp_path / "test"), ["scene0000_00"], fused=True, fields_dir=fields,
             device="cpu")  # fmt: skip
    found = read_json(tmp_path / "test/fused/results.json")["calibration"]["temperature"]
    assert found > 0 and abs(found - 1) > 1e-3

    def fused(name: str, **options) -> bytes:
        fuse(fields, views, str(tmp_path / name), str(network), scenes=["scene0007_00"], device="cpu", **options)
        return (tmp_path / name / "scene0007_00/semantic.npz").read_bytes()

    calibrated, plain = fused("calibrated", calibration=str(tmp_path / "test/fused")), fused("plain")
    gin.bind_parameter("FusionOptions.temperature", found)
    assert calibrated == fused("given") != plain
