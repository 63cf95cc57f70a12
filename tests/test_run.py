"""The command line: what is wrong is said in one sentence before any work starts."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import gin
import pytest

import run as entry
from tests.all_tasks import import_tasks
from utils import running
from utils.catalog import Catalog
from utils.config import parse, resolved_parameters
from utils.errors import UserError
from utils.locks import check_unlocked, lock, lock_file
from utils.outputs import MAKE
from utils.parameters import parameters_of
from utils.plans import Item, Plan
from utils.tasks import _TASKS, task

ROOMS = ("utils", "lib", "dataloader", "model", "enet", "analysis")
ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.gin"))


@task("A task for tests.", inputs=("source",), records="{output_dir}")
def probe(source=gin.REQUIRED, output_dir=gin.REQUIRED, steps=3):
    """Counts.

    Args:
        source: an input folder
            that exists.
        output_dir: where records go.
        steps: how many.
    """
    return Plan(lambda: {"steps": steps, "source": source}, [Item("probe", Path(output_dir), MAKE, f"{steps} steps")])


@pytest.fixture(autouse=True)
def probe_task(monkeypatch):
    """The probe stands among the tasks."""
    monkeypatch.setitem(entry.TASK_MODULES, "probe", __name__)


def call(capsys, *arguments):
    code = entry.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def config(tmp_path, text):
    (tmp_path / "test.gin").write_text(text)
    return str(tmp_path / "test.gin")


def test_help_lists_every_task_with_one_line(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for name in entry.TASK_MODULES:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in out.splitlines()), name


@pytest.mark.parametrize("name", [name for name in entry.TASK_MODULES if name != "probe"])
def test_task_help_explains_every_parameter(capsys, name):
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    task = import_tasks()[name]
    sections = out.split("\n\n  ")
    for configurable, section in zip((task.plan, *task.configures), sections[1:], strict=True):
        assert section.startswith(configurable.__name__)
        for parameter in parameters_of(configurable):
            assert parameter.meaning, f"{configurable.__name__}.{parameter.name} has no meaning in its docstring"
            assert f"\n    {parameter.name}  ({'REQUIRED' if parameter.required else 'default'}" in section


def test_what_the_sources_say_is_what_importing_gives():
    tasks, entries = import_tasks(), Catalog().entries
    registered = {
        selector.rpartition(".")[2]: found.wrapped for selector, found in gin.config._REGISTRY.items()
        if found.wrapped.__module__.split(".")[0] in ROOMS
    }  # fmt: skip
    assert entries.keys() == registered.keys()
    for name, wrapped in registered.items():
        assert entries[name].module == wrapped.__module__
        assert repr(entries[name].parameters) == repr(tuple(parameters_of(wrapped))), name
    for name, imported in tasks.items():
        if name != "probe":
            assert entries[name].summary == imported.summary
            assert entries[name].groups == tuple(group.__name__ for group in imported.configures)


HELP = {"overview": ["--help"], "task": ["fit", "--help"], "version": ["--version"], "unknown task": ["nonsense"]}


@pytest.mark.parametrize("arguments", HELP.values(), ids=HELP.keys())
def test_help_imports_nothing_that_takes_long(arguments):
    check = f"import sys, run; run.main({arguments}); " \
            "print([m for m in ('torch', 'numpy', 'gin', 'utils.running') if m in sys.modules])"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def completions(line):
    """What the shell offers after ``line``, as argcomplete's scripts ask."""
    pytest.importorskip("argcomplete")
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("r") as answer:
        environment["_ARGCOMPLETE_STDOUT_FILENAME"] = answer.name
        result = subprocess.run([sys.executable, "run.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return [word.strip() for word in answer.read().split("\n") if word.strip()]


def test_the_shell_completes_tasks_options_and_bindings():
    assert completions("run.py re") == ["render", "report"]
    assert "--dry-run" in completions("run.py fit --d")
    assert "fit.device =" in [word.strip("'\"") for word in completions("run.py fit --ginb 'fit.")]
    assert [word for word in completions("run.py train --ginb 'TRAIN") if "TRAIN_SCENES" in word]


def test_version_is_that_of_the_project(capsys):
    code, out, _ = call(capsys, "--version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert code == 0 and out.split()[-1] == version


def test_a_task_imports_only_what_its_config_names(tmp_path):
    check = "import sys, run; run.main(['verify', '--ginb', \"SCANS = 'none'\"]); " \
            "print([m for m in ('enet', 'analysis', 'model.task_fit') if m in sys.modules])"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_verbose_logs_in_detail(capsys, tmp_path):
    path = config(tmp_path, f"probe.source = '.'\nprobe.output_dir = '{tmp_path}/out'")
    assert call(capsys, "probe", "--ginc", path, "-v")[0] == 0
    assert logging.getLogger().level == logging.DEBUG
    gin.clear_config()
    assert call(capsys, "probe", "--ginc", path)[0] == 0
    assert logging.getLogger().level == logging.INFO


def test_docstring_continuation_lines_are_joined():
    assert parameters_of(probe)[0].meaning == "an input folder that exists."
    assert [parameter.required for parameter in parameters_of(probe)] == [True, True, False]


@pytest.mark.parametrize("path", CONFIGS)
def test_every_config_parses_strictly(path):
    import_tasks()
    parse([str(ROOT / path)], [])


STAGES = {name: f"configs/stage/{name}.gin" for name in entry.TASK_MODULES if name != "probe"}
USER_MUST_SET = {"view": "view.scene = 'scene0000_00'", "divide": "divide.scan = 'scans/scene0000_00'"}
ADDED = [path for path in CONFIGS if Path(path).parent.name in ("smoke", "data")]
# What the scripts run: a task's own config, the novel views' or a row's where there is one, and then the data's.
RUNS = [(task, (stage, *added)) for task, stage in STAGES.items() for added in ((), *((path,) for path in ADDED))]
RUNS += [
    (task, (STAGES[task], "configs/stage/novel_views.gin", path)) for task in ("render", "annotate") for path in ADDED
]
RUNS += [
    (task, (row, path)) for task in ("train", "test") for row in CONFIGS if row.startswith("configs/exp/")
    for path in ADDED
]  # fmt: skip


@pytest.mark.parametrize(("name", "paths"), RUNS, ids=lambda value: value if isinstance(value, str) else "+".join(
    Path(path).stem for path in value))  # fmt: skip
def test_every_parameter_of_what_the_scripts_run_resolves(name, paths):
    task = import_tasks()[name]
    bindings = [USER_MUST_SET[name]] if name in USER_MUST_SET else []
    parse([str(ROOT / path) for path in paths], [f"run.task = '{name}'", *bindings])
    for configurable in (task.plan, *task.configures):
        resolved_parameters(configurable)


@pytest.mark.parametrize("name", USER_MUST_SET)
def test_what_only_the_user_can_know_must_be_set(name):
    task = import_tasks()[name]
    parse([str(ROOT / STAGES[name])], [])
    with pytest.raises(UserError, match="must be set"):
        resolved_parameters(task.plan)


def test_every_task_has_a_stage_config_that_names_it(capsys):
    for name in entry.TASK_MODULES:
        if name != "probe":
            assert f"run.task = '{name}'" in (ROOT / "configs" / "stage" / f"{name}.gin").read_text()


MISTAKES = {
    "unknown configurable": ("nonsense.x = 1", "nonsense"),
    "unknown parameter": ("probe.stepps = 1", "no parameter 'stepps'"),
    "undefined macro": ("probe.steps = %STEPS", "macro %STEPS"),
    "required through a macro": ("STEPS = %gin.REQUIRED\nprobe.steps = %STEPS", "STEPS"),
    "tokenizer error": ("probe.steps = (1,\n", "syntax error"),
    "bad literal": ("probe.steps = = 3", "syntax error"),
    "deep brackets": ("probe.steps = " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
    "unset required value": ("probe.source = '.'", "probe.output_dir must be set"),
    "unknown log level": ("run.log_level = 'LOUD'\nprobe.source = '.'\nprobe.output_dir = 'x'", "'LOUD' is unknown"),
    "missing path": ("probe.source = 'no/such'\nprobe.output_dir = 'x'", "'no/such' does not exist"),
}


@pytest.mark.parametrize("text, expected", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_sentence(capsys, tmp_path, text, expected):
    code, _, err = call(capsys, "probe", "--ginc", config(tmp_path, text))
    message = err.strip().splitlines()
    assert code == 2 and len(message) == 1 and message[0].startswith("error: ")
    assert expected in message[0]


@pytest.mark.parametrize("content, expected", [(b"\xff\xfe\0", "cannot be read as a config"),
                                               (b"include '{path}'", "is nested too deeply, or includes itself")])
def test_files_that_are_no_configs_are_named(capsys, tmp_path, content, expected):
    path = tmp_path / "broken.gin"
    path.write_bytes(content.replace(b"{path}", str(path).encode()))
    code, _, err = call(capsys, "probe", "--ginc", str(path))
    assert code == 2 and err.count("\n") == 1 and "broken.gin" in err and expected in err


def test_mistakes_on_the_command_line(capsys, tmp_path):
    assert call(capsys)[0] == 2
    code, _, err = call(capsys, "nonsense")
    assert code == 2 and "'nonsense' is unknown; the tasks are synthesize" in err
    code, _, err = call(capsys, "probe", "--ginc", "none.gin")
    assert code == 2 and "'none.gin' does not exist" in err


def test_run_writes_config_operative_config_and_metrics(capsys, tmp_path):
    path = config(tmp_path, "run.task = 'probe'\nprobe.source = '.'\nprobe.steps = 5")
    out = tmp_path / "out"
    code, *_ = call(capsys, "--ginb", f"probe.output_dir = '{out}'", "--ginc", path, "--ginb", "probe.steps = 7")
    assert code == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == 7
    assert "probe.steps = 7" in (out / "operative_config.gin").read_text()
    gin.clear_config()
    assert call(capsys, "--ginc", str(out / "config.gin"))[0] == 0, "the recorded config runs by itself"
    assert [record["task"] for record in json.loads((out / "run.json").read_text())] == ["probe", "probe"]


def test_dry_run_checks_and_writes_nothing(capsys, tmp_path):
    path = config(tmp_path, f"probe.source = '.'\nprobe.output_dir = '{tmp_path}/out'")
    code, out, _ = call(capsys, "probe", "--ginc", path, "--dry-run")
    assert code == 0 and "probe.steps = 3" in out
    assert not (tmp_path / "out").exists()
    gin.clear_config()
    code, _, err = call(capsys, "probe", "--ginc", path, "--dry-run", "--ginb", "probe.source = 'gone'")
    assert code == 2 and "gone" in err


def test_paths_follow_from_data_and_work(capsys, tmp_path):
    text = "include 'configs/base.gin'\nprobe.source = '.'\nprobe.output_dir = %NOVEL_VIEWS"
    code, out, _ = call(capsys, "probe", "--ginc", config(tmp_path, text), "--ginb", "WORK = 'w'", "--dry-run")
    assert code == 0 and "probe.output_dir = 'w/views/novel'" in out


def test_home_is_expanded_in_paths_and_macros(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    config(tmp_path, "include 'configs/base.gin'\nprobe.source = ['~/here', '~']\nprobe.output_dir = %NOVEL_VIEWS")
    assert call(capsys, "probe", "--ginc", "~/test.gin", "--ginb", "WORK = '~/w'")[0] == 0
    metrics = json.loads((tmp_path / "w/views/novel/metrics.json").read_text())
    assert metrics == {"steps": 3, "source": [f"{tmp_path}/here", str(tmp_path)]}


def test_relative_paths_are_those_of_where_the_user_stands(capsys, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    config(tmp_path, "probe.source = 'here'\nprobe.output_dir = 'out'")
    assert call(capsys, "probe", "--ginc", "test.gin")[0] == 0
    assert (tmp_path / "out" / "metrics.json").is_file()


@pytest.fixture
def another_project(tmp_path, monkeypatch):
    """Stands in a folder that has configs of the same names, none of which can be read."""
    for name in CONFIGS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not ours")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_task_takes_the_projects_configs_whatever_is_where_the_user_stands(capsys, another_project):
    code, _, err = call(capsys, "analyze", "--dry-run")
    assert code == 2 and "'outputs/views/original' does not exist" in err


def test_a_users_config_comes_before_the_projects_and_includes_those(another_project):
    import_tasks()
    (another_project / "configs/stage/verify.gin").unlink()
    parse(["configs/stage/verify.gin"], [])
    assert gin.query_parameter("verify.min_frames") == 20
    gin.clear_config()
    config(another_project / "configs", "include 'configs/stage/verify.gin'\nverify.min_frames = 7")
    parse(["configs/test.gin"], [])
    assert gin.query_parameter("verify.min_frames") == 7 and gin.query_parameter("verify.read_images") is True
    with pytest.raises(UserError, match="'configs/none.gin' does not exist"):
        parse(["configs/none.gin"], [])
    with pytest.raises(UserError, match="'stage/verify.gin' does not exist"):
        parse(["stage/verify.gin"], [])


def test_works_from_any_folder_without_imports_of_heavy_packages(tmp_path):
    check = "import sys; sys.path.insert(0, sys.argv[1]); from tests.all_tasks import import_tasks; import_tasks(); " \
            "print([m for m in ('pytorch_lightning', 'matplotlib', 'viser', 'optuna') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", check, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_run_with_its_own_code_and_how_to_go_on(
    capsys, tmp_path, monkeypatch, heard_signals, name, code
):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def work():
        lock(tmp_path / "out" / "scene")
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)

    task = import_tasks()["probe"]
    monkeypatch.setitem(_TASKS, "probe", dataclasses.replace(task, plan=lambda: Plan(work)))
    path = config(tmp_path, f"probe.source = '.'\nprobe.output_dir = '{tmp_path}/out'")
    monkeypatch.setattr(running, "resolved_parameters", lambda group: {"source": ".", "output_dir": f"{tmp_path}/out"})
    stopped, _, err = call(capsys, "probe", "--ginc", path)
    assert stopped == code and err.strip() == (
        f"stopped by {name}; what is finished stays, and the same command with --resume continues from here"
    )
    assert {each: signal.getsignal(each) for each in before} == before
    check_unlocked(tmp_path / "out" / "scene")
    assert not lock_file(tmp_path / "out" / "scene").exists()
