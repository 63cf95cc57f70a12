"""Estimating each training photograph's exposure: photograph = gain * field + offset, one pair per colour channel.

Hand-held captures change exposure and white balance from frame to frame. The pairs are not trained by gradient
steps: they are the least-squares solution over recent rays, with a prior at (1, 0) and constrained to an
average of (1, 0) over all photographs, so that the field shows the scene at the average exposure.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FORGET = 0.9
_PRIOR_RAYS = 64.0
_GAIN_LIMITS = (0.4, 2.5)
_CLIPPED = 1.5 / 255


class ExposureEstimate:
    """Gains and offsets of all training photographs, estimated alongside the field.

    Args:
        count: number of photographs.
        device: where the rays are.
        enabled: if off, gains stay 1 and offsets 0.
    """

    def __init__(self, count: int, device: torch.device, enabled: bool = True):
        self.enabled = enabled
        self.gain = torch.ones(count, 3, device=device)
        self.offset = torch.zeros(count, 3, device=device)
        # Sums over rays of 1, x, y, x*x, x*y with x the field's colour and y the photograph's.
        self._sums = torch.zeros(5, count, 3, device=device)

    def to_field(self, colors: Tensor, frames: Tensor) -> Tensor:
        """What the field should show where photographs ``frames [B]`` show ``colors [B, 3]``."""
        if not self.enabled:
            return colors
        return (colors - self.offset[frames]) / self.gain[frames]

    def observe(self, rendered: Tensor, colors: Tensor, frames: Tensor) -> None:
        """Accumulate what the field shows, ``[B, 3]``, along rays of known photograph colours.

        Saturated values carry no information about exposure and are left out.
        """
        if not self.enabled:
            return
        valid = ((colors > _CLIPPED) & (colors < 1 - _CLIPPED)).float()
        terms = torch.stack((valid, valid * rendered, valid * colors, valid * rendered**2, valid * rendered * colors))
        self._sums.index_add_(1, frames, terms)

    def update(self) -> None:
        """Solve for gains and offsets from what was observed, then decay older observations."""
        if not self.enabled:
            return
        n, sx, sy, sxx, sxy = self._sums
        n = n + 1e-6
        mean_x, mean_y = sx / n, sy / n
        # The prior counts as rays that show gain 1 with the variance of an average photograph.
        prior = _PRIOR_RAYS / n * 0.05
        variance = (sxx / n - mean_x**2).clamp(min=0) + prior
        covariance = sxy / n - mean_x * mean_y + prior
        gain = (covariance / variance).clamp(*_GAIN_LIMITS)
        confidence = n / (n + _PRIOR_RAYS)
        offset = (mean_y - gain * mean_x) * confidence
        gain = 1 + (gain - 1) * confidence
        self.gain = gain / gain.log().mean(0).exp()
        self.offset = offset - offset.mean(0)
        self._sums *= _FORGET

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to resume."""
        return {"gain": self.gain, "offset": self.offset, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state_dict`."""
        device = self.gain.device
        self.gain, self.offset, self._sums = (state[name].to(device) for name in ("gain", "offset", "sums"))
