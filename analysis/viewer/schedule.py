"""Progressive resolution within a time budget: coarse while the camera moves, finer when it rests."""

from __future__ import annotations

_REFINEMENT = 2  # each pass has twice the height of the one before
_SMALLEST_HEIGHT = 32
_MEMORY = 0.7  # share of the old estimate that a new measurement leaves
INITIAL_COST = {"cpu": 1e-5, "cuda": 2e-8}  # seconds per pixel by type of device: a GPU need not start coarsely


class ResolutionSchedule:
    """Heights of the passes over one view, from the measured cost of passes so far.

    The first pass is the largest that should fit into ``budget`` seconds; each further one doubles the height, up to
    ``full_height``. A device that draws the full height within the budget draws nothing else.
    """

    def __init__(self, full_height: int, budget: float = 0.1, seconds_per_pixel: float = INITIAL_COST["cpu"]):
        """Start from an assumed cost per pixel; measured renderings update it."""
        self.full_height = full_height
        self.budget = budget
        self._seconds_per_pixel = seconds_per_pixel

    def measured(self, pixels: int, seconds: float) -> None:
        """Update the cost by a finished rendering."""
        self._seconds_per_pixel += (1 - _MEMORY) * (seconds / max(pixels, 1) - self._seconds_per_pixel)

    def affordable_pixels(self) -> int:
        """How many pixels should fit into the budget."""
        return max(1, int(self.budget / max(self._seconds_per_pixel, 1e-12)))

    def heights(self, aspect: float) -> list[int]:
        """Heights of the passes, rising, the last one full."""
        affordable = max((self.affordable_pixels() / aspect) ** 0.5, _SMALLEST_HEIGHT)
        heights = [self.full_height]
        while heights[0] > affordable:
            heights.insert(0, max(heights[0] // _REFINEMENT, 1))
        return heights
