"""The temperature at which a network's predictions are as sure as they are right (Guo et al., 2017).

Fitted to labelled views, such as those of validation rooms; with it in ``FusionOptions.temperature`` other rooms'
predictions are fused without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from utils.labels import UNANNOTATED

_STRIDE = 4  # every fourth row and column: neighbouring pixels say the same
_LEAST = 1e-8  # probability
_BOUNDS = 0.05, 20.0
_HALVINGS = 40


class TemperatureFit:
    """Collects predictions and labels as they pass by, and finds the temperature of least mean -log probability."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._truth: list[Tensor] = []

    def watch(self, probabilities: Iterable[Tensor], label: Callable[[int], Tensor]) -> Iterator[Tensor]:
        """The predictions ``[n, C, H, W]``, unchanged.

        Args:
            probabilities: of views, in order.
            label: classes ``[H, W]`` of a view by its number, of the predictions' size.
        """
        first = 0
        for batch in probabilities:
            truth = torch.stack([label(first + k) for k in range(len(batch))])[:, ::_STRIDE, ::_STRIDE].cpu().long()
            known = truth != UNANNOTATED
            logits = batch[:, UNANNOTATED + 1 :, ::_STRIDE, ::_STRIDE].float().cpu().clamp(min=_LEAST).log()
            self._logits.append(logits.movedim(1, -1)[known])
            self._truth.append(truth[known] - (UNANNOTATED + 1))
            first += len(batch)
            yield batch

    def fit(self) -> dict[str, Any]:
        """The temperature, and mean -log probability in nats without and with it; None where nothing is labelled."""
        if not sum(map(len, self._truth)):
            return {"temperature": None, "log_loss": None, "log_loss_at_temperature": None}
        logits, truth = torch.cat(self._logits).double(), torch.cat(self._truth)
        low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]  # of the inverse, in which the loss is convex
        for _ in range(_HALVINGS):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if _slope(logits, truth, middle) > 0 else (middle, high)
        inverse = (low * high) ** 0.5
        return {"temperature": round(1 / inverse, 4), "log_loss": _loss(logits, truth, 1.0),
                "log_loss_at_temperature": _loss(logits, truth, inverse)}  # fmt: skip


def _loss(logits: Tensor, truth: Tensor, inverse: float) -> float:
    return round(float(torch.nn.functional.cross_entropy(logits * inverse, truth)), 6)


def _slope(logits: Tensor, truth: Tensor, inverse: float) -> float:
    """Of the loss by the inverse temperature: expected minus observed logits."""
    expected = ((logits * inverse).softmax(1) * logits).sum(1)
    return float((expected - logits.gather(1, truth[:, None])[:, 0]).mean())
