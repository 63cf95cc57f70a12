"""PyTorch's checkpoints, opened so that nothing in them runs and that memory follows the file's length.

``torch.load(weights_only=True)`` runs no code, but allocates what a file announces: an archive that inflates without
end, objects made to any size, tensors of 10^10 numbers that are one number repeated. All this is looked at first.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from utils.errors import UserError, reading, short
from utils.files import regular_file

_ZIP_START = b"PK\x03\x04"
_OLD_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # before PyTorch 1.6: five pickles, then the numbers
_OLD_PICKLES = 5
_OLD_CALLBACK = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
_PLAIN = {  # what rebuilds tensors from stored numbers, and containers that hold what is written out
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state", "torch.nn.parameter Parameter", "torch Size", "torch device",
    "collections OrderedDict", "collections Counter", "__builtin__ set", "__builtin__ complex", "_codecs encode",
    *(f"torch {kind}Storage" for kind in
      ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat")),
    _OLD_CALLBACK.replace(".ModelCheckpoint", " ModelCheckpoint"),
}  # fmt: skip
_NUMPY_SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype")
_WITH_GLOBALS = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
_REPEATED_BYTES = 1 << 20  # that a tensor may hold beyond what is stored


class _Ignored:
    """Placeholder for what some files hold beside tensors and is not needed.

    A class that old Lightning checkpoints use as a dictionary key, and single numbers of NumPy.
    """

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def open_checkpoint(
    path: str | Path, what: str, advice: str = "copy or download it again", device: torch.device | str = "cpu"
) -> dict[Any, Any]:
    """A checkpoint's content, which is data alone: every tensor in it is stored in the file.

    Args:
        path: of the file.
        what: it should be, with article, for messages.
        advice: what to do about a damaged one.
        device: where its tensors go.

    Raises:
        UserError: absent, truncated, damaged, no dict, holding more than tensors and plain values, or tensors larger
            than what is stored.
    """
    path = regular_file(path, what)
    with reading(path, what, f"the file of {path.stat().st_size} bytes is truncated or damaged: {advice}"):
        refused = next((name for name in _globals(path) if name not in _PLAIN and name not in _NUMPY_SCALAR), None)
        if refused is not None:
            raise UserError(f"{path} holds more than tensors and plain values, and opening it could run code "
                            f"({short(refused)}); it is refused: save it again with tensors and plain values only")
        ignored = (_OLD_CALLBACK, *(name.replace(" ", ".") for name in _NUMPY_SCALAR))
        with torch.serialization.safe_globals([(_Ignored, name) for name in ignored]):
            content = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise UserError(f"{path} holds a {type(content).__name__}; expected {what} (a dict)")
        _check_stored(list(_tensors(content)), path)
    return content


def _globals(path: Path) -> Iterator[str]:
    """Everything that the file asks to be imported, as "module name"."""
    with open(path, "rb") as file:
        start = file.read(len(_OLD_START))
        file.seek(0)
        if start.startswith(_ZIP_START):
            yield from _globals_of_pickle(io.BytesIO(_archived_pickle(path)))
        elif start == _OLD_START:
            for _ in range(_OLD_PICKLES):
                yield from _globals_of_pickle(file)
        else:
            raise ValueError("it begins as no PyTorch file does")


def _archived_pickle(path: Path) -> bytes:
    """The one pickle of an archive, whose parts must be stored as they are."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > path.stat().st_size or len({member.filename for member in members}) < len(members):
            raise ValueError(f"{len(members)} parts unpack to {unpacked} bytes, or are there twice")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} parts are called data.pkl")
        return archive.read(pickles[0])


def _globals_of_pickle(file: BinaryIO) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _WITH_GLOBALS:
            yield str(argument) if opcode.name == "GLOBAL" else opcode.name


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in containers within containers, each container once, however they hold each other."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)


def _check_stored(tensors: list[Tensor], path: Path) -> None:
    """Refuse tensors that repeat few numbers, or whose numbers did not come from the file."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    if sum(storages.values()) > path.stat().st_size:
        raise ValueError(f"its tensors take {sum(storages.values())} bytes")
    for tensor in tensors:
        announced, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if announced > stored + _REPEATED_BYTES:
            raise UserError(f"{path} announces a tensor {list(tensor.shape)} of {announced} bytes and stores {stored} "
                            "of them; it is refused: save it again with all numbers")
