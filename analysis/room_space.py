"""Where a camera can stand in a scanned room.

Surfaces are the mesh's and, where there is a field, those of its opaque voxels. Space is free where it can be reached
from a recorded camera without crossing a surface; of that, a window or a hole in the scan leads outside, so a place
also has to be enclosed: of the directions around it, nearly as many must meet a surface as from the recorded cameras,
and there must be a surface below it. A bounding box is asked nothing: in an L-shaped room half of it is outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gin
import numpy as np
import scipy  # loads its parts when they are used

from analysis.surface_points import SurfacePoints, spread_points
from dataloader import Mesh
from utils.errors import UserError

_NEAR_HORIZON = 0.5  # sine of 30 degrees
PLACE_REASONS = {
    "unreachable": "a surface lies between the camera's place and all recorded cameras, or it is outside the scan",
    "not_enclosed": "the camera's place has too few surfaces around it: it is outside the room",
    "no_floor": "there is no surface below the camera's place",
    "no_clearance": "the camera's place is too near a surface",
}


@gin.configurable
@dataclass(frozen=True)
class SpaceOptions:
    """Where a camera can stand.

    Attributes:
        clearance: metres between a camera and any surface.
        voxel: metres; edge of the voxels in which free space is searched.
        directions: from a place, that are asked for a surface.
        enclosed: share of the directions that must meet a surface, relative to the recorded cameras' median, so that a
            scan without a ceiling asks for none; of all directions, and of those within 30 degrees of the horizon.
        field_opacity: of a voxel of the field, from which on it is a surface too.
    """

    clearance: float = 0.25
    voxel: float = 0.08
    directions: int = 64
    enclosed: float = 0.85
    field_opacity: float = 0.5

    def __post_init__(self) -> None:
        for name in ("voxel", "directions"):
            if getattr(self, name) <= 0:
                raise UserError(f"SpaceOptions.{name} = {getattr(self, name)}: expected more than 0")


class RoomSpace:
    """The free space of one scanned room.

    Args:
        mesh: its surface, in metres; up is +Z.
        cameras: float ``[N, 3]``, where recorded cameras stood.
        options: what counts as free.
        solids: float ``[S, 3]``, centres of the field's opaque voxels, metres.
        solid_size: metres; the edge of those voxels.

    Raises:
        UserError: no recorded camera stands in free space within the mesh's bounds.
    """

    def __init__(
        self, mesh: Mesh, cameras: np.ndarray, options: SpaceOptions, solids: np.ndarray | None = None,
        solid_size: float = 0.0,
    ):  # fmt: skip
        self._options = options
        corners = mesh.vertices.double().numpy()[mesh.faces.long().numpy()]
        surface = spread_points(corners, options.voxel / 2)
        self._clouds = [(scipy.spatial.cKDTree(surface.points), surface.reach)]
        if solids is not None and len(solids):
            self._clouds.append((scipy.spatial.cKDTree(solids), solid_size * math.sqrt(3) / 2))
        self._set_grid(surface, solids)
        self._reachable = self._reach(cameras)
        inside = self.reachable(cameras)
        if not inside.any():
            raise UserError(f"none of the {len(cameras)} recorded cameras stands in free space within the mesh's bounds"
                            "; expected poses and mesh in one frame, in metres, +Z up: check the scan")
        self.needed_enclosure = options.enclosed * np.median(self.enclosure(cameras[inside]), axis=0)

    def _set_grid(self, surface: SurfacePoints, solids: np.ndarray | None) -> None:
        points = surface.points if solids is None else np.concatenate((surface.points, solids))
        low, high = surface.points.min(axis=0), surface.points.max(axis=0)
        self._low = low
        self._shape = np.maximum(1, np.ceil((high - low) / self._options.voxel + 1e-9)).astype(np.int64)
        self._occupied = np.zeros(self._shape, bool)
        voxels = self._voxels(points)
        voxels = np.where(points <= high, np.minimum(voxels, self._shape - 1), voxels)  # the upper border belongs to it
        voxels = voxels[self._in_grid(voxels)]
        self._occupied[tuple(voxels.T)] = True
        below = np.logical_or.accumulate(self._occupied, axis=2)
        self._floor_below = scipy.ndimage.maximum_filter(below, size=(3, 3, 1))  # a hole of one voxel is no pit

    def _voxels(self, points: np.ndarray) -> np.ndarray:
        return np.floor((points - self._low) / self._options.voxel).astype(np.int64)

    def _in_grid(self, voxels: np.ndarray) -> np.ndarray:
        return ((voxels >= 0) & (voxels < self._shape)).all(axis=-1)

    def _look_up(self, grid: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values of a boolean grid at ``points [..., 3]``; False outside."""
        voxels = self._voxels(points)
        inside = self._in_grid(voxels)
        return inside & grid[tuple(np.where(inside[..., None], voxels, 0).T)].T

    def _reach(self, cameras: np.ndarray) -> np.ndarray:
        """Free voxels that are connected by their faces with the voxel of a recorded camera."""
        component, _ = scipy.ndimage.label(~self._occupied)
        voxels = self._voxels(cameras)
        started = component[tuple(voxels[self._in_grid(voxels)].T)]
        return np.isin(component, started[started > 0])

    def reachable(self, eyes: np.ndarray) -> np.ndarray:
        """Whether each place ``[N, 3]`` is connected with a recorded camera through free space."""
        return self._look_up(self._reachable, eyes)

    def enclosure(self, eyes: np.ndarray) -> np.ndarray:
        """Shares ``[N, 2]`` of directions from each place ``[N, 3]`` that meet a surface within the mesh's bounds: of
        all, and of those near the horizon."""
        directions = sphere_directions(self._options.directions)
        longest = float(np.linalg.norm(self._shape)) * self._options.voxel
        steps = np.arange(self._options.voxel / 2, longest, self._options.voxel / 2)
        offsets = directions[:, None] * steps[:, None]
        hits = np.array([self._look_up(self._occupied, eye + offsets).any(axis=1) for eye in eyes])
        hits = hits.reshape(-1, len(directions))
        around = np.abs(directions[:, 2]) <= _NEAR_HORIZON
        return np.stack((hits.mean(axis=1), hits[:, around].mean(axis=1)), axis=1)

    def clearance(self, eyes: np.ndarray) -> np.ndarray:
        """Metres from each place ``[N, 3]`` that are certainly free of surfaces."""
        return np.minimum.reduce([tree.query(eyes)[0] - reach for tree, reach in self._clouds])

    def refuse(self, eyes: np.ndarray) -> list[str]:
        """Why a camera cannot stand at each place ``[N, 3]``, a key of :data:`PLACE_REASONS`; "" where it can."""
        reasons = np.full(len(eyes), "", dtype=object)

        def note(reason: str, holds: Sequence[bool] | np.ndarray, asked: np.ndarray) -> None:
            reasons[asked[~np.asarray(holds, bool)]] = reason

        everyone = np.arange(len(eyes))
        note("unreachable", self.reachable(eyes), everyone)
        left = np.flatnonzero(reasons == "")
        note("no_clearance", self.clearance(eyes[left]) >= self._options.clearance, left)
        left = np.flatnonzero(reasons == "")
        note("no_floor", self._look_up(self._floor_below, eyes[left]), left)
        left = np.flatnonzero(reasons == "")
        note("not_enclosed", (self.enclosure(eyes[left]) >= self.needed_enclosure).all(axis=1), left)
        return reasons.tolist()


def sphere_directions(count: int) -> np.ndarray:
    """Unit vectors ``[count, 3]`` spread evenly over the sphere on a golden spiral."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), height), axis=1)
