"""Small scans with a field and a labelled mesh each, and the stores that 'render' and 'annotate' make of them."""

from __future__ import annotations

from pathlib import Path

import torch

from dataloader import SceneTransform
from dataloader.hold_out import save_held_out
from model.capture import CaptureModel
from model.task_annotate import annotate
from model.task_render import render
from tests.dataloader.scannet_fixture import ROOM, write_scannet_scene
from tests.model.grid_fixture import filled, voxel_centers
from utils.cameras import look_at

SIZE = (20, 28)
SCENES = ("scene0000_00", "scene0001_00", "scene0002_00", "scene0003_00")
FRAMES = 6  # one of seven is lost


def write_scene(folder: Path, name: str, seed: int, exposed: bool = False) -> None:
    """A scan, and a turned field of its walls with random coefficients (nothing is fitted)."""
    write_scannet_scene(folder / "scans" / name, num_frames=FRAMES + 1, size=(24, 32))
    generator = torch.Generator().manual_seed(seed)
    turn = look_at(torch.zeros(3), torch.randn(3, generator=generator))[:3, :3].double()
    placement = torch.eye(4, dtype=torch.float64)
    placement[:3, :3] = turn
    room = torch.tensor(ROOM, dtype=torch.float64)
    transform = SceneTransform(placement, turn @ room / 2, 0.36)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"), -1)
    world = transform.points_from_grid(voxel_centers(voxels, 24))
    grid = filled(torch.minimum(world, room.float() - world).amin(-1).abs() < 0.2, density=150.0)
    grid.sh[:] = torch.randn(grid.sh.shape, generator=generator) * 0.3
    field = folder / "fields" / f"plenoxel_scannet_{name}"
    grid.save(field, transform)
    save_held_out(field, name, ["0", "4"])
    if exposed:
        poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
        poses[:, :3, 3] = torch.tensor([[2.0, 1.5, 1.3], [1.0, 1.0, 1.3]])
        still = torch.zeros(2, 3, dtype=torch.float64)
        gain, offset = torch.tensor([[1.2, 1.0, 0.8], [0.7, 0.9, 1.1]]), torch.full((2, 3), 0.05)
        CaptureModel(poses, gain, offset, still, still, near=0.5).save(field)


def write_scenes(folder: Path) -> Path:
    """All scenes; the first has exposures. Returns the folder of scans and fields."""
    for number, name in enumerate(SCENES):
        write_scene(folder, name, number, exposed=number == 0)
    return folder


def write_stores(folder: Path, device: str = "cpu") -> Path:
    """Rendered and annotated stores of the scenes; returns their folder."""
    views = folder / f"views_{device}"
    render(str(folder / "scans"), str(folder / "fields"), str(views), size=SIZE, device=device)
    annotate(str(folder / "scans"), str(views), device=device)
    return views
