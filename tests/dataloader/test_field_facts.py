"""What `verify` tells of fields: numbers counted from folders that were written with known ones."""

import json
import logging

import pytest
import torch

from dataloader import SceneTransform, save_perfception_scene
from dataloader.hold_out import save_held_out
from dataloader.perfception import PerfceptionScene, save_nested_scene
from dataloader.task_verify import verify
from dataloader.verification import inspect_field
from utils.errors import UserError

TRANSFORM = SceneTransform(torch.eye(4), torch.zeros(3), 0.25, ["1", "2", "4"])  # the box is 8 metres wide


def downloaded(folder):
    """A field as PeRFception's: 8 x 4 x 4 cells, 9 voxels, and results as its code writes them."""
    path = folder / "plenoxel_scannet_far"
    save_perfception_scene(path, (8, 4, 4), torch.arange(9) * 3, torch.ones(9), torch.rand(9, 27), TRANSFORM)
    (path / "results.json").write_text(json.dumps({"PSNR": {"test": 24.5, "train": 30.0}, "LPIPS": {"test": 0.4}}))
    return path


def nested(folder):
    """A field as this project's: three grids of 4^3 with 2, 3 and 1 voxels."""
    path = folder / "plenoxel_scannet_near"
    voxels = torch.tensor([0, 5, 64 + 1, 64 + 2, 64 + 3, 128 + 63])
    save_nested_scene(path, PerfceptionScene((4, 4, 4), voxels, torch.ones(6), torch.rand(6, 27), TRANSFORM, levels=3))
    (path / "results.json").write_text(json.dumps({"psnr": 27.25, "ssim": 0.875, "held_out": {}}))
    save_held_out(path, "near", ["0", "8"])
    return path


def test_a_downloaded_field(tmp_path):
    path = downloaded(tmp_path)
    findings, facts = inspect_field(path)
    assert findings == [] and (facts.scene, facts.format) == ("far", "PeRFception")
    assert facts.resolution == (8, 4, 4) and facts.voxels == (9,) and facts.voxel_size == (2.0,)
    assert facts.bytes_in_memory == 9 * 28 * 4 + 8 * 4 * 4 * 4
    files = [path / "last.ckpt", path / "trans_info.npz"]
    assert facts.bytes_on_disk == sum(file.stat().st_size for file in files)
    assert (facts.psnr, facts.ssim, facts.held_out, facts.fitted_frames) == (24.5, None, None, 3)


def test_a_nested_field(tmp_path):
    findings, facts = inspect_field(nested(tmp_path))
    assert findings == [] and facts.format == "nested" and facts.background_layers == 0
    assert facts.resolution == (4, 4, 4) and facts.voxels == (2, 3, 1) and facts.voxel_size == (0.5, 1.0, 2.0)
    assert facts.bytes_in_memory == 6 * 28 * 4 + 3 * 64 * 4
    assert (facts.psnr, facts.ssim, facts.held_out) == (27.25, 0.875, ("0", "8"))


@pytest.mark.parametrize("scores", [{}, {"psnr": None}, {"psnr": "high"}, {"psnr": float("nan")}, {"PSNR": {}}])
def test_scores_that_are_no_numbers_are_unknown(tmp_path, scores):
    path = nested(tmp_path)
    (path / "results.json").write_text(json.dumps(scores))
    assert inspect_field(path)[1].psnr is None
    (path / "results.json").unlink()
    assert inspect_field(path)[1].psnr is None


def test_the_table_and_the_file(tmp_path, caplog):
    downloaded(tmp_path / "fields"), nested(tmp_path / "fields")
    verify(fields_dir=str(tmp_path / "fields"), results_dir=str(tmp_path / "found"))  # the second run remembers
    caplog.clear()
    with caplog.at_level(logging.INFO):
        verify(fields_dir=str(tmp_path / "fields"), results_dir=str(tmp_path / "found"))
    rows = [line.split() for line in caplog.text.splitlines() if line.startswith(("far", "near"))]
    assert rows[0][:5] == ["far", "PeRFception", "8x4x4", "9", "2"] and rows[0][-3:] == ["24.50", "dB", "unknown"]
    assert rows[1][:10] == ["near", "nested", "3", "x", "4x4x4", "2", "+", "3", "+", "1"]
    assert "0.5..2" in rows[1] and rows[1][-4:] == ["27.25", "dB", "2", "frames"]
    scenes = json.loads((tmp_path / "found" / "report.json").read_text())["scenes"]
    assert [scenes[name]["field"]["holds"]["voxels"] for name in ("far", "near")] == [[9], [2, 3, 1]]


def test_damaged_results_are_a_finding_and_the_file_has_it(tmp_path):
    path = nested(tmp_path / "fields")
    (path / "results.json").write_text("[1]")
    with pytest.raises(UserError, match="1 problems in 1 fields"):
        verify(fields_dir=str(tmp_path / "fields"), results_dir=str(tmp_path / "found"))
    (scene,) = json.loads((tmp_path / "found" / "report.json").read_text())["scenes"].values()
    assert "holds" not in scene["field"] and scene["field"]["status"] == "broken"
    assert "results.json" in scene["field"]["reasons"][0]
