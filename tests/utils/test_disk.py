"""Disks that refuse become one sentence, rooms are taken beforehand, and leftovers of killed writers go."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from utils.disk import _HOST, allocate, create_array, disk_refusal, remove_orphans, temporary_path, writing
from utils.errors import UserError
from utils.files import atomic_path, write_json
from utils.outputs import prepare_output
from utils.paths import PROJECT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO])
def test_a_refusal_names_the_file_and_how_to_go_on(tmp_path, number):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(UserError) as refused, atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'a.json'} cannot be written ({os.strerror(number)}); what is finished is ")
    assert message.endswith("the same command with --resume continues from here")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_checkpoint_cut_short_is_a_refusal_although_its_file_is_gone(tmp_path):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 672320 vs 672208")
    assert "No space left on device" in str(disk_refusal(error, tmp_path / "a"))


def test_a_copy_to_a_full_disk_is_a_refusal_of_where_it_goes(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/input", None, str(tmp_path / ".a.partial"))
    assert str(disk_refusal(error, tmp_path / "a")).startswith(f"{tmp_path / 'a'} cannot be written")


def test_other_errors_are_left_alone(tmp_path):
    for error in (OSError(errno.ENOENT, "gone"), RuntimeError("a mistake"), ValueError("another")):
        with pytest.raises(type(error), match=str(error).rpartition(" ")[2]), writing(tmp_path / "a"):
            raise error
    assert disk_refusal(PermissionError(errno.EACCES, "no", "/elsewhere/input"), tmp_path / "a") is None


def test_a_library_that_hides_why_is_seen_through_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.disk.is_full", lambda path: True)
    with pytest.raises(UserError, match="No space left on device.*make room"), writing(tmp_path / "a"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")


def test_an_array_takes_all_its_room_and_is_zero(tmp_path):
    create_array(tmp_path / "a.npy", "uint16", (1000, 1000))
    assert os.stat(tmp_path / "a.npy").st_blocks * 512 >= 2 * 1000 * 1000
    np.save(tmp_path / "b.npy", np.zeros((1000, 1000), np.uint16))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_room_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"a.npy cannot be written \(No space left on device\)"):
        create_array(tmp_path / "a.npy", "uint8", (10, 10))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_reserve_is_used_all_the_same(tmp_path, monkeypatch):
    def cannot(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    (tmp_path / "a").write_bytes(b"x")
    allocate(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x"


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_dead_processes_left_is_removed(tmp_path):
    dead, mine, other = f"{_HOST}-{dead_process()}", f"{_HOST}-{os.getpid()}", "another-host-1"
    for who in (dead, mine, other):
        (tmp_path / f".metrics.{who}.partial.json").touch()
    (tmp_path / "metrics.json").touch()
    (tmp_path / "scene.partial").mkdir()
    remove_orphans(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f".metrics.{mine}.partial.json", f".metrics.{other}.partial.json", "metrics.json", "scene.partial"}
    remove_orphans(tmp_path, locked=True)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "scene.partial"}


def test_a_resumed_output_holds_no_leftovers(tmp_path, resume):
    partial = prepare_output(tmp_path / "out", {"a": 1})
    (partial / "color").mkdir()
    (partial / "color" / ".1.host-7.partial.png").touch()
    (partial / "color" / "0.png").touch()
    prepare_output(tmp_path / "out", {"a": 1})
    assert {path.name for path in partial.rglob("*")} == {"settings.json", "color", "0.png"}


def test_a_killed_writer_leaves_one_name_that_says_whose_it_was(tmp_path):
    kill = ("import os, sys; from utils.files import atomic_path\n"
            "with atomic_path(sys.argv[1]) as temporary:\n    temporary.touch(); os._exit(9)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", kill, str(tmp_path / "a.json")], cwd=PROJECT)
    assert process.wait() == 9
    expected = temporary_path(tmp_path / "a.json").name.replace(str(os.getpid()), str(process.pid))
    assert [path.name for path in tmp_path.iterdir()] == [expected]
    remove_orphans(tmp_path)
    write_json(tmp_path / "a.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
