"""The reference data's generators of inputs that users met: each scene is read, or refused for its own reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from dataloader import load_scene
from dataloader.verification import verify_scan

SHARED = Path(__file__).resolve().parents[3] / "shared"
CAPTURE = SHARED / "data" / "hololens_room"
needs_trials = pytest.mark.skipif(not (SHARED / "trials").is_dir() or not CAPTURE.is_dir(), reason="needs the trials")
BROKEN = {
    "colmap_mixed": {}, "colmap_ways": {}, "image_modes": {}, "nerfstudio_extras": {}, "scaled_worlds": {},
    "ply_ways": {"gzipped": "compressed by gzip", "no_faces": "0 faces", "tristrips": "0 faces"},
    "scannet_ways": {
        "depth_5000": "depth is multiplied by 0.2 (files hold 5000 steps", "depth_8bit": "depth is multiplied by 40",
        "intrinsic_sizes": "suggests images of about 1294x812", "pose_comma_decimals": "unreadable pose",
        "pose_in_millimetres": "they are millimetres", "pose_opengl": "OpenGL's axes",
        "pose_world_to_camera": "world-to-camera",
    },
    "transforms_ways": {"mirrored": "mirrored", "numbers_as_text": "fl_x is '165"},
}  # fmt: skip


@needs_trials
@pytest.mark.parametrize("generator", BROKEN)
def test_scenes_are_sound_or_refused_for_their_own_reason(tmp_path, generator):
    command = [sys.executable, f"{generator}.py", CAPTURE, tmp_path / "scans"]
    subprocess.run(command, cwd=SHARED / "trials", check=True, capture_output=True)
    expected, found = BROKEN[generator], {}
    for path in sorted((tmp_path / "scans").iterdir()):
        texts = [finding.text for finding in verify_scan(path, min_frames=5, labelled=False) if finding.broken]
        if texts:
            found[path.name] = " ".join(texts)
    assert set(found) == set(expected)
    assert all(expected[name] in text for name, text in found.items()), found


@needs_trials
def test_what_nerfstudio_adds_is_read(tmp_path):
    command = [sys.executable, "nerfstudio_extras.py", CAPTURE, tmp_path / "scans"]
    subprocess.run(command, cwd=SHARED / "trials", check=True, capture_output=True)
    scene = load_scene(tmp_path / "scans" / "extras")
    assert scene.splits.count("train") == 18 and set(scene.splits[18:]) == {"val"}
    assert scene.points is not None and len(scene.points.positions) == 2000
    mask, color, depth = scene.read_mask(0), scene.read_color(0), scene.read_depth(0)
    assert not mask[30:120, 70:110].any() and mask.float().mean() > 0.7
    assert (color[:, ~mask] == color.new_tensor([255, 0, 255])[:, None]).float().mean() > 0.95
    assert 0.5 < float(depth[depth > 0].median()) < 10
