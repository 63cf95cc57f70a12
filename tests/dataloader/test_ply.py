"""The PLY reader equals plyfile on whatever plyfile writes, and believes no header."""

import struct
import tracemalloc

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from dataloader.ply import PlyList, read_ply
from utils.errors import UserError

SCALARS = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
COUNTS = ("u1", "i1", "u2", "i2", "u4", "i4")
ENCODINGS = [{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}]


def _values(random, kind, count):
    if kind[0] == "f":
        return random.normal(0, 10.0 ** random.integers(-3, 6), count).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, count, dtype=kind, endpoint=True)


def _element(random, name, rows, uniform):
    """An element of random scalar and list properties."""
    columns, fields, length_types, value_types = {}, [], {}, {}
    for k in range(random.integers(1, 6)):
        property, kind = f"p{k}", str(random.choice(SCALARS))
        if random.random() < 0.5:
            fields.append((property, kind))
            columns[property] = _values(random, kind, rows)
        else:
            fields.append((property, "O"))
            length_types[property], value_types[property] = str(random.choice(COUNTS)), kind
            lengths = np.full(rows, random.integers(0, 5)) if uniform else random.integers(0, 7, rows)
            columns[property] = [_values(random, kind, length) for length in lengths]
    table = np.empty(rows, fields)
    for property, values in columns.items():
        for row in range(rows):
            table[property][row] = values[row]
    return PlyElement.describe(table, name, len_types=length_types, val_types=value_types)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["text", "little", "big"])
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.filterwarnings("ignore:loadtxt")  # plyfile's, of empty lists
def test_random_files_equal_plyfile(tmp_path, seed, encoding):
    random = np.random.default_rng(seed)
    elements = [_element(random, name, int(random.integers(0, 20)), random.random() < 0.5) for name in ("a", "b", "c")]
    path = tmp_path / "a.ply"
    PlyData(elements, comments=["made by", "a test"], obj_info=["x 1"], **encoding).write(str(path))
    expected, found = PlyData.read(str(path)), read_ply(path)
    assert list(found) == ["a", "b", "c"]
    for element in expected.elements:
        assert list(found[element.name]) == [one.name for one in element.properties]
        for name, values in found[element.name].items():
            stored = element.data[name]
            if isinstance(values, PlyList):
                assert values.counts.tolist() == [len(row) for row in stored]
                stored = np.concatenate([np.empty(0, values.values.dtype), *stored])
                values = values.values
            assert np.array_equal(values, stored) and values.dtype.isnative


def _header(encoding="binary_little_endian", vertices=3, faces=1, newline="\n", **properties):
    lines = ["ply", f"format {encoding} 1.0", "comment by hand", f"element vertex {vertices}"]
    lines += [f"property {one}" for one in properties.get("vertex", ("float x", "float y", "float z"))]
    lines += [f"element face {faces}"]
    lines += [f"property {one}" for one in properties.get("face", ("list uchar int vertex_indices",))]
    return "".join(line + newline for line in [*lines, "end_header"]).encode()


TRIANGLE = struct.pack("<9f", *range(9)) + b"\x03" + struct.pack("<3i", 0, 1, 2)
TEXT_TRIANGLE = b"0 1 2\n3 4 5\n6 7 8\n3 0 1 2\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", " \n"])
@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
def test_every_kind_of_line_end(tmp_path, newline, encoding):
    body = TEXT_TRIANGLE.replace(b"\n", newline.encode()) if encoding == "ascii" else TRIANGLE
    (tmp_path / "a.ply").write_bytes(_header(encoding, newline=newline) + body)
    found = read_ply(tmp_path / "a.ply")
    assert found["vertex"]["z"].tolist() == [2, 5, 8] and found["face"]["vertex_indices"].values.tolist() == [0, 1, 2]


def test_padding_behind_binary_data_is_passed_over(tmp_path):
    (tmp_path / "a.ply").write_bytes(_header() + TRIANGLE + bytes(100))
    assert read_ply(tmp_path / "a.ply")["vertex"]["x"].tolist() == [0, 3, 6]


LYING = {
    f"{kind} {number:.0e} {encoding}": _header(encoding, **{kind: number}) + TRIANGLE
    for kind in ("vertices", "faces") for number in (5 * 10**8, 10**12, 10**18)
    for encoding in ("ascii", "binary_little_endian", "binary_big_endian")
}  # fmt: skip
LYING.update({
    "list of 2 GB": _header(vertices=0, face=("list uint int vertex_indices",)) + b"\xff\xff\xff\x7f" + bytes(50),
    "negative list": _header(vertices=0, face=("list char int vertex_indices",)) + b"\xff" + bytes(50),
    "list as long as a float": _header(vertices=0, face=("list float int vertex_indices",)) + bytes(50),
    "nan as a length": _header("ascii", 0) + b"nan 0 1 2\n",
    "half a length": _header("ascii", 0) + b"3.5 0 1 2\n",
    "negative count": _header(vertices=-5) + TRIANGLE,
    "huge count": _header(vertices=10**30) + TRIANGLE,
    "many digits": _header(vertices="9" * 10000) + TRIANGLE,
    "no end": b"ply\nformat ascii 1.0\n", "empty": b"", "three letters": b"ply", "other": b"solid cube\n",
    "long line": b"ply\nformat binary_little_endian 1.0\ncomment " + b"x" * 2_000_000,
    "no newline": b"ply\nformat binary_little_endian 1.0\n" + bytes(2_000_000),
    "no format": b"ply\nelement vertex 1\nproperty float x\nend_header\n" + bytes(12),
    "unknown format": _header("binary_middle_endian") + TRIANGLE,
    "unknown type": _header(vertex=("quad x",)) + TRIANGLE,
    "property twice": _header(vertex=("float x", "float x", "float z")) + TRIANGLE,
    "element twice": _header().replace(b"element face", b"element vertex") + TRIANGLE,
    "property first": b"ply\nformat ascii 1.0\nproperty float x\nend_header\n",
    "space in a name": _header(vertex=("float x y", "float z")) + TRIANGLE,
    "byte over 255": _header("ascii", vertex=("uchar x", "float y", "float z")) + TEXT_TRIANGLE.replace(b"6", b"300"),
    "words": _header("ascii") + TEXT_TRIANGLE.replace(b"4", b"four"),
    "no text": _header("ascii") + b"\xff\xfe 0 0\n",
    "a number too few": _header("ascii") + TEXT_TRIANGLE[2:],
    "a number too many": _header("ascii") + b"9 " + TEXT_TRIANGLE,
})  # fmt: skip


@pytest.mark.parametrize("content", LYING.values(), ids=LYING)
def test_what_the_file_cannot_hold_is_refused_before_it_is_made(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a.ply cannot be read as a PLY mesh"):
            read_ply(tmp_path / "a.ply")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 + 10 * len(content)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["text", "little", "big"])
def test_every_prefix_is_refused(tmp_path, encoding):
    random = np.random.default_rng(3)
    elements = [_element(random, "vertex", 5, False), _element(random, "face", 5, False)]
    PlyData(elements, **encoding).write(str(tmp_path / "a.ply"))
    whole = (tmp_path / "a.ply").read_bytes().rstrip(b"\n" if encoding.get("text") else b"")
    for length in range(len(whole) - 1):
        (tmp_path / "a.ply").write_bytes(whole[:length])
        if encoding.get("text") and whole[length : length + 1] not in b" \n":
            continue  # a number that lost digits is a number
        with pytest.raises(UserError, match="a.ply cannot be read"):
            read_ply(tmp_path / "a.ply")
