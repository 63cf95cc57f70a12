"""What a config says before gin reads it: its depth is bounded, and no module is imported without leave."""

from __future__ import annotations

import sys

import gin
import pytest

import run as entry
from utils.config import parse
from utils.config_text import check_configs
from utils.errors import UserError
from utils.paths import PROJECT


@pytest.mark.parametrize("text", [
    "[" * 100 + "]" * 100, "{1: " * 100 + "0" + "}" * 100, "[" + "[[]], " * 1000 + "]", "'" + "[" * 3000 + "'",
    "'''" + "[" * 3000 + "\n'[\"'''", "1  # " + "[" * 3000 + "'", "'\\'" + "[" * 3000 + "'",
])  # fmt: skip
def test_what_is_not_deep_is_read(text):
    check_configs([], [f"a.b = {text}"])


@pytest.mark.parametrize("text", [
    "[" * 101 + "]" * 101, "({[" * 40 + "]})" * 40, "[\n" * 3000, "'a\n" + "[" * 3000, "'''a'''" + "(" * 3000,
    "1  # '\n" + "[" * 101, "'\\\\'" + "[" * 101,
])  # fmt: skip
def test_what_is_deep_is_refused_on_every_python(text, tmp_path):
    with pytest.raises(UserError, match="^--ginb is nested too deeply"):
        check_configs([], [f"a.b = {text}"])
    path = tmp_path / "a.gin"
    path.write_text(f"a.b = {text}")
    with pytest.raises(UserError, match=f"^{path} is nested too deeply"):
        check_configs([path], [])


def test_a_config_of_megabytes_is_refused(tmp_path):
    (tmp_path / "a.gin").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(UserError, match="a.gin has 1048577 characters"):
        check_configs([tmp_path / "a.gin"], [])


def test_files_that_include_each_other_without_end_are_refused(tmp_path):
    (tmp_path / "a.gin").write_text(f"include '{tmp_path}/b.gin'\n" * 50)
    (tmp_path / "b.gin").write_text(f"include '{tmp_path}/a.gin'\n" * 50)
    with pytest.raises(UserError, match="is nested too deeply, or includes itself"):
        check_configs([tmp_path / "a.gin"], [])


def test_an_included_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="^--ginb includes 'utils/none.gin', which does not exist"):
        check_configs([], ["include 'utils/none.gin'"])


IMPORTS = ["import hostile", "from hostile import x", "import hostile.x as y", "from hostile import x as y",
           "from __gin__ import dynamic_registration\nimport hostile\nfit.seed = @hostile.x()"]  # fmt: skip


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module that leaves a trace when it is imported; the path of the trace."""
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile/__init__.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\ndef x(): return 1")
    (tmp_path / "hostile/x.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    for name in ("hostile", "hostile.x"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text", IMPORTS)
@pytest.mark.parametrize("where", ["file", "included", "includes", "binding"])
def test_imports_run_nothing_without_leave(hostile, tmp_path, text, where):
    (tmp_path / "a.gin").write_text(text)
    (tmp_path / "b.gin").write_text(f"# two\ninclude '{tmp_path}/a.gin'")
    files, bindings = {
        "file": ([tmp_path / "a.gin"], []), "included": ([tmp_path / "b.gin"], []),
        "includes": ([], [f"include '{tmp_path}/b.gin'"]), "binding": ([], [text]),
    }[where]  # fmt: skip
    place = "--ginb" if where == "binding" else str(tmp_path / "a.gin")
    with pytest.raises(UserError, match=f"^{place}, line 1: '{text.splitlines()[0]}' runs code.*--allow-imports"):
        parse([str(path) for path in files], bindings)
    assert not hostile.exists() and not gin.config_str()


def test_imports_work_with_leave(hostile, tmp_path):
    (tmp_path / "a.gin").write_text("import hostile")
    parse([str(tmp_path / "a.gin")], [], allow_imports=True)
    assert hostile.exists()


def test_the_flag_gives_leave_on_the_command_line(hostile, tmp_path, capsys):
    (tmp_path / "a.gin").write_text("import hostile\nrun.task = 'verify'\nverify.none = 1")
    assert entry.main(["verify", "--ginc", str(tmp_path / "a.gin")]) == 2
    assert "--allow-imports" in capsys.readouterr().err and not hostile.exists()
    assert entry.main(["verify", "--ginc", str(tmp_path / "a.gin"), "--allow-imports"]) == 2
    assert "no parameter 'none'" in capsys.readouterr().err and hostile.exists()


def test_a_project_config_may_import_but_a_link_to_elsewhere_may_not(tmp_path, monkeypatch):
    (tmp_path / "project/configs").mkdir(parents=True)
    monkeypatch.setattr("utils.config_text.PROJECT", tmp_path / "project")
    own, other = tmp_path / "project/configs/own.gin", tmp_path / "other.gin"
    for path in (own, other):
        path.write_text("import json")
    link = own.with_name("link.gin")
    link.symlink_to(other)
    check_configs([own], [])
    with pytest.raises(UserError, match="link.gin, line 1: 'import json'"):
        check_configs([link], [])


def test_none_of_the_projects_configs_imports():
    for path in (PROJECT / "configs").rglob("*.gin"):
        assert "import" not in [line.split()[0] for line in path.read_text().splitlines() if line.split()], path
