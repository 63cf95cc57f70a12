"""Furniture placement: random positions along the walls or on the floor, without overlap.

The room is [0, width] x [0, depth] x [0, height]; its walls are numbered 0 (y = depth), 1 (x = width), 2 (y = 0)
and 3 (x = 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dataloader.synthesis.geometry import axis_rotation
from dataloader.synthesis.piece import Piece

WALL_YAW = (0.0, -np.pi / 2, np.pi, np.pi / 2)
TRIES_PER_WALL = 24
TRIES_ON_FLOOR = 80
MARGIN = 0.03  # metres left free between two pieces


@dataclass(frozen=True)
class Placed:
    """A piece and its placement."""

    piece: Piece
    yaw: float
    offset: np.ndarray  # [3]
    low: np.ndarray  # [3] corners of its bounding box in the room
    high: np.ndarray  # [3]


@dataclass
class FloorPlan:
    """A room being furnished."""

    width: float
    depth: float
    height: float
    placed: list[Placed] = field(default_factory=list)
    _clear: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def against_wall(self, piece: Piece, rng: np.random.Generator, clearance: float, gap: float) -> bool:
        """Put a piece's back ``gap`` metres from a random wall, ``clearance`` metres free in front of it."""
        low, high = piece.bounds()
        for wall in rng.permutation(4):
            length = self.width if wall % 2 == 0 else self.depth
            room = length - (high[0] - low[0]) - 2 * MARGIN
            starts = MARGIN + room * rng.random(TRIES_PER_WALL)
            if room < 0:
                continue
            for start in starts:
                offset = self._wall_offset(int(wall), start - low[0], high[1] + gap)
                if self._try(piece, WALL_YAW[wall], offset, clearance):
                    return True
        return False

    def on_floor(self, piece: Piece, rng: np.random.Generator, clearance: float) -> bool:
        """Put a piece somewhere with ``clearance`` metres free all round it."""
        for _ in range(TRIES_ON_FLOOR):
            yaw = WALL_YAW[rng.integers(4)] + rng.uniform(-0.06, 0.06)
            offset = np.array([rng.uniform(0.2, 0.8) * self.width, rng.uniform(0.2, 0.8) * self.depth, 0.0])
            if self._try(piece, yaw, offset, clearance, all_round=True):
                return True
        return False

    def fixed(self, piece: Piece, offset: tuple[float, float, float]) -> None:
        """Put a piece at a given position without any test: lamps and the room's own shell."""
        self.placed.append(_place(piece, 0.0, np.array(offset)))

    def _wall_offset(self, wall: int, along: float, away: float) -> np.ndarray:
        x, y = {
            0: (along, self.depth - away),
            1: (self.width - away, self.depth - along),
            2: (self.width - along, away),
            3: (away, along),
        }[wall]
        return np.array([x, y, 0.0])

    def _try(self, piece: Piece, yaw: float, offset: np.ndarray, clearance: float, all_round: bool = False) -> bool:
        candidate = _place(piece, yaw, offset)
        low, high = candidate.low - MARGIN / 2, candidate.high + MARGIN / 2
        if (candidate.low[:2] < -1e-6).any() or (candidate.high[:2] > (self.width + 1e-6, self.depth + 1e-6)).any():
            return False
        clear = _grown(candidate, yaw, clearance, all_round)
        if any(_overlap((low, high), (other.low, other.high)) for other in self.placed):
            return False
        if any(_overlap((low, high), zone) for zone in self._clear):
            return False
        if clearance > 0 and any(_overlap(clear, (other.low, other.high)) for other in self.placed):
            return False
        if clearance > 0 and ((clear[0][:2] < 0).any() or (clear[1][:2] > (self.width, self.depth)).any()):
            return False
        self.placed.append(candidate)
        if clearance > 0:
            self._clear.append(clear)
        return True


def _place(piece: Piece, yaw: float, offset: np.ndarray) -> Placed:
    moved = Piece(piece.edge)
    moved.merge(piece, offset, yaw)
    low, high = moved.bounds()
    return Placed(piece, yaw, offset, low, high)


def _grown(placed: Placed, yaw: float, clearance: float, all_round: bool) -> tuple[np.ndarray, np.ndarray]:
    """The zone to keep free: in front of the piece, or all round it."""
    low, high = placed.low.copy(), placed.high.copy()
    if all_round:
        low[:2] -= clearance
        high[:2] += clearance
        return low, high
    front = axis_rotation(2, yaw) @ np.array([0.0, -1.0, 0.0])
    axis = int(np.argmax(np.abs(front)))
    if front[axis] < 0:
        low[axis], high[axis] = low[axis] - clearance, low[axis]
    else:
        low[axis], high[axis] = high[axis], high[axis] + clearance
    return low, high


def _overlap(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    return bool((first[0] < second[1]).all() and (second[0] < first[1]).all())
