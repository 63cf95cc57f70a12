"""Files are old or new, never half written."""

import pytest

from utils.errors import UserError
from utils.files import atomic_path, read_json, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="bad.json cannot be read as valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match="absent.json does not exist"):
        read_json(tmp_path / "absent.json")
