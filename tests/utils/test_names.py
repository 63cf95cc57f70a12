"""Names from files that become paths."""

import pytest

from utils.errors import UserError
from utils.names import plain_name, readable_path


@pytest.mark.parametrize("name", ["0", "frame 12", "küche_é", "a.b", "..a", "日本", "12_dome_3", "क्‍ष"])
def test_plain_names_pass(name):
    assert plain_name(name, "cameras.json") == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "a\0b", "a\nb", "\x1b[31m", "\ud800",
                                  "x" * 201, "é" * 101, 7, None, ["a"]])
def test_what_would_leave_the_folder_is_refused(name):
    with pytest.raises(UserError, match="^cameras.json: .* cannot be a camera's name"):
        plain_name(name, "cameras.json", "camera's name")


def test_files_that_are_only_read_may_lie_anywhere():
    for path in ("../images/0.png", "/data/x.jpg", "images/0.jpg", "a" * 255):
        assert readable_path(path, "transforms.json") == path


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800.png", "a" * 256, "a/" * 3000, 3, None])
def test_paths_that_nothing_can_open_are_refused(path):
    with pytest.raises(UserError, match="^transforms.json: .* cannot be a path"):
        readable_path(path, "transforms.json")
