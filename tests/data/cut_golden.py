"""Cuts tests/data/golden.npz, which a plain clone tests against, from the full golden files.

    python -m tests.data.cut_golden /path/to/data/golden

The full files hold what svox2, the paper's fork of it and the original network computed for two random grids of some
8000 voxels with 2048 rays each, and for two random networks. The cut holds, for each grid:

- a few rays, with all that was computed for them (the fork's colours and depths are svox2's), and every voxel that
  lies at a corner of a cell that they pass through. Rays for which a density, or the light that is left, comes near a
  threshold of an option set are not taken, so that no rounding can make a sample count or not count;
- gradients of the voxels that no other ray of the file's batch reads (``grad_rows``). The original's loss is a mean
  over 2048 rays: tests fill the batch up with rays that miss the grid;
- the variation's gradients of voxels all of whose neighbours are in the cut (``tv_rows``);

and the networks' logits at some pixels; tests draw the networks' weights and pictures again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RAYS = 46
ANY_RAYS = 12
TV_ROWS = 20
NETWORK_PIXELS = 120
CORNERS = torch.cartesian_prod(*[torch.arange(2)] * 3)


class Grid:
    """A golden file's grid and rays in double precision; rays in voxel units."""

    def __init__(self, file: dict[str, np.ndarray]):
        self.resolution = torch.from_numpy(file["reso"])
        self.links = torch.full(tuple(self.resolution), -1)
        self.links.view(-1)[torch.from_numpy(file["links_idx"])] = torch.arange(len(file["links_idx"]))
        self.sigma = torch.from_numpy(file["sigma"]).double()
        scale = self.resolution / 2
        self.origins = torch.from_numpy(file["origins"]).double() * scale + scale - 0.5
        directions = torch.from_numpy(file["dirs"]).double() * scale
        self.world_length = 1 / directions.norm(dim=1)  # of a voxel along each ray
        self.directions = directions * self.world_length[:, None]
        ends = torch.stack((-0.5 - self.origins, self.resolution - 0.5 - self.origins)) / self.directions
        self.entry, self.exit = ends.amin(0).amax(1), ends.amax(0).amin(1)

    def samples(self, ray: int, step: float, near_clip: float = 0.0) -> tuple[Tensor, Tensor]:
        """Rows ``[S, 8]`` (-1: empty) around a ray's samples, and their trilinear shares ``[S, 8]``."""
        first = max(float(self.entry[ray]), near_clip / float(self.world_length[ray]))
        t = torch.arange(first, float(self.exit[ray]), step, dtype=torch.float64)
        points = self.origins[ray] + t[:, None] * self.directions[ray]
        points = torch.minimum(points.clamp_min(0), self.resolution - 1)
        cell = torch.minimum(points.floor().long(), self.resolution - 2)
        rows = self.links[tuple((cell[:, None] + CORNERS).unbind(-1))]
        share = (points - cell)[:, None]
        return rows, torch.where(CORNERS.bool(), share, 1 - share).prod(-1)

    def rows_near(self, ray: int) -> Tensor:
        """Bool ``[V]``: voxels at the corners of cells that a ray passes through, whatever its step."""
        near = torch.zeros(len(self.sigma) + 1, dtype=torch.bool)
        near[self.samples(ray, 0.01)[0].flatten()] = True
        return near[:-1]

    def is_clear(self, ray: int, options: dict) -> bool:
        """Whether no density and no transmittance on a ray is near to a threshold of the options."""
        rows, shares = self.samples(ray, options["step_size"], options["near_clip"])
        sigma = (torch.where(rows >= 0, self.sigma[rows.clamp(min=0)], 0.0) * shares).sum(-1)
        counts = torch.where(sigma > options["sigma_thresh"], sigma, 0.0)
        left = -(counts * options["step_size"] * self.world_length[ray]).cumsum(0)
        from_stop = (left - np.log(options["stop_thresh"])).abs()
        if options["sigma_thresh"] < 1e-3:  # near to nothing a sample counts for nothing
            return bool((from_stop > 1e-3).all())
        return bool((from_stop > 1e-3).all() and ((sigma - options["sigma_thresh"]).abs() > 1e-3).all())

    def neighbours(self, row: int) -> Tensor:
        """Rows of the occupied voxels among the 27 around one."""
        at = (self.links == row).nonzero()[0]
        around = at + torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
        around = around[((around >= 0) & (around < self.resolution)).all(1)]
        rows = self.links[tuple(around.T)]
        return rows[rows >= 0]


def choose_rays(near: Tensor, allowed: Tensor) -> Tensor:
    """The first few rays; then, one after the other, the one that completes most voxels for those that it adds.

    A voxel is complete when no other ray reads it.

    Args:
        near: bool ``[N, V]``, whether a ray reads a voxel.
        allowed: bool ``[N]``.
    """
    chosen = torch.zeros(len(near), dtype=torch.bool)
    chosen[allowed.nonzero()[:ANY_RAYS, 0]] = True
    for _ in range(RAYS - ANY_RAYS):
        others, added = near[~chosen].sum(0), (near & ~near[chosen].any(0)).sum(1)
        completed = (near & (others == 1)).sum(1) + 0.1 * (near & (others == 2)).sum(1)
        gain = completed / (added + 10)
        gain[chosen | ~allowed] = -1
        chosen[gain.argmax()] = True
    return chosen.nonzero()[:, 0]


def cut_grid(svox2: dict[str, np.ndarray], fork: dict[str, np.ndarray], options: list[dict]) -> dict[str, np.ndarray]:
    """The cut of one grid, by names like those of the full files."""
    assert all(np.array_equal(svox2[name], fork[name]) for name in fork if name in svox2 and name != "options")
    grid = Grid(svox2)
    near = torch.stack([grid.rows_near(ray) for ray in range(len(grid.origins))])
    allowed = torch.tensor([all(grid.is_clear(ray, one) for one in options) for ray in range(len(near))])
    rays = choose_rays(near, allowed)
    left_out = torch.ones(len(near), dtype=torch.bool)
    left_out[rays] = False
    graded = near[rays].any(0) & ~near[left_out].any(0)
    kept = near[rays].any(0)
    varied = graded.nonzero()[:TV_ROWS, 0]
    for row in varied:
        kept[grid.neighbours(int(row))] = True
    new_row = kept.cumsum(0) - 1
    cut = {"reso": svox2["reso"], **{name: svox2[name][kept] for name in ("links_idx", "sigma", "sh")}}
    cut |= {name: svox2[name][rays] for name in ("origins", "dirs", "gt")}
    for i in range(len(options)):
        cut |= {f"{name}_{i}": svox2[f"{name}_{i}"][rays] for name in ("rgb", "depth")}
        cut[f"sh_image_{i}"] = fork[f"sh_image_{i}"][rays]
        cut |= {f"grad_sigma_{name}_{i}": svox2[f"grad_sigma_{name}_{i}"][graded] for name in ("mse", "reg")}
    cut["grad_sh_mse_0"] = svox2["grad_sh_mse_0"][graded]
    cut |= {f"tv_{name}": svox2[f"tv_{name}"][varied] for name in ("sigma", "sh")}
    return {**cut, "grad_rows": new_row[graded].int().numpy(), "tv_rows": new_row[varied].int().numpy()}


def main(folder: Path) -> None:
    read = {path.stem: dict(np.load(path, allow_pickle=False)) for path in folder.glob("*.npz")}
    options = json.loads(str(read["svox2_0"]["options"]))
    arrays = {"options": read["svox2_0"]["options"]}
    for number in range(2):
        cut = cut_grid(read[f"svox2_{number}"], read[f"fork_{number}"], options)
        print(number, len(cut["sigma"]), "voxels,", len(cut["grad_rows"]), "with gradients")
        arrays |= {f"grid_{number}/{name}": values for name, values in cut.items()}
    random = np.random.default_rng(0)
    for name in ("orig_rgb_0", "orig_sh_0"):
        logits = read[name]["y"][0]
        pixels = np.sort(random.choice(logits[0].size, NETWORK_PIXELS, replace=False))
        arrays |= {f"{name}/pixels": pixels, f"{name}/y": logits.reshape(len(logits), -1)[:, pixels]}
    path = Path(__file__).with_name("golden.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
