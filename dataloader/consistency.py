"""Do depth maps, poses and mesh of a scene agree; and if not, what would make them agree?

Folders come with depth in other units, poses that are world-to-camera or have OpenGL's axes, millimetres, and meshes
of other coordinates. Each file is sound by itself then, and a fit is only a little worse. So pixels of a few depth maps
are put into the world and seen from cameras of other frames: where both saw the same surface, its distance from the
second camera is the depth measured there. Only pixels that the camera's movement displaces count, since a turn alone
says nothing of lengths. The same is asked of the usual mistakes, each with any ratio of depth to poses; and, for the
mesh, how many of the points lie on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from dataloader.mesh import Mesh
from dataloader.scene import Scene
from utils.cameras import pixel_directions, pixel_grid, project_local, rigid_inverse, scale_intrinsics
from utils.errors import UserError
from utils.lenses import Lens
from utils.seeding import generator
from utils.threads import ordered_map

_ANCHORS, _GAPS = 10, (1, 3, 10, 30, 100)
_LONGEST_SIDE, _POINTS = 96, 400
_SAME_DEPTH = 0.05  # share of the depth within which two measurements are of one surface
_DISPLACED = 0.03  # share of the picture's longer side
_STEP = 0.05
_RATIOS = np.exp(np.arange(math.log(1e-4), math.log(1e4), _STEP))
_HEALTHY, _LEAST, _CLEARLY = 0.7, 0.5, 1.3  # shares of points, and by how much a supposition must be better
_SAME_RATIO, _NEARLY, _AS_GOOD = 1.2, 0.95, 0.97
_FEWEST_PIXELS = 2000
_MESH_SAMPLES = 200_000
_ON_MESH, _OFF_MESH, _NEAR_MESH = 0.5, 0.25, 0.03  # shares of points; of their extent
_FAR_OFF = 3.0  # times the mesh's extent
_PLAUSIBLE_DEPTH = (0.2, 15.0)  # metres, of the median pixel of a room
_POSSIBLE_DEPTH = (0.04, 75.0)  # metres, of the median pixel of anything that is recorded by hand
_FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
_POSES = {
    "as they are": lambda pose: pose,
    "inverted: the files hold world-to-camera": rigid_inverse,
    "with y and z axes reversed: the files have OpenGL's axes": lambda pose: pose @ _FLIP,
    "inverted, then with y and z axes reversed: the files hold OpenGL's world-to-camera":
        lambda pose: rigid_inverse(pose) @ _FLIP,
}  # fmt: skip


@dataclass(frozen=True)
class Contradiction:
    """What does not fit; ``remedy`` is what would make it fit, or None where nothing tried does."""

    text: str
    remedy: str | None

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy or 'nothing that was tried makes them agree'}"


class _Pairs(NamedTuple):
    """Pixels of first frames and the depth maps of second ones.

    first, second: int64 ``[P]``, frames of the scene.
    points: float64 ``[P, K, 3]``, the pixels' points in the first camera's frame, in depth's unit.
    depths: float32 ``[P, h, w]`` of the second frames, 0 = none.
    intrinsics: float64 ``[3, 3]`` of these.
    lens: of all frames; None for pinholes.
    """

    first: Tensor
    second: Tensor
    points: Tensor
    depths: Tensor
    intrinsics: Tensor
    lens: Lens | None


def find_contradiction(scene: Scene, mesh: Mesh | None = None) -> Contradiction | None:
    """The contradiction between a scene's depth maps, poses and mesh; None where they agree, or nothing can be said.

    Args:
        scene: of any layout; its depth maps are read, some fifty of them.
        mesh: in the world of the poses, or None.
    """
    pairs = _choose_pairs(scene)
    if pairs is None:
        return _cameras_off_mesh(scene, mesh) if mesh is not None else None
    poses = scene.camera_to_world
    given = _agreement(pairs, _POSES["as they are"](poses), np.ones(1))[0]
    if given < _HEALTHY:
        found = _best(pairs, poses)
        odd = _odd_depth(pairs, scene, given) if scene.metric and given < _LEAST else None
        named = found.share > max(_LEAST, _CLEARLY * given) and not found.is_as_given
        if named and (odd is None or found.poses == "as they are"):
            return _of_views(pairs, scene, mesh, given, found)
        if odd is not None:
            return odd
    # Where few points agree as it is, and nothing tried is better, poses may be imprecise, or say too little.
    return _of_mesh(scene, pairs, mesh) if mesh is not None and given > _LEAST else None


class _Found(NamedTuple):
    """The supposition that fits best: which poses, and what depth is multiplied by to be in the poses' unit."""

    share: float
    poses: str
    ratio: float

    @property
    def has_ratio_one(self) -> bool:
        return 1 / _SAME_RATIO < self.ratio < _SAME_RATIO

    @property
    def is_as_given(self) -> bool:
        return self.poses == "as they are" and self.has_ratio_one


def _choose_pairs(scene: Scene) -> _Pairs | None:
    """Pairs of frames some steps apart, along the whole trajectory; None with too few depth maps."""
    frames = [index for index, path in enumerate(scene.depth_paths) if path is not None]
    if len(frames) < 3:
        return None
    anchors = np.unique(np.linspace(0, len(frames) - 2, _ANCHORS).round().astype(int)).tolist()
    chosen = [(frames[at], frames[at + gap]) for at in anchors for gap in _GAPS if at + gap < len(frames)]
    size = tuple(max(1, round(side * min(1.0, _LONGEST_SIDE / max(scene.image_size)))) for side in scene.image_size)

    def read(index: int) -> Tensor | None:
        try:
            return scene.read_depth(index, size)
        except UserError:  # is told elsewhere
            return None

    wanted = sorted({index for pair in chosen for index in pair})
    depths = {index: depth for index, depth in zip(wanted, ordered_map(read, wanted), strict=True) if depth is not None}
    chosen = [pair for pair in chosen if pair[0] in depths and pair[1] in depths]
    if not chosen or sum(int((depth > 0).sum()) for depth in depths.values()) < _FEWEST_PIXELS:
        return None
    intrinsics = scale_intrinsics(scene.intrinsics, scene.image_size, size)
    points = {index: _points_of(depths[index], intrinsics, scene.lens) for index in {first for first, _ in chosen}}
    return _Pairs(
        torch.tensor([first for first, _ in chosen]), torch.tensor([second for _, second in chosen]),
        torch.stack([points[first] for first, _ in chosen]), torch.stack([depths[second] for _, second in chosen]),
        intrinsics, scene.lens,
    )  # fmt: skip


def _points_of(depth: Tensor, intrinsics: Tensor, lens: Lens | None) -> Tensor:
    """Points ``[K, 3]`` in the camera's frame of pixels spread over the depth map; NaN where there are fewer."""
    known = (depth > 0).nonzero()
    points = torch.full((_POINTS, 3), torch.nan, dtype=torch.float64)
    if not len(known):
        return points
    rows, columns = known[torch.linspace(0, len(known) - 1, min(_POINTS, len(known))).round().long()].unbind(1)
    uv = pixel_grid(*depth.shape, dtype=torch.float64)[rows, columns]
    points[: len(rows)] = pixel_directions(uv, intrinsics, lens) * depth[rows, columns, None].double()
    return points


def _agreement(pairs: _Pairs, poses: Tensor, ratios: np.ndarray) -> np.ndarray:
    """For each ratio of depth to the poses' unit: of the displaced points that second cameras see where depth was
    measured, weighted by how many there are, the share that lies at the measured depth."""
    relative = rigid_inverse(poses[pairs.second]) @ poses[pairs.first]
    turned = pairs.points @ relative[:, :3, :3].transpose(1, 2)
    still, still_depth = _project(turned, pairs)
    height, width = pairs.depths.shape[1:]
    known = torch.isfinite(pairs.points[..., 0])
    which = torch.arange(len(pairs.depths))[:, None].expand(known.shape)
    shares = np.zeros(len(ratios))
    for number, ratio in enumerate(ratios):
        moved = turned + relative[:, None, :3, 3] / ratio
        uv, depth = _project(moved, pairs)
        displaced = (uv - still).abs().amax(-1) > _DISPLACED * max(height, width)
        displaced |= (depth / still_depth - 1).abs() > 2 * _SAME_DEPTH
        inside = known & (depth > 0) & (uv[..., 0] >= 0) & (uv[..., 1] >= 0) & (uv[..., 0] < width) & (
            uv[..., 1] < height
        )  # fmt: skip
        counted = inside & displaced
        column, row = (uv[counted][:, axis].long() for axis in range(2))
        measured = pairs.depths[which[counted], row, column].double()
        seen = measured > 0
        same = (depth[counted] - measured).abs() < _SAME_DEPTH * measured
        # Points that no camera sees do not speak for a supposition: they count as a half would.
        shares[number] = float((same & seen).sum()) / max(float(seen.sum()), 0.1 * float(known.sum()), 1.0)
    return shares


def _project(points: Tensor, pairs: _Pairs) -> tuple[Tensor, Tensor]:
    """Pixels ``[..., 2]`` and depth of points in the camera's frame; pixels far outside where they are not seen."""
    uv, depth = project_local(points, pairs.intrinsics, pairs.lens)
    return torch.where(depth[..., None] > 0, uv, -1e6).nan_to_num(-1e6, -1e6, -1e6).clamp(-1e6, 1e6), depth


def _best(pairs: _Pairs, poses: Tensor) -> _Found:
    """The supposition with the largest share; of those that are nearly as good, the first of ``_POSES``."""
    found = []
    for name, change in _POSES.items():
        shares = _agreement(pairs, change(poses), _RATIOS)
        best = shares >= _AS_GOOD * shares.max()  # the middle of those that are as good within the tolerance
        found.append(_Found(float(shares.max()), name, float(np.exp(np.log(_RATIOS[best]).mean()))))
    most = max(each.share for each in found)
    return next(each for each in found if each.share >= _NEARLY * most)


def _of_views(pairs: _Pairs, scene: Scene, mesh: Mesh | None, given: float, found: _Found) -> Contradiction:
    """Depth and poses contradict each other, and ``found`` would make them agree."""
    text = (f"its depth maps and poses contradict each other: of the points of one depth map that another camera sees, "
            f"{given:.0%} lie at the depth measured there")
    remedies = []
    if found.poses != "as they are":
        remedies.append(f"the poses are {found.poses}")
    if not found.has_ratio_one:
        remedies.append(_unit_remedy(pairs, scene, mesh, found))
    return Contradiction(text, f"{found.share:.0%} would if {' and '.join(remedies)}")


def _odd_depth(pairs: _Pairs, scene: Scene, given: float) -> Contradiction | None:
    """Depth of a unit so wrong that rounding, or what is out of a file's range, leaves nothing to compare."""
    median = float(pairs.depths[pairs.depths > 0].median())
    low, high = _POSSIBLE_DEPTH
    if low < median < high:
        return None
    first = next(path for path in scene.depth_paths if path is not None)
    side = "at most" if median <= low else "at least"
    return Contradiction(
        f"its depth maps are of another unit: half of what they measure is {side} {median:.2g} m, and {given:.0%} "
        "of the points of one depth map that another camera sees lie at the depth measured there",
        f"expected {scene.depth_steps:g} steps a metre in whole numbers, or metres in floats (such as {first}): write "
        "the depth maps again",
    )


def _unit_remedy(pairs: _Pairs, scene: Scene, mesh: Mesh | None, found: _Found) -> str:
    """Which of the two has the wrong unit: the mesh, else what is plausible for a room, decides; or either may."""
    depth = float(pairs.depths[pairs.depths > 0].median())
    low, high = _PLAUSIBLE_DEPTH
    depth_is_right = low < depth < high
    undecided = mesh is None and depth_is_right and low < depth * found.ratio < high
    if mesh is not None:
        extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
        centres = scene.camera_to_world[:, :3, 3]
        apart = float((centres.amax(0) - centres.amin(0)).max())
        depth_is_right = apart > _FAR_OFF * extent
    of_poses = f"the positions of the poses are divided by {_round_number(found.ratio)}{_unit_name(found.ratio)}"
    steps = _round_number(1000 / found.ratio)
    of_depth = f"depth is multiplied by {_round_number(found.ratio)} (files hold {steps} steps a metre instead of 1000)"
    if undecided:
        return f"{of_depth}, or {of_poses}"
    return of_poses if depth_is_right else of_depth


def _round_number(value: float) -> str:
    """With two digits, or the usual number that it is within the search's resolution."""
    usual = [base * 10.0**power for power in range(-6, 7) for base in (1, 2, 2.5, 4, 5)]
    near = min(usual, key=lambda number: abs(math.log(value / number)))
    return f"{near if abs(math.log(value / near)) < _STEP else float(f'{value:.2g}'):g}"


def _unit_name(ratio: float) -> str:
    names = {1000.0: " (they are millimetres)", 100.0: " (they are centimetres)"}
    return next((name for unit, name in names.items() if 1 / _SAME_RATIO < ratio / unit < _SAME_RATIO), "")


def _of_mesh(scene: Scene, pairs: _Pairs, mesh: Mesh) -> Contradiction | None:
    """Depth and poses agree; do their points lie on the mesh?"""
    first, rows = np.unique(pairs.first.numpy(), return_index=True)
    poses = scene.camera_to_world[torch.from_numpy(first)]
    points = pairs.points[torch.from_numpy(rows)] @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    points = points.reshape(-1, 3)
    points = points[torch.isfinite(points[:, 0])].numpy()
    samples = _surface_samples(mesh)
    given = _share_near(points, samples)
    if given > _OFF_MESH:
        return None
    text = (f"its depth maps and poses agree with each other, but {given:.0%} of their points lie on "
            f"{_mesh_name(scene)}")
    for unit, name in ((1000.0, "millimetres"), (100.0, "centimetres"), (1 / 1000.0, "thousandths of the mesh's unit")):
        if _share_near(points, samples / unit) > _ON_MESH:
            return Contradiction(text, f"the mesh is in {name}" if unit > 1 else "poses and depth are in millimetres")
    return Contradiction(text, None)


def _cameras_off_mesh(scene: Scene, mesh: Mesh) -> Contradiction | None:
    """Without depth: are the cameras where the mesh is?"""
    low, high = mesh.vertices.double().amin(0), mesh.vertices.double().amax(0)
    margin = 0.5 * (high - low).max()

    def share_within(poses: Tensor) -> float:
        centres = poses[:, :3, 3]
        return float(((centres > low - margin) & (centres < high + margin)).all(1).double().mean())

    given = share_within(scene.camera_to_world)
    if given > _ON_MESH:
        return None
    text = f"{given:.0%} of its cameras are within or near {_mesh_name(scene)}"
    tried = {f"the poses are {name}": change(scene.camera_to_world) for name, change in _POSES.items()}
    for unit, name in ((1000.0, "millimetres"), (100.0, "centimetres")):
        scaled = scene.camera_to_world.clone()
        scaled[:, :3, 3] /= unit
        tried[f"the positions of the poses are in {name}"] = scaled
    best, poses = max(tried.items(), key=lambda item: share_within(item[1]))
    found = share_within(poses)
    return Contradiction(text, f"{found:.0%} would be if {best}" if found > _ON_MESH else None)


def _mesh_name(scene: Scene) -> str:
    return (scene.label_mesh_path if scene.label_mesh_path.exists() else scene.mesh_path).name


def _surface_samples(mesh: Mesh) -> np.ndarray:
    """Points ``[N, 3]`` spread over the mesh's faces by area."""
    corners = mesh.vertices.double()[mesh.faces.long()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    random = generator(0, "mesh samples")
    reached = area.cumsum(0)
    drawn = torch.rand(_MESH_SAMPLES, generator=random, dtype=torch.float64) * reached[-1]
    face = torch.searchsorted(reached, drawn).clamp(max=len(area) - 1)
    a, b = torch.rand(2, _MESH_SAMPLES, 1, generator=random, dtype=torch.float64)
    a, b = torch.where(a + b > 1, 1 - a, a), torch.where(a + b > 1, 1 - b, b)
    chosen = corners[face]
    return (chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0])).numpy()


def _share_near(points: np.ndarray, samples: np.ndarray) -> float:
    """The share of points within the tolerance of a sample of the mesh."""
    extent = float(np.ptp(points, axis=0).max())
    distance, _ = cKDTree(samples).query(points, distance_upper_bound=_NEAR_MESH * extent)
    return float(np.isfinite(distance).mean())
