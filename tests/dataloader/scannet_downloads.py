"""A small imitation of ScanNet as one downloads it: streams and meshes of scenes, and the split lists.

Rooms, photographs and depth are those of :mod:`tests.dataloader.scannet_fixture`.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.depth_images import read_depth

SPLITS = {
    "train": ["scene0000_00", "scene0001_00", "scene0002_00"], "val": ["scene0003_00"], "test": ["scene0707_00"],
}  # fmt: skip
LOST = 3  # this frame's pose, in every scene
FRAMES = 24


def write_downloads(sens: Path, splits: Path, size: tuple[int, int] = (24, 32)) -> None:
    """Write ``sens/SCENE`` with stream and meshes (of test scenes without labels) and ``splits/scannetv2_*.txt``."""
    splits.mkdir(parents=True, exist_ok=True)
    for split, scenes in SPLITS.items():
        (splits / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in scenes))
        for name in scenes:
            scene = write_scannet_scene(sens / name, size, num_frames=FRAMES, lost_frames=(LOST,), image_format="jpg")
            _pack(scene, size)
            if split == "test":
                (scene / f"{name}_vh_clean_2.labels.ply").unlink()


def _pack(scene: Path, size: tuple[int, int]) -> None:
    """The frames as ``SCENE.sens``; their files are removed."""
    parts = [struct.pack("<IQ", 4, 9) + b"imitation"]
    for name in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
        path = scene / "intrinsic" / f"{name}.txt"
        parts.append((np.loadtxt(path) if path.exists() else np.eye(4)).astype("<f4").tobytes())
    parts.append(struct.pack("<2i4IfQ", 2, 1, size[1], size[0], size[1], size[0], 1000.0, FRAMES))
    for frame in range(FRAMES):
        color = (scene / "color" / f"{frame}.jpg").read_bytes()
        depth = (read_depth(scene / "depth" / f"{frame}.png") * 1000).round().to(torch.int32).numpy()
        depth = zlib.compress(depth.astype("<u2").tobytes())
        parts.append(np.loadtxt(scene / "pose" / f"{frame}.txt").astype("<f4").tobytes())
        parts.append(struct.pack("<4Q", frame, frame, len(color), len(depth)) + color + depth)
    (scene / f"{scene.name}.sens").write_bytes(b"".join(parts))
    for folder in ("color", "depth", "pose", "intrinsic"):
        for path in (scene / folder).iterdir():
            path.unlink()
        (scene / folder).rmdir()
