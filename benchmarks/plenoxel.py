"""Speed of the Plenoxel ops on a furnished 256^3 room (benchmarks/scenes.py).

    python benchmarks/plenoxel.py                  # CPU, and CUDA where there is one
    python benchmarks/plenoxel.py --device cpu --repeats 5 --no-reference
    python benchmarks/plenoxel.py --device cpu --field FIELD --scan SCAN --no-reference   # a fitted field

A time is the median of several runs. On the CPU runs with one thread and with all threads take turns, so that what else
the machine does meets both. "floor" are the bytes that must move at least once: the voxels that the rays read (their
density, coefficients and link, and as much again for each gradient), the rays and the outputs; GB/s is the floor over
the time, "floor %" its share of what a copy of a large tensor reaches, measured first. "reference" is
lib/plenoxel/reference.py, plain PyTorch, on the same device with all threads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fitted import FittedRoom  # noqa: E402
from benchmarks.scenes import furnished_room, room_rays  # noqa: E402
from lib.plenoxel import ops, reference  # noqa: E402
from lib.plenoxel.grid import GridHandle  # noqa: E402
from lib.plenoxel.index import VoxelIndex  # noqa: E402
from lib.plenoxel.layers import shade_layers, shade_layers_gradients  # noqa: E402
from lib.plenoxel.options import RenderOptions  # noqa: E402
from lib.plenoxel.reference_layers import _shade_layers  # noqa: E402

VOXEL_BYTES = 28 * 4  # density and 27 coefficients
FOCAL_PER_PIXEL = 578 / 640  # the anchors' camera: 578 px at a width of 640
CPU_VIEW, CUDA_VIEW = (128, 128), (480, 640)
FIT_RAYS = {"cpu": [5000], "cuda": [5000, 65536]}


class GeneratedRoom:
    """The furnished room and its eight views, as `FittedRoom` has those of a field."""

    def __init__(self):
        self.grid = furnished_room()

    def rays(self, view: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        return room_rays(view, (height, width), FOCAL_PER_PIXEL * width)


Room = GeneratedRoom | FittedRoom


class Case(NamedTuple):
    name: str
    run: Callable[[], object]
    floor_bytes: int
    reference: Callable[[], object] | None = None


def voxels_read(grid: GridHandle, rays, options: RenderOptions) -> int:
    weights = torch.zeros_like(grid.density)
    ops.max_weight(grid, *rays, weights, options)
    return int((weights > 0).sum())


def render_cases(room: Room, grid: GridHandle, size: tuple[int, int], device: str) -> list[Case]:
    rays = tuple(values.to(device) for values in room.rays(1, *size))
    label = f"render {size[0]}x{size[1]}"
    cases = []
    for step_size in (0.5, 0.05):
        options = RenderOptions(step_size=step_size)
        voxels, count = voxels_read(grid, rays, options), len(rays[0])
        for outputs in (("rgb",), ("rgb", "sh", "depth", "alpha")):
            floats = 6 + sum({"rgb": 3, "sh": 27}.get(name, 1) for name in outputs)
            everything = len(outputs) == 4
            cases.append(
                Case(
                    f"{label}, step {step_size}, {'rgb, sh, depth, alpha' if everything else 'rgb'}",
                    lambda options=options, outputs=outputs: ops.render_rays(
                        grid, *rays, options, outputs, image_width=size[1]
                    ),
                    voxels * (VOXEL_BYTES + 4) + count * floats * 4,
                    (lambda options=options: reference._render_rays(grid, *rays, options))
                    if everything and step_size == 0.5
                    else None,
                )
            )
        cases.append(
            Case(f"{label}, step {step_size}, all of it in scan order",
                 lambda options=options: ops.render_rays(grid, *rays, options), 0)
        )  # fmt: skip
    return cases


def fit_cases(room: Room, grid: GridHandle, count: int, device: str) -> list[Case]:
    """A fit step's parts on rays drawn at random from all views, and the whole step."""
    views = [room.rays(view, 360, 480) for view in range(8)]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 8 * 360 * 480, (count,), generator=generator)
    rays = tuple(torch.cat(values)[chosen].to(device) for values in zip(*views, strict=True))
    target = torch.rand(count, 3, generator=generator).to(device)
    fitted, options = grid.with_values(grid.density.clone(), grid.sh.clone()), RenderOptions()
    gradients, means = ([torch.zeros_like(grid.density), torch.zeros_like(grid.sh)] for _ in range(2))
    touched = torch.zeros_like(grid.density, dtype=torch.bool)
    cells = grid.index.total_voxels // 100
    losses = {"beta_lambda": 1e-5, "sparsity_lambda": 1e-11}

    def gradient_step():
        ops.fit_gradients(fitted, *rays, target, *gradients, options, touched=touched, **losses)

    def whole():
        gradient_step()
        ops.update_grid(
            fitted, *gradients, *means, touched, lr_density=1e-6, lr_sh=1e-6,
            first_cell=grid.index.total_voxels // 2, num_cells=cells, tv_density=1e-5 / cells, tv_sh=1e-3 / cells,
        )  # fmt: skip

    def reference_step():
        reference._fit_gradients(fitted, *rays, target, *gradients, options, **losses)

    voxels = voxels_read(grid, rays, options)
    return [
        Case(f"fit gradients, {count} rays", gradient_step, voxels * (3 * VOXEL_BYTES + 4), reference_step),
        Case(f"fit step with TV and RMSProp, {count} rays", whole, voxels * 6 * VOXEL_BYTES),
    ]


def layer_cases(count: int, device: str) -> list[Case]:
    """The background layers of a fit's step: 4 layers of 128 rows."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(128, 256, 4, 4, generator=generator).to(device)
    origins, directions, cotangent = (torch.randn(3, count, 3, generator=generator) * 0.3).to(device)
    gradient, touched = torch.zeros_like(texture), torch.zeros(128, 256, dtype=torch.bool, device=device)
    rays, floor = (texture, origins, directions), count * 10 * 8 * 16  # samples, corners, bytes

    def reference_gradients():
        leaf = texture.clone().requires_grad_()
        torch.autograd.grad(_shade_layers(leaf, *rays[1:]), leaf, cotangent)

    return [
        Case(f"background layers, {count} rays", lambda: shade_layers(*rays), floor, lambda: _shade_layers(*rays)),
        Case(
            f"background layers' gradients, {count} rays",
            lambda: shade_layers_gradients(*rays, cotangent, gradient, touched), 2 * floor,
            reference_gradients,
        ),
    ]  # fmt: skip


def other_cases(room: Room, grid: GridHandle, device: str) -> list[Case]:
    rays = tuple(values.to(device) for values in room.rays(1, *CPU_VIEW))
    weights = torch.zeros_like(grid.density)
    points = torch.rand(200_000, 3, device=device) * (grid.index.resolution[0] - 1)
    links = grid.index.links
    return [
        Case("max weight 128x128", lambda: ops.max_weight(grid, *rays, weights, RenderOptions()), 0),
        Case("sample grid, 200k points", lambda: ops.sample_grid(grid, points), len(points) * (3 + 28) * 4),
        Case("cell distance", lambda: torch.ops.plenoxel.cell_distance(links), links.numel() * 5),
        Case("index of links, checked", lambda: VoxelIndex(links, grid.index.num_rows), links.numel() * 4),
    ]


def seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(case: Case, device: str, repeats: int, thread_counts: list[int]) -> list[float]:
    """Median seconds with each number of threads."""
    times = {threads: [] for threads in thread_counts}
    seconds(case.run, device)
    for _ in range(repeats):
        for threads in thread_counts:
            torch.set_num_threads(threads)
            times[threads].append(seconds(case.run, device))
    return [statistics.median(times[threads]) for threads in thread_counts]


def copied_bytes_per_second(device: str, repeats: int) -> float:
    """Read and written by a copy, with all threads."""
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = Case("copy", lambda: target.copy_(source), 2 * source.nbytes)
    return copy.floor_bytes / measure(copy, device, repeats, [torch.get_num_threads()])[0]


def print_table(cases: list[Case], device: str, repeats: int, with_reference: bool) -> None:
    threads = torch.get_num_threads()
    counts = [1, threads] if device == "cpu" and threads > 1 else [threads]
    columns = ["1 thread ms", f"{threads} threads ms", "gain"] if len(counts) > 1 else ["ms"]
    columns += ["floor MB", "GB/s", "floor %", "reference ms", "ratio"]
    bandwidth = copied_bytes_per_second(device, repeats)
    print(f"a copy moves {bandwidth / 1e9:.1f} GB/s")
    print(f"{'':52}" + "".join(f"{name:>14}" for name in columns))
    for case in cases:
        times = measure(case, device, repeats, counts)
        cells = [f"{1e3 * value:.2f}" for value in times]
        if len(counts) > 1:
            cells.append(f"{times[0] / times[-1]:.2f}")
        rate = case.floor_bytes / times[-1]
        floor = (case.floor_bytes / 1e6, rate / 1e9, 100 * rate / bandwidth)
        cells += [f"{value:.2f}" if case.floor_bytes else "" for value in floor]
        if with_reference and case.reference:
            plain = seconds(case.reference, device)
            cells += [f"{1e3 * plain:.0f}", f"{plain / times[-1]:.0f}"]
        print(f"{case.name:52}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: both, where there is CUDA")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-reference", action="store_true", help="skip the slow plain PyTorch reference")
    parser.add_argument("--field", type=Path, help="a fitted field's folder; needs --scan, its scene")
    parser.add_argument("--scan", type=Path)
    arguments = parser.parse_args()
    devices = [arguments.device] if arguments.device else ["cpu", *["cuda"] * torch.cuda.is_available()]
    room = FittedRoom(arguments.field, arguments.scan, "cpu") if arguments.field else GeneratedRoom()
    for device in devices:
        grid = room.grid.to(device)
        cases = render_cases(room, grid, CPU_VIEW if device == "cpu" else CUDA_VIEW, device)
        for count in FIT_RAYS[device]:
            cases += fit_cases(room, grid, count, device) + layer_cases(count, device)
        print(f"\n{device}: {len(grid.density):,} voxels")
        print_table(cases + other_cases(room, grid, device), device, arguments.repeats, not arguments.no_reference)


if __name__ == "__main__":
    main()
