"""NumPy's archives: what they hold is read, what they announce is not believed."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from utils.arrays import read_npz
from utils.errors import UserError


class _Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def _header(shape, dtype="<f8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _replace(path, content, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("T.npy", content)


def test_arrays_come_back_as_they_were_written(tmp_path):
    arrays = {"T": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "scale": np.float64(0.5),
              "ids": np.array(["é", "b"]), "none": np.empty(0, np.str_), "big": np.arange(3, dtype=">i4")}  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = read_npz(tmp_path / "a.npz", "an archive", ("T", "scale"), ("ids", "none", "big", "absent"))
        assert set(read) == {"T", "scale", "ids", "none", "big"}
        for name, array in read.items():
            assert array.dtype == arrays[name].dtype and np.array_equal(array, arrays[name]) and array.flags.writeable


def test_pickled_objects_are_refused_or_left_out(tmp_path, caplog, capsys):
    np.savez(tmp_path / "a.npz", T=np.eye(4), ids=np.array([_Payload()], dtype=object))
    assert set(read_npz(tmp_path / "a.npz", "an archive", ("T",), ("ids",))) == {"T"}
    assert "ids are pickled objects" in caplog.text
    with pytest.raises(UserError, match="a.npz .*ids holds pickled objects"):
        read_npz(tmp_path / "a.npz", "an archive", ("ids",))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content",
    [
        _header((10**12,)), _header((10**15, 10**15)), _header((-4, -4)), _header((4, 4)) + bytes(100),
        _header((1,), "<U500000000"), _header((4,), "|V1000000000"), _header((4,), [("a", "<f8")]), b"", b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(100), b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 60000) + b"(" * 59999 + b"\n",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"{'descr': '''".ljust(19) + b"\n",
    ],
    ids=range(13),
)  # fmt: skip
def test_headers_that_lie_are_refused(tmp_path, content):
    _replace(tmp_path / "a.npz", content)
    with pytest.raises(UserError, match="a.npz"):
        read_npz(tmp_path / "a.npz", "an archive", ("T",))


def test_an_archive_that_unpacks_without_end_is_not_unpacked(tmp_path):
    size = 1 << 28
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("T.npy", "w", force_zip64=True) as file:
            file.write(_header((size // 8,)))
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a.npz unpacks to 268435584 bytes from"):
            read_npz(tmp_path / "a.npz", "an archive", ("T",))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
