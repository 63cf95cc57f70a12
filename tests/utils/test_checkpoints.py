"""Checkpoints are data: nothing in them runs, and no tensor is larger than what the file stores."""

import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from utils.checkpoints import open_checkpoint
from utils.errors import UserError


class _Payload:
    def __reduce__(self):
        return os.system, ("touch hacked",)


class _Made:
    """Pickled as a call of a function that PyTorch allows."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _save(path, content, **options):
    torch.save(content, path, **options)
    return path


def _rezip(path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in change(parts):
            archive.writestr(name, content)
    return path


CONTENT = {
    "state_dict": OrderedDict(a=torch.arange(1350.0), b=torch.nn.Parameter(torch.ones(2, 3)), c=torch.zeros(0)),
    "epoch": 3, "name": "é", "list": [1, (2.5, None, True)], "counter": Counter("aab"), "set": {1, 2}, "bytes": b"x",
    "view": torch.arange(100)[::7], "repeated": torch.tensor([2.0]).expand(5, 5), "half": torch.ones(3).half(),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_data_come_back(tmp_path, zipped):
    path = _save(tmp_path / "a.ckpt", CONTENT, _use_new_zipfile_serialization=zipped)
    read = open_checkpoint(path, "a checkpoint")
    expected = torch.load(path, weights_only=True)
    assert list(read) == list(expected) == list(CONTENT)
    for name in ("epoch", "name", "list", "counter", "set", "bytes"):
        assert read[name] == CONTENT[name]
    for name in ("view", "repeated", "half"):
        assert torch.equal(read[name], CONTENT[name])
    assert all(torch.equal(read["state_dict"][name], tensor) for name, tensor in CONTENT["state_dict"].items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "harm",
    [
        _Payload(), {"deep": [_Payload()]}, os.system, _Made(bytearray, 10**12), _Made(torch.Tensor, 10**10),
        torch.zeros(1, device="meta"), torch.eye(3).to_sparse(), _Made(torch.UntypedStorage, 10**12),
    ],
    ids=["reduce", "nested", "name", "bytearray", "tensor", "meta", "sparse", "storage"],
)  # fmt: skip
def test_what_is_no_data_is_refused_before_it_is_made(tmp_path, harm, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = _save(tmp_path / "a.ckpt", {"a": harm}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"a.ckpt holds more than tensors .* could run code \(.*\); it is refused"):
        open_checkpoint(path, "a checkpoint")
    assert not (tmp_path / "hacked").exists()


def test_tensors_larger_than_what_is_stored_are_refused(tmp_path):
    path = _save(tmp_path / "a.ckpt", {"state": [{"x": torch.zeros(1).expand(10**10, 1)}]})
    assert path.stat().st_size < 5000
    with pytest.raises(UserError, match="a tensor .10000000000, 1. of 40000000000 bytes and stores 4 of them"):
        open_checkpoint(path, "a checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: [part for part in parts if not part[0].endswith("data/0")],
        lambda parts: [(name, data[:8] if "/data/" in name else data) for name, data in parts],
        lambda parts: [(name, data.replace(b"M\x46\x05", b"J\xff\xff\xff\x7f")) for name, data in parts],
        lambda parts: [*parts, (parts[0][0], pickle.dumps(_Payload()))],
        lambda parts: [*parts, ("a/constants.pkl", b"x"), ("a/data.pkl", pickle.dumps({}))],
        lambda parts: [(name, data[:-20] if name.endswith("data.pkl") else data) for name, data in parts],
        lambda parts: [(name, b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".") if name.endswith("data.pkl") else
                       (name, data) for name, data in parts],
    ],
    ids=["missing", "short", "numbers", "twice", "two", "cut", "deep"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_lie_are_refused(tmp_path, change):
    path = _rezip(_save(tmp_path / "a.ckpt", {"a": torch.arange(1350.0)}), change)
    with pytest.raises(UserError, match="a.ckpt .*(truncated or damaged|expected a checkpoint)"):
        open_checkpoint(path, "a checkpoint")


def test_an_archive_that_inflates_is_not_inflated(tmp_path):
    path = _save(tmp_path / "a.ckpt", {"a": torch.zeros(1000)})
    inflated = _rezip(path, lambda parts: parts, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="unpack to"):
        open_checkpoint(inflated, "a checkpoint")


def test_containers_that_hold_each_other_take_no_time(tmp_path):
    shared = {"x": torch.ones(1)}
    for _ in range(60):  # 2^60 ways to the tensor
        shared = {"a": shared, "b": shared}
    shared["self"] = shared
    assert open_checkpoint(_save(tmp_path / "a.ckpt", {"deep": shared}), "a checkpoint")["deep"]["a"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1}), b"PK\x03\x04garbage",
                                     pickle.dumps(0x1950A86A20F9469CFC6C, 2), b"\x80\x02\x8b\xff\xff\xff\x7f."])
def test_other_files_are_told_as_damaged(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=rf"a.ckpt cannot be read as a checkpoint .* {len(content)} bytes is truncated"):
        open_checkpoint(tmp_path / "a.ckpt", "a checkpoint")


def test_no_dict_and_no_file(tmp_path):
    with pytest.raises(UserError, match="holds a list; expected a checkpoint"):
        open_checkpoint(_save(tmp_path / "a.ckpt", [1]), "a checkpoint")
    with pytest.raises(UserError, match="absent.ckpt does not exist; expected a checkpoint there"):
        open_checkpoint(tmp_path / "absent.ckpt", "a checkpoint")
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(UserError, match="pipe.ckpt is not a file"):
        open_checkpoint(tmp_path / "pipe.ckpt", "a checkpoint")


def test_every_prefix_is_told_as_damaged(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(10.0)}, buffer)
    for length in range(0, len(buffer.getvalue()), 37):
        (tmp_path / "a.ckpt").write_bytes(buffer.getvalue()[:length])
        with pytest.raises(UserError, match="a.ckpt .*truncated or damaged"):
            open_checkpoint(tmp_path / "a.ckpt", "a checkpoint")
