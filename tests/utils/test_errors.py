"""What damaged files make libraries raise becomes one named error, in one place."""

import errno
import pickle
import re
import struct
import tokenize
import zipfile
import zlib

import numpy as np
import pytest
import torch

from utils.errors import UserError, reading, short


@pytest.mark.parametrize(
    "error",
    [
        pickle.UnpicklingError("bad\nsecond line"), zipfile.BadZipFile("no zip"), struct.error("short"),
        tokenize.TokenError("EOF", (1, 0)), RecursionError("maximum recursion depth exceeded"), MemoryError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), OverflowError("int too large"),
        np.linalg.LinAlgError("singular"), torch.linalg.LinAlgError("singular"), zlib.error("incorrect header"),
        KeyError("frames"), AttributeError("no attribute"), IndexError(), SystemError("null argument"),
        NotImplementedError("compression"), AssertionError(), EOFError(), OSError("truncated"), ZeroDivisionError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_every_kind_of_error_names_the_file_in_one_line(error):
    with pytest.raises(UserError) as caught, reading("some/scene.bin", "a scene", "export it again"):
        raise error
    message = str(caught.value)
    assert message.startswith("some/scene.bin cannot be read as a scene (") and message.endswith("export it again")
    assert "\n" not in message and caught.value.__cause__ is error


def test_the_system_says_why_a_file_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match=r"x cannot be read \(Permission denied\); expected a scene"):
        with reading("x", "a scene"):
            raise PermissionError(errno.EACCES, "Permission denied", "x")
    with pytest.raises(UserError, match="absent does not exist; expected a scene there"):
        with reading(tmp_path / "absent", "a scene"):
            open(tmp_path / "absent")


def test_a_file_within_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} cannot be read .No such file or directory: {tmp_path}/a.;"):
        with reading(tmp_path, "a scene's folder"):
            open(tmp_path / "a")


def test_what_is_no_fault_of_the_file_passes():
    for error in (torch.OutOfMemoryError("device"), KeyboardInterrupt()):
        with pytest.raises(type(error)), reading("x", "a scene"):
            raise error


def test_errors_that_name_the_file_stay_and_others_get_its_name():
    with pytest.raises(UserError, match="^a/b: two images are called x$"), reading("a/b", "a scene"):
        raise UserError("two images are called x")
    with pytest.raises(UserError, match="^a/b has no frames$"), reading("a/b", "a scene"):
        raise UserError("a/b has no frames")


def test_long_values_are_cut_in_messages():
    assert "very many digits" in short(1 << 10**6) and "very many digits" in short([1 << 10**6])
    assert len(short("x" * 10**6)) <= 100 and len(short(list(range(10**6)))) < 100 and len(short(10**4000)) <= 100
    with pytest.raises(UserError) as caught, reading("x", "a scene"):
        raise ValueError("y" * 10**6)
    assert len(str(caught.value)) < 300 and re.search("y{50}", str(caught.value))
