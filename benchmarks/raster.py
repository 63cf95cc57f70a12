"""Milliseconds a frame of the rasterizer on a closed room of 130,000 faces with the camera inside.

    python benchmarks/raster.py [--threads 2] [--frames 24]

CPU: one view a call, the median over many views of the best of five; beside it Embree (one thread, through embreex)
where that is installed, tracing prepared rays. GPU, where there is one: a batch of 160 views of 160 meshes, and one
large view.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.room_mesh import room_cameras, room_mesh  # noqa: E402
from lib.raster import pack_meshes, rasterize  # noqa: E402
from utils.cameras import camera_rays, rigid_inverse  # noqa: E402

SIZES = ((124, 124), (480, 640), (968, 1296))
CPU_GOALS = {(124, 124): 1.5, (480, 640): 5.0, (968, 1296): 12.0}
OUTPUTS = (("face",), ("face", "depth"), ("face", "depth", "barycentric"))


def camera_matrix(height: int, width: int) -> Tensor:
    """A ScanNet-like camera, 58 degrees wide, squeezed to the size."""
    return torch.tensor(
        [[0.9 * width, 0.0, width / 2], [0.0, 1.2 * height, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64
    )


def measure_cpu(vertices: Tensor, faces: Tensor, cameras: Tensor, size: tuple[int, int], outputs) -> float:
    """Milliseconds of one view a call: for each view the best of five, of these the median."""
    k = camera_matrix(*size)[None]
    return statistics.median(
        best_of(5, lambda: rasterize(vertices, faces, camera[None], k, *size, outputs=outputs))  # noqa: B023
        for camera in cameras
    )


def best_of(repeats: int, call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of some calls, which is the one that other programs disturbed least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def embree(vertices: Tensor, faces: Tensor) -> Callable[[Tensor, tuple[int, int]], float] | None:
    """A function that gives Embree's milliseconds for a camera, or None without embreex."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        return None
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.numpy()[faces.numpy()])

    def trace(camera: Tensor, size: tuple[int, int]) -> float:
        rays = camera_rays(rigid_inverse(camera), camera_matrix(*size), *size)
        origins, directions = (tensor.reshape(-1, 3).numpy() for tensor in rays)
        return best_of(3, lambda: scene.run(origins, directions))

    return trace


def report_cpu(num_frames: int) -> None:
    vertices, faces = room_mesh()
    cameras = room_cameras(num_frames)
    trace = embree(vertices, faces)
    print(f"CPU, {torch.get_num_threads()} threads, {len(faces)} faces, ms a frame")
    print(f"{'size':>10} {'face':>7} {'+depth':>7} {'+barycentric':>13} {'goal':>6} {'Embree':>8} {'ratio':>6}")
    for size in SIZES:
        times = [measure_cpu(vertices, faces, cameras, size, outputs) for outputs in OUTPUTS]
        traced = statistics.median(trace(camera, size) for camera in cameras[::3]) if trace else float("nan")
        print(f"{size[1]:>5}x{size[0]:<4} {times[0]:7.2f} {times[1]:7.2f} {times[2]:13.2f} {CPU_GOALS[size]:6.1f} "
              f"{traced:8.2f} {traced / times[2]:6.1f}")


def measure_gpu(call: Callable[[], object], repeats: int = 30) -> float:
    """Median milliseconds between device events, with the call's own waiting in between."""
    times = []
    for _ in range(repeats + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[5:])


def many_meshes(count: int) -> list[tuple[Tensor, Tensor]]:
    """Rooms that differ in size, each with vertices and faces of its own; every tenth has other furniture."""
    rooms = [room_mesh(seed=seed) for seed in range(-(-count // 10))]
    return [(rooms[i // 10][0] * (1 + 0.02 * (i % 10)), rooms[i // 10][1]) for i in range(count)]


def report_gpu() -> None:
    print(f"\n{torch.cuda.get_device_name()}, ms a call (median), through lib.raster.rasterize")
    print(f"{'what':>40} {'face':>7} {'+depth':>7} {'+barycentric':>13} {'goal':>6}")
    packed = [tensor.cuda() for tensor in pack_meshes(many_meshes(160))]
    batch = dict(mesh_index=torch.arange(160), vertex_offsets=packed[2].cpu(), face_offsets=packed[3].cpu())
    vertices, faces = (tensor.cuda() for tensor in room_mesh())
    cases = (
        ("160 views 124x124 of 160 meshes", packed[:2], 160, (124, 124), batch, 8.0),
        ("1 view 1296x968", (vertices, faces), 1, (968, 1296), {}, 0.3),
        ("1 view 640x480", (vertices, faces), 1, (480, 640), {}, float("nan")),
        ("160 views 124x124 of 1 mesh", (vertices, faces), 160, (124, 124), {}, float("nan")),
    )
    for name, mesh, views, size, options, goal in cases:
        cameras, k = room_cameras(views).cuda(), camera_matrix(*size).repeat(views, 1, 1).cuda()
        times = [
            measure_gpu(lambda: rasterize(*mesh, cameras, k, *size, outputs=outputs, **options))  # noqa: B023
            for outputs in OUTPUTS
        ]
        print(f"{name:>40} {times[0]:7.3f} {times[1]:7.3f} {times[2]:13.3f} {goal:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report_cpu(arguments.frames)
    if torch.cuda.is_available():
        report_gpu()


if __name__ == "__main__":
    main()
