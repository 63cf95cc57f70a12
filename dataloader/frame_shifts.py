"""Do depth maps belong to the frames whose names they bear, or to their neighbours?

Where files are numbered from 1 in one folder and from 0 in another, each frame has the depth of the next one. Every
file is sound, and so are units and axes. Points of the depth map of frame i, put into the world with the pose of frame
i + 1, are then nearer to what other depth maps measured than with the pose of frame i.
"""

from __future__ import annotations

from dataloader.contradiction import Contradiction
from dataloader.depth_errors import FEWEST_POINTS, DepthErrors, depth_errors
from dataloader.scene import Scene
from dataloader.view_agreement import Pairs

_FARTHEST = 3  # frames


def find_shift(scene: Scene, pairs: Pairs) -> Contradiction | None:
    """That depth maps are those of frames before or after their names', or None."""
    poses = scene.camera_to_world
    shifts = [sign * count for count in range(1, _FARTHEST + 1) for sign in (1, -1)]
    shifted = {shift: depth_errors(pairs, poses, shift) for shift in shifts}
    shifted = {shift: errors for shift, errors in shifted.items() if errors.count >= FEWEST_POINTS}
    if not shifted:
        return None
    given, best = depth_errors(pairs, poses), min(shifted, key=lambda shift: shifted[shift].mean)
    return _told(scene, best, given, shifted[best]) if shifted[best].clearly_better(given) else None


def _told(scene: Scene, shift: int, given: DepthErrors, then: DepthErrors) -> Contradiction:
    frames, count = scene.frames, abs(shift)
    middle = min(len(frames) // 2, len(frames) - 1 - count)
    here, there = (middle, middle + count) if shift > 0 else (middle + count, middle)
    by = "one frame" if count == 1 else f"{count} frames"
    return Contradiction(
        f"its depth maps are {by} off: the depth of frame {frames[here]} agrees with the pose of frame "
        f"{frames[there]}, and so on (as it is, depth is {given.mean:.1%} off what other cameras measured; then "
        f"{then.mean:.1%})",
        "rename the depth maps, or the poses and colour images, so that those of one moment have the same name (such "
        f"as {scene.depth_paths[here] or 'its depth'})",
    )
