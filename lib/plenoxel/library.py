"""Loads the compiled ops once."""

from __future__ import annotations

from pathlib import Path

import torch


def load() -> None:
    """Registers `torch.ops.plenoxel`.

    Raises:
        ImportError: if the extension is not built, or was built for another torch.
    """
    folder = Path(__file__).parent
    built = sorted(folder.glob("_C*.so"))
    if not built:
        raise ImportError(
            f"The Plenoxel extension is not built: no _C*.so in {folder}. Run: python setup.py build_ext --inplace"
        )
    try:
        torch.ops.load_library(built[-1])
    except OSError as error:
        raise ImportError(
            f"{built[-1]} does not load with torch {torch.__version__} ({error}). It was probably built for another"
            " version; run: python setup.py build_ext --inplace --force"
        ) from error
