"""Output folders are finished or absent, never half there and never mixed."""

import pytest

from utils.errors import UserError
from utils.files import atomic_path, commit_output, first_difference, prepare_output, read_json, write_json


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
    with pytest.raises(UserError, match="bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match="absent.json does not exist"):
        read_json(tmp_path / "absent.json")


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
