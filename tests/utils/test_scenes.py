"""Scene lists, and what happens when one scene of many is bad."""

import pytest

from utils.errors import UserError
from utils.plans import FAILED
from utils.scenes import for_each_scene, require_scenes, resolve_scenes


def test_all_skips_unfinished_and_hidden_folders(tmp_path):
    for name in ("scene1", "scene0", "scene2.partial", ".old"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert resolve_scenes("all", tmp_path) == ["scene0", "scene1"]


def test_prefix_is_stripped(tmp_path):
    (tmp_path / "plenoxel_scannet_scene0000_00").mkdir()
    (tmp_path / "other").mkdir()
    assert resolve_scenes("all", tmp_path, prefix="plenoxel_scannet_") == ["scene0000_00"]


def test_text_file_with_comments(tmp_path):
    (tmp_path / "split.txt").write_text("# val\nscene0001_00\n\nscene0000_00\n")
    assert resolve_scenes(str(tmp_path / "split.txt")) == ["scene0001_00", "scene0000_00"]


def test_the_projects_lists_are_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "project/configs/splits").mkdir(parents=True)
    (tmp_path / "project/configs/splits/val.txt").write_text("ours\n")
    monkeypatch.setattr("utils.paths.PROJECT", tmp_path / "project")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resolve_scenes("configs/splits/val.txt") == ["ours"]
    (tmp_path / "elsewhere/configs/splits").mkdir(parents=True)
    (tmp_path / "elsewhere/configs/splits/val.txt").write_text("the user's\n")
    assert resolve_scenes("configs/splits/val.txt") == ["the user's"]


@pytest.mark.parametrize("content", [b"\xff\xfea\0", b"a/../../b\n", b"/etc\n", b"..\n", b"a\x1bb\n", b"x" * 300])
def test_lists_of_what_are_no_names_are_refused(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(b"room\n" + content)
    with pytest.raises(UserError, match="list.txt"):
        resolve_scenes(str(tmp_path / "list.txt"))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "list.txt").write_bytes("room_a\r\nroom_b\r\n".encode("utf-8-sig"))
    assert resolve_scenes(str(tmp_path / "list.txt")) == ["room_a", "room_b"]


@pytest.mark.parametrize("spec", [["a", "a"], [], "no_such_file.txt"])
def test_bad_lists_are_refused(spec):
    with pytest.raises(UserError):
        resolve_scenes(spec)


def test_an_absent_scene_is_named_with_what_is_there(tmp_path):
    with pytest.raises(UserError, match="'a' is not in .* which holds 0 scenes; make it"):
        require_scenes(["a"], tmp_path)
    for number in range(12):
        (tmp_path / f"s{number:02d}").mkdir()
    require_scenes(["s00", "s11"], tmp_path)
    with pytest.raises(UserError, match=r"'a' is not in .* which holds 12 scenes: s00, .*, s09 and 2 more$"):
        require_scenes(["s00", "a"], tmp_path)


def test_skip_reports_the_bad_scene_and_refuse_stops():
    def work(name):
        if name == "bad":
            raise UserError("bad is bad")
        return len(name)

    assert for_each_scene(["a", "bad", "ccc"], work, "x", "skip") == {"a": 1, "ccc": 3, "failed": {"bad": "bad is bad"}}
    with pytest.raises(UserError, match="bad is bad"):
        for_each_scene(["a", "bad", "ccc"], work, "x")
    with pytest.raises(UserError, match="all 1 scenes failed"):
        for_each_scene(["bad"], work, "x", "skip")


def test_failures_are_summed_up_by_reason_at_the_end(caplog):
    def work(name):
        if name in ("s1", "s3"):
            raise UserError(f"/data/{name}/pose is empty: copy it again")
        if name == "s2":
            raise UserError("other")
        return name

    results = for_each_scene(["s0", "s1", "s2", "s3"], work, "x", "skip")
    assert results == {"s0": "s0", FAILED: {name: results[FAILED][name] for name in ("s1", "s2", "s3")}}
    assert caplog.records[-1].getMessage() == (
        "3 of 4 scenes failed:\n  s1, s3: /data/SCENE/pose is empty: copy it again\n  s2: other")
