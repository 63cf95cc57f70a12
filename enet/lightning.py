"""Lightning and torchmetrics, without the packages that torchmetrics imports wherever they are installed.

torchmetrics offers metrics of images, text and sound, and imports what those need at once: where torchvision and
transformers are installed, a start takes 11 s instead of 4.5 s. No metric of theirs is used here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError

from lightning_utilities.core import imports

UNUSED = ("librosa", "matplotlib", "onnxruntime", "torchaudio", "torchvision", "transformers")


@contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """Packages that were not imported yet look as if they were not installed, to those who ask lightning_utilities."""
    version = getattr(imports, "_version", None)
    if version is None:  # another lightning_utilities: a slower start
        yield
        return
    absent = {name for name in names if name not in sys.modules}

    def version_of(name: str) -> str:
        if name in absent:
            raise PackageNotFoundError(name)
        return version(name)

    sys.modules.update(dict.fromkeys(absent))  # None: what `find_spec` and `import` take for absent
    imports._version = version_of
    try:
        yield
    finally:
        imports._version = version
        for name in absent:
            del sys.modules[name]
        imports.package_available.cache_clear()
        imports.module_available.cache_clear()


with _absent(UNUSED):
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
    from pytorch_lightning.loggers import TensorBoardLogger
    from torchmetrics import Metric

__all__ = ["EarlyStopping", "Metric", "ModelCheckpoint", "TensorBoardLogger", "pl"]
