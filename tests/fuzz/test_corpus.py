"""Inputs that some reader once did not survive, and some that it should read, through every reader again."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, Fault, Target
from utils.errors import UserError

HERE = Path(__file__).resolve().parent
FOUND = sorted(path for path in (HERE / "found").glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", TARGETS)
def test_sound_input_is_read(name, work):
    folder = work / name
    assert TARGETS[name].run(TARGETS[name].sound(folder), folder) is None


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_found_input_ends_in_a_result_or_a_named_error(path, work):
    TARGETS[path.parent.name].run(path.read_bytes(), work / path.parent.name)


def test_memory_that_no_byte_accounts_for_is_seen(tmp_path):
    target = Target(lambda folder: (folder / "a").write_bytes(b"x"), "a", lambda folder: bytearray(600 << 20))
    with pytest.raises(Fault, match=r"s and 6\d{8} bytes for 1 bytes"):
        target.run(b"y", tmp_path / "folder")


@pytest.mark.parametrize("message", ["no file is named", "{0} has\ntwo lines", "{0}" + "x" * 5000])
def test_poor_messages_are_seen(message, tmp_path):
    def read(folder):
        raise UserError(message.format(folder))

    target = Target(lambda folder: (folder / "a").write_bytes(b"x"), "a", read)
    with pytest.raises(Fault, match="a message without the file"):
        target.run(b"y", tmp_path / "folder")
