"""Output folders are finished or absent, never half there and never mixed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.identity import FileSet
from utils.outputs import (
    CONTINUE,
    DONE,
    MAKE,
    REPLACE,
    commit_output,
    first_difference,
    output_state,
    prepare_output,
)

ROOT = Path(__file__).resolve().parents[2]


def finish(path, settings, content="x", **kwargs):
    partial = prepare_output(path, settings, **kwargs)
    (partial / "content").write_text(content)
    commit_output(path)


def test_finished_output_is_not_made_again(tmp_path):
    finish(tmp_path / "out", {"steps": 3, "size": (2, 3)})
    assert prepare_output(tmp_path / "out", {"steps": 3, "size": (2, 3)}) is None


def test_other_settings_are_refused_until_overwrite(tmp_path):
    finish(tmp_path / "out", {"steps": 3}, "old")
    with pytest.raises(UserError, match="steps = 3 there, 4 now"):
        prepare_output(tmp_path / "out", {"steps": 4})
    partial = prepare_output(tmp_path / "out", {"steps": 4}, overwrite=True)
    assert (tmp_path / "out" / "content").read_text() == "old", "the old result stays until the new one is done"
    (partial / "content").write_text("new")
    commit_output(tmp_path / "out")
    assert (tmp_path / "out" / "content").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_unfinished_output_is_begun_anew_without_resume(tmp_path):
    (prepare_output(tmp_path / "out", {"a": 1}) / "half").write_text("x")
    assert not (prepare_output(tmp_path / "out", {"a": 1}) / "half").exists()


def test_unfinished_output_goes_on_with_resume_only_under_equal_settings(tmp_path, resume):
    (prepare_output(tmp_path / "out", {"a": 1}) / "half").write_text("x")
    assert (prepare_output(tmp_path / "out", {"a": 1}) / "half").exists()
    assert not (prepare_output(tmp_path / "out", {"a": 2}) / "half").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [1, 2]}, "a": 1}, None),
        ({"z": {"tv": 0.1, "lr": 1}, "a": 1}, {"z": {"tv": 0.1, "lr": 2}, "a": 2}, "z.lr = 1 there, 2 now"),
        ({"size": [124, 124]}, {"size": [62, 62]}, "size = [124, 124] there, [62, 62] now"),
        ({"stores": [{"views": 3}, {"views": 4}]}, {"stores": [{"views": 3}, {"views": 5}]},
         "stores[1].views = 4 there, 5 now"),
        ({"options": {}}, {"options": {"step": 1}}, "options.step is absent there, 1 now"),
        ({"options": {"step": None}}, {"options": {}}, "options.step = None there, absent now"),
        ({"stores": [{"views": 3}]}, {"stores": []}, "stores = [{'views': 3}] there, [] now"),
        ({"options": {"a": 1}}, {"options": "none"}, "options = {'a': 1} there, 'none' now"),
    ],
)  # fmt: skip
def test_the_entry_that_differs_is_named(old, new, expected):
    assert first_difference(old, new) == expected


def test_long_values_are_cut():
    assert len(first_difference({"a": ["x" * 300] * 100}, {"a": list(range(1000))})) < 1000


def test_a_changed_input_is_a_difference_and_an_unchanged_one_is_not_read_again(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(b"old")
    os.utime(tmp_path / "photo.jpg", (1e9, 1e9))
    settings = {"scan": {"photographs": FileSet({"0": tmp_path / "photo.jpg"})}, "steps": 3}
    finish(tmp_path / "out", settings)
    with monkeypatch.context() as patched:
        patched.setattr("utils.identity.file_identity", None)
        assert prepare_output(tmp_path / "out", settings) is None
    (tmp_path / "photo.jpg").write_bytes(b"new")
    with pytest.raises(UserError, match=r"made with other settings \(scan.photographs changed since\)"):
        prepare_output(tmp_path / "out", settings)


def test_the_state_is_what_would_happen_and_asking_changes_nothing(tmp_path, resume):
    out = tmp_path / "out"
    assert output_state(out, {"a": 1}) == MAKE and list(tmp_path.iterdir()) == []
    prepare_output(out, {"a": 1})
    assert output_state(out, {"a": 1}) == CONTINUE and output_state(out, {"a": 2}) == MAKE
    commit_output(out)
    assert output_state(out, {"a": 1}) == DONE and output_state(out, {"a": 1}, overwrite=True) == REPLACE
    with pytest.raises(UserError, match="a = 1 there, 2 now"):
        output_state(out, {"a": 2})
    assert output_state(out, {"a": 2}, overwrite=True) == REPLACE
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_some_settings_can_be_compared_alone(tmp_path):
    finish(tmp_path / "out", {"steps": 3, "scan": "x"})
    assert output_state(tmp_path / "out", {"steps": 3}, partly=True) == DONE
    with pytest.raises(UserError, match="steps = 3 there, 4 now"):
        output_state(tmp_path / "out", {"steps": 4}, partly=True)


def test_what_another_process_makes_is_left_alone(tmp_path):
    partial = prepare_output(tmp_path / "out", {"a": 1})
    (partial / "content").write_text("of the first")
    second = "from utils.outputs import prepare_output; import sys; prepare_output(sys.argv[1], {'a': 1})"
    command = [sys.executable, "-c", second, str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and f"is being written by process {os.getpid()}" in result.stderr
    assert (partial / "content").read_text() == "of the first"
    commit_output(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / ".out.77.old").mkdir()
    finish(tmp_path / "out", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
