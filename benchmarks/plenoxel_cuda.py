"""Speed of the CUDA ops by GPU events, against the floor that memory sets.

    python benchmarks/plenoxel_cuda.py                    # the furnished room of benchmarks/scenes.py
    python benchmarks/plenoxel_cuda.py --room room.py     # another room: a module with room(), cameras() and rays()
    python benchmarks/plenoxel_cuda.py --field FIELD --scan SCAN    # a fitted field from its scene's cameras

Times are medians. "floor MB" must move at least once: the voxels that the rays read, the rays and the outputs (for fits
six times the touched voxels: values, gradients and means, read and written). "floor %" is the time those bytes take at
the bandwidth of a device copy, measured first, over the time taken.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fitted import FittedRoom, ray_counts  # noqa: E402
from benchmarks.scenes import furnished_room, room_rays  # noqa: E402
from lib.plenoxel import ops  # noqa: E402
from lib.plenoxel.features import render_features, spread_features  # noqa: E402
from lib.plenoxel.grid import GridHandle  # noqa: E402
from lib.plenoxel.index import VoxelIndex  # noqa: E402
from lib.plenoxel.layers import shade_layers, shade_layers_gradients  # noqa: E402
from lib.plenoxel.options import RenderOptions  # noqa: E402
from lib.plenoxel.outputs import OUTPUTS  # noqa: E402

VOXEL_BYTES = 28 * 4
STEPS = (0.5, 0.05)
VIEWS = 160
CHANNELS = 21
FOCALS = {640: 577.87, 124: 112.0}


class Room:
    """A grid on the GPU and its eight cameras."""

    def __init__(self, module_path: Path | None):
        self._module = _load_module(module_path) if module_path else None
        self.grid = (self._grid_of_module() if module_path else furnished_room()).to("cuda")

    def _grid_of_module(self) -> GridHandle:
        index, density, sh = (torch.from_numpy(values) for values in self._module.room())
        voxels = (index.long() * torch.tensor([256 * 256, 256, 1])).sum(1)
        return GridHandle(VoxelIndex.from_voxels((256, 256, 256), voxels), density, sh)

    def rays(self, view: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        if self._module is None:
            rays = room_rays(view, (height, width), FOCALS[width])
        else:
            poses, directions = self._module.cameras(8, width, height, FOCALS[width])
            rays = (torch.from_numpy(values) for values in self._module.rays(poses[view], directions))
        return tuple(values.cuda() for values in rays)


def many_views(room: Room | FittedRoom, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    views = [room.rays(view, height, width) for view in range(8)]
    return tuple(torch.cat([views[k % 8][part] for k in range(count)]) for part in (0, 1))


def _load_module(path: Path):
    spec = importlib.util.spec_from_file_location("room", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def median_ms(run: Callable[[], object], repeats: int) -> float:
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same work as a CUDA graph."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Table:
    def __init__(self, repeats: int):
        self._repeats = repeats
        numbers = torch.empty(1 << 28, device="cuda").normal_()
        target = torch.empty_like(numbers)
        self._bytes_per_ms = 2 * numbers.nbytes / median_ms(lambda: target.copy_(numbers), repeats)
        print(f"{torch.cuda.get_device_name()}: device copy {self._bytes_per_ms / 1e9:.2f} TB/s")
        print(f"{'':58}{'ms':>9}{'floor MB':>10}{'GB/s':>8}{'floor %':>9}")

    def add(self, name: str, run: Callable[[], object], floor_bytes: int) -> None:
        time = median_ms(run, self._repeats)
        share = 100 * floor_bytes / self._bytes_per_ms / time
        print(f"{name:58}{time:9.3f}{floor_bytes / 1e6:10.1f}{floor_bytes / time / 1e6:8.0f}{share:9.1f}", flush=True)


def voxels_read(grid: GridHandle, rays, options: RenderOptions) -> int:
    weights = torch.zeros_like(grid.density)
    ops.max_weight(grid, *rays, weights, options)
    return int((weights > 0).sum())


def print_counts(room: Room | FittedRoom, stops: list[float]) -> None:
    rays = many_views(room, 8, 24, 32) if isinstance(room, FittedRoom) else many_views(room, 8, 124, 124)
    print(f"{room.grid.index.num_rows:,} voxels")
    for stop in (RenderOptions().stop_thresh, *stops):
        counts = ray_counts(room.grid, rays, RenderOptions(stop_thresh=stop))
        print(f"rays that end at {stop:.2g}: {counts}", flush=True)


def add_render(table: Table, grid: GridHandle, rays, width: int, name: str, variants: bool, **settings) -> None:
    trained = grid.with_values(density=grid.density.clone().requires_grad_())
    for step_size in STEPS:
        options = RenderOptions(step_size=step_size, **settings)
        floor = voxels_read(grid, rays, options) * (VOXEL_BYTES + 4) + len(rays[0]) * (6 + 32) * 4

        def render(image_width=width, options=options, outputs=OUTPUTS):
            return ops.render_rays(grid, *rays, options, outputs, image_width=image_width)

        table.add(f"{name}, step {step_size}", render, floor)
        table.add("   SH, depth and alpha", lambda run=render: run(outputs=("sh", "depth", "alpha")), 0)
        table.add("   depth and alpha alone", lambda run=render: run(outputs=("depth", "alpha")), 0)
        if variants:
            table.add(f"{name}, step {step_size}, in scan order", lambda run=render: run(image_width=0), floor)
            table.add(
                f"{name}, step {step_size}, with gradients to come",
                lambda options=options: ops.render_rays(trained, *rays, options), floor,
            )  # fmt: skip


def add_fit(table: Table, room: Room | FittedRoom, count: int) -> None:
    grid, views = room.grid, many_views(room, 8, 480, 640)
    chosen = torch.randint(len(views[0]), (count,), device="cuda")
    rays, target = [values[chosen] for values in views], torch.rand(count, 3, device="cuda")
    fitted, options = grid.with_values(grid.density.clone(), grid.sh.clone()), RenderOptions()
    gradients, means = ([torch.zeros_like(grid.density), torch.zeros_like(grid.sh)] for _ in range(2))
    touched = torch.zeros_like(grid.density, dtype=torch.bool)
    first_cell, cells = grid.index.total_voxels // 2, grid.index.total_voxels // 100

    def gradient():
        ops.fit_gradients(fitted, *rays, target, *gradients, options, beta_lambda=1e-5, sparsity_lambda=1e-11,
                          touched=touched)  # fmt: skip

    def update():
        ops.update_grid(
            fitted, *gradients, *means, touched, lr_density=1e-6, lr_sh=1e-6, first_cell=first_cell, num_cells=cells,
            tv_density=1e-5 / cells, tv_sh=1e-3 / cells,
        )  # fmt: skip

    def step():
        gradient(), update()

    gradient()
    touched |= rows_of_cells(grid, first_cell, cells)
    floor, marked = int(touched.sum()) * 6 * VOXEL_BYTES, touched.clone()
    table.add(f"fit step, {count} rays", step, floor)
    table.add(f"fit step, {count} rays, as a graph", captured(step), floor)
    table.add("   gradients, as a graph", captured(gradient), floor // 2)
    table.add("   total variation and RMSProp, as a graph", captured(lambda: (touched.copy_(marked), update())), floor)


def rows_of_cells(grid: GridHandle, first_cell: int, cells: int) -> Tensor:
    """Bool ``[V]``: the voxels that begin one of these cells, as good as all that their variation reads."""
    voxels = grid.index.voxels
    return (voxels >= first_cell) & (voxels < first_cell + cells)


def add_layers(table: Table, room: Room | FittedRoom, count: int) -> None:
    """The background of a fit's step: four layers of 512 rows, seen from within the room."""
    views = many_views(room, 8, 480, 640)
    chosen = torch.randint(len(views[0]), (count,), device="cuda")
    origins, directions = (values[chosen] for values in views)
    texture = torch.rand(512, 1024, 4, 4, device="cuda")
    gradient, touched = torch.zeros_like(texture), torch.zeros(512, 1024, dtype=torch.bool, device="cuda")
    by_rgb = torch.randn(count, 3, device="cuda")

    def shade():
        return shade_layers(texture, origins, directions)

    def add_gradients():
        shade_layers_gradients(texture, origins, directions, by_rgb, gradient, touched)

    add_gradients()
    floor = int(touched.sum()) * 4 * 16 + count * 9 * 4
    table.add(f"4 background layers, {count} rays", shade, floor)
    table.add("   their gradients", add_gradients, 3 * floor)


def add_features(table: Table, grid: GridHandle, rays, width: int, name: str) -> None:
    options, rows, count = RenderOptions(), grid.index.num_rows, len(rays[0])
    floor = voxels_read(grid, rays, options) * (CHANNELS + 1) * 4 + count * (6 + CHANNELS) * 4
    for dtype in (torch.float32, torch.float16):
        features, values = (torch.rand(size, CHANNELS, device="cuda").to(dtype) for size in (rows, count))
        label = f"{name}, {CHANNELS} channels, {str(dtype).removeprefix('torch.')}"
        table.add(f"{label}: rendered",
                  lambda f=features: render_features(grid, f, *rays, options, image_width=width), floor)  # fmt: skip
        table.add("   spread", lambda v=values: spread_features(grid, v, *rays, options, image_width=width), floor)


def add_preparation(table: Table, grid: GridHandle) -> None:
    links, rows = grid.index.links, grid.index.num_rows
    distance = grid.index.distance
    table.add("index of links, checked", lambda: VoxelIndex(links, rows), links.numel() * 4)
    table.add("distance field", lambda: torch.ops.plenoxel.cell_distance(links), links.numel() * 5)
    table.add("table of cells", lambda: torch.ops.plenoxel.cell_table(distance), links.numel() * 9)
    table.add("packed copy of the values", lambda: (grid.values_changed(), grid.packed), 2 * rows * VOXEL_BYTES)
    print("MB: " + ", ".join(f"{name} {size / 1e6:.1f}" for name, size in grid.memory().items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=Path, help="module with room(), cameras() and rays()")
    parser.add_argument("--field", type=Path, help="a fitted field's folder; needs --scan, its scene")
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--stop", type=float, nargs="*", default=[], help="further transmittances at which rays end")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", choices=["render", "fit", "features"])
    arguments = parser.parse_args()
    room = FittedRoom(arguments.field, arguments.scan) if arguments.field else Room(arguments.room)
    table = Table(arguments.repeats)
    if arguments.only in (None, "render"):
        print_counts(room, arguments.stop)
    if arguments.only in (None, "features"):
        add_features(table, room.grid, many_views(room, VIEWS, 124, 124), 124, f"{VIEWS} views 124x124")
    if arguments.only in (None, "render"):
        add_render(table, room.grid, room.rays(0, 480, 640), 640, "640x480", variants=arguments.only is None)
        add_render(table, room.grid, many_views(room, VIEWS, 124, 124), 124, f"{VIEWS} views 124x124", variants=False)
        for stop in arguments.stop:
            for rays, width, name in (
                (room.rays(0, 480, 640), 640, "640x480"),
                (many_views(room, VIEWS, 124, 124), 124, f"{VIEWS} views 124x124"),
            ):
                add_render(table, room.grid, rays, width, f"{name}, rays end at {stop:g}", False, stop_thresh=stop)
    if arguments.only in (None, "fit"):
        for count in (5000, 16384, 65536):
            add_fit(table, room, count)
            add_layers(table, room, count)
    if arguments.only is None:
        dark = room.grid.with_values(sh=room.grid.sh * 4)
        add_render(table, dark, room.rays(0, 480, 640), 640, "640x480, colours that clamp", variants=False)
        add_preparation(table, room.grid)


if __name__ == "__main__":
    main()
