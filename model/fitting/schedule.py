"""Rates that change over the run."""

from __future__ import annotations

import math


def log_linear(
    first: float, last: float, progress: float, delay_progress: float = 1.0, delay_factor: float = 1.0
) -> float:
    """svox2's (and JaxNeRF's) schedule: log-linear from ``first`` to ``last`` as ``progress`` goes from 0 to 1.

    Args:
        delay_progress: elapsed share of the delay at the beginning, 0 to 1.
        delay_factor: what the rate is multiplied by at the very beginning.
    """
    progress = min(max(progress, 0.0), 1.0)
    delay = delay_factor + (1 - delay_factor) * math.sin(0.5 * math.pi * min(max(delay_progress, 0.0), 1.0))
    if first <= 0 or last <= 0:
        return delay * ((1 - progress) * first + progress * last)
    return delay * math.exp((1 - progress) * math.log(first) + progress * math.log(last))


def level_of(step: int, steps: tuple[int, ...]) -> int:
    """Level of the step with this index; the last level beyond the last step."""
    for level, count in enumerate(steps):
        if step < count:
            return level
        step -= count
    return len(steps) - 1
