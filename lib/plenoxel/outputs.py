"""The outputs of a ray, and the selection of those to compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class RayOutputs(NamedTuple):
    """The outputs of rays; those that were not requested are None."""

    rgb: Tensor | None  # [N, 3]
    sh: Tensor | None  # [N, 27]
    depth: Tensor | None  # [N], world units
    alpha: Tensor | None  # [N]


OUTPUTS = RayOutputs._fields


def output_bits(outputs: Sequence[str]) -> int:
    """Names of outputs as the ops take them; raises ValueError for unknown ones."""
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise ValueError(f"outputs must be among {', '.join(OUTPUTS)}, found {', '.join(unknown)}")
    return sum(1 << bit for bit, name in enumerate(OUTPUTS) if name in outputs)


def named_outputs(values: Sequence[Tensor], outputs: Sequence[str]) -> RayOutputs:
    """What an op returned, None where it was not requested."""
    return RayOutputs(*(value if name in outputs else None for name, value in zip(OUTPUTS, values, strict=True)))
