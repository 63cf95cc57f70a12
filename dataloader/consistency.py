"""Do depth maps, poses and mesh of a scene agree; and if not, what would make them agree?

Folders come with depth in other units, poses that are world-to-camera or have OpenGL's axes, millimetres, and meshes
of other coordinates. Each file is sound by itself then, and a fit is only a little worse. So depth maps are compared
with each other through the poses (``view_agreement``), and with the mesh (``mesh_agreement``); the same is asked of the
usual mistakes, each with any ratio of depth to poses.
"""

from __future__ import annotations

import math

import numpy as np

from dataloader.contradiction import Contradiction
from dataloader.depth_errors import depth_errors
from dataloader.depth_readings import find_reading
from dataloader.frame_shifts import find_shift
from dataloader.mesh import Mesh
from dataloader.mesh_agreement import cameras_off_mesh, points_off_mesh
from dataloader.scene import Scene
from dataloader.view_agreement import (
    AS_GIVEN,
    RATIO_STEP,
    SAME_RATIO,
    Pairs,
    Supposition,
    agreement,
    best_supposition,
    choose_pairs,
)

_HEALTHY, _LEAST, _CLEARLY = 0.7, 0.5, 1.3  # shares of points, and by how much a supposition must be better
_CHANCE = 0.45  # of points that agree in a scene whose depth and poses have little to do with each other
_FAR_OFF = 3.0  # times the mesh's extent
_PLAUSIBLE_DEPTH = (0.2, 15.0)  # metres, of the median pixel of a room
_POSSIBLE_DEPTH = (0.04, 75.0)  # metres, of the median pixel of anything that is recorded by hand


def find_contradiction(scene: Scene, mesh: Mesh | None = None) -> Contradiction | None:
    """The contradiction between a scene's depth maps, poses and mesh; None where they agree, or nothing can be said.

    Args:
        scene: of any layout; its depth maps are read, some fifty of them.
        mesh: in the world of the poses, or None.
    """
    pairs = choose_pairs(scene)
    if pairs is None:
        return cameras_off_mesh(scene, mesh) if mesh is not None else None
    found = find_reading(scene, pairs) or find_shift(scene, pairs)
    if found is not None:
        return found
    poses = scene.camera_to_world
    given = agreement(pairs, poses, np.ones(1))[0]
    if given < _HEALTHY:
        found = best_supposition(pairs, poses)
        odd = _odd_depth(pairs, scene, given) if scene.metric and given < _LEAST else None
        named = found.share > max(_LEAST, _CLEARLY * given) and not found.is_as_given
        if named and (odd is None or found.poses == AS_GIVEN):
            return _of_views(pairs, scene, mesh, given, found)
        if odd is not None:
            return odd
    # Where few points agree as it is, and nothing tried is better, poses may be imprecise, or say too little.
    if mesh is not None and given > _LEAST:
        return points_off_mesh(scene, pairs, mesh)
    hopeless = given < _CHANCE and depth_errors(pairs, poses).are_of_chance
    return Contradiction(_disagreement(given), None) if hopeless else None


def _disagreement(given: float) -> str:
    return (f"its depth maps and poses contradict each other: of the points of one depth map that another camera sees, "
            f"{given:.0%} lie at the depth measured there")


def _of_views(pairs: Pairs, scene: Scene, mesh: Mesh | None, given: float, found: Supposition) -> Contradiction:
    """Depth and poses contradict each other, and ``found`` would make them agree."""
    remedies = []
    if found.poses != AS_GIVEN:
        remedies.append(f"the poses are {found.poses}")
    if not found.has_ratio_one:
        remedies.append(_unit_remedy(pairs, scene, mesh, found))
    return Contradiction(_disagreement(given), f"{found.share:.0%} would if {' and '.join(remedies)}")


def _odd_depth(pairs: Pairs, scene: Scene, given: float) -> Contradiction | None:
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


def _unit_remedy(pairs: Pairs, scene: Scene, mesh: Mesh | None, found: Supposition) -> str:
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
    return f"{near if abs(math.log(value / near)) < RATIO_STEP else float(f'{value:.2g}'):g}"


def _unit_name(ratio: float) -> str:
    names = {1000.0: " (they are millimetres)", 100.0: " (they are centimetres)"}
    return next((name for unit, name in names.items() if 1 / SAME_RATIO < ratio / unit < SAME_RATIO), "")
