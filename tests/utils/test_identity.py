"""Identities follow contents: not paths, times, or what else lies beside."""

import os

import pytest
import torch

from utils.errors import UserError
from utils.files import write_json
from utils.identity import (
    FileSet,
    field_inputs,
    file_identity,
    resolve_inputs,
    store_identity,
    tensor_identity,
    value_identity,
)

LONG_AGO = 1_600_000_000_000_000_000  # ns


def test_values_are_equal_whatever_the_order_of_their_keys():
    assert value_identity({"a": 1, "b": [1, 2]}) == value_identity({"b": [1, 2], "a": 1})
    assert value_identity({"a": 1}) != value_identity({"a": 1.5}) != value_identity({"a": None})


def test_tensors_differ_by_type_shape_and_every_byte():
    value = torch.arange(6, dtype=torch.float32)
    others = [value.double(), value.reshape(2, 3), value.flip(0), torch.cat([value[:5], value.new_tensor([5.0000005])])]
    identities = {tensor_identity(tensor) for tensor in (value, *others)}
    assert len(identities) == 5
    assert tensor_identity(value.reshape(2, 3).T.contiguous().T) == tensor_identity(value.reshape(2, 3))
    assert tensor_identity(value, None) != tensor_identity(None, value)


def file_set(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(LONG_AGO, LONG_AGO))
    return FileSet({name: folder / name for name in contents})


def test_a_file_set_is_its_names_and_contents(tmp_path):
    first = file_set(tmp_path / "here", a=b"1", b=b"2")
    assert first.identity()[0] == file_set(tmp_path / "there", b=b"2", a=b"1").identity()[0]
    for others in ({"a": b"2", "b": b"1"}, {"a": b"1", "c": b"2"}, {"a": b"1"}, {"a": b"1", "b": b"2", "c": b""}):
        assert first.identity()[0] != file_set(tmp_path / "other", **others).identity()[0]


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match="gone cannot be read .*No such file"):
        FileSet({"a": tmp_path / "gone"}).identity()
    with pytest.raises(UserError, match="gone cannot be read"):
        file_identity(tmp_path / "gone")


def test_unchanged_files_are_not_read_again(tmp_path, monkeypatch):
    files = file_set(tmp_path / "f", a=b"1", b=b"2")
    digest, stamps = files.identity()
    read = []
    monkeypatch.setattr("utils.identity.file_identity", lambda path: read.append(path.name) or file_identity(path))
    assert files.identity(stamps, LONG_AGO + 10**10) == (digest, stamps) and read == []
    (tmp_path / "f" / "b").write_bytes(b"3")  # of the same length
    assert files.identity(stamps, LONG_AGO + 10**10)[0] != digest and read == ["b"]


def test_files_that_changed_just_before_they_were_remembered_are_read_again(tmp_path):
    files = file_set(tmp_path / "f", a=b"1")
    digest, stamps = files.identity()
    file_set(tmp_path / "f", a=b"2")  # same length, and the same time: a clock that is coarse
    assert files.identity(stamps, LONG_AGO + 10**9)[0] != digest


def test_settings_keep_their_form_and_file_sets_become_digests(tmp_path):
    files = file_set(tmp_path / "f", a=b"1")
    resolved, stamps = resolve_inputs({"size": (2, 3), "scan": {"photographs": files, "mesh": None}, "list": [files]})
    digest = files.identity()[0]
    assert resolved == {"size": [2, 3], "scan": {"photographs": digest, "mesh": None}, "list": [digest]}
    assert set(stamps) == {"scan.photographs", "list.0"}


def test_a_field_is_its_files_and_nothing_beside_them(tmp_path):
    for name in ("data.ckpt", "trans_info.npz", "results.json"):
        (tmp_path / name).write_bytes(b"x")
    before = field_inputs(tmp_path).identity()[0]
    (tmp_path / "results.json").write_bytes(b"y")
    assert field_inputs(tmp_path).identity()[0] == before
    (tmp_path / "capture.npz").write_bytes(b"exposures")
    assert field_inputs(tmp_path).identity()[0] != before


def test_a_store_is_its_cameras_and_the_channels_that_are_used(tmp_path):
    (tmp_path / "cameras.json").write_text("{}")
    meta = {"channels": {"rgb": {"settings": {"field": "a"}}, "label": {"settings": {"mesh": "m"}}}}
    write_json(tmp_path / "meta.json", meta)
    used, other = store_identity(tmp_path, ("rgb", "label")), store_identity(tmp_path, ("label",))
    meta["channels"]["quality"] = {"settings": {}}
    write_json(tmp_path / "meta.json", meta)
    assert store_identity(tmp_path, ("rgb", "label")) == used
    meta["channels"]["rgb"] = {"settings": {"field": "b"}}
    write_json(tmp_path / "meta.json", meta)
    assert store_identity(tmp_path, ("rgb", "label")) != used and store_identity(tmp_path, ("label",)) == other
    (tmp_path / "cameras.json").write_text("[]")
    assert store_identity(tmp_path, ("label",)) != other
