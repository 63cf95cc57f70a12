"""Loads compiled ops."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

_ROOT = Path(__file__).resolve().parent.parent


@cache
def load_library(folder: Path) -> None:
    """Register the ops of the library ``_C*.so`` in ``folder``, once.

    The environment variable SSIR_LIBRARIES names another place of the same structure (see scripts/sanitize.sh).

    Raises:
        ImportError: it is not built, or was built for another PyTorch.
    """
    other = os.environ.get("SSIR_LIBRARIES")
    if other and folder.resolve().is_relative_to(_ROOT):
        folder = Path(other) / folder.resolve().relative_to(_ROOT)
    built = sorted(folder.glob("_C*.so"))
    if not built:
        raise ImportError(f"no _C*.so in {folder}, it is not built; run: python setup.py build_ext --inplace")
    try:
        torch.ops.load_library(built[-1])
    except OSError as error:
        raise ImportError(
            f"{built[-1]} does not load with torch {torch.__version__} ({error}); it was probably built for another "
            "version; run: python setup.py build_ext --inplace --force"
        ) from error
