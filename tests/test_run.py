"""The command line: what is wrong is said in one sentence before any work starts."""

import json
import subprocess
import sys
from pathlib import Path

import gin
import pytest

import run as entry
from utils.tasks import parameters_of, task

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
    return {"steps": steps, "source": source}


@pytest.fixture(autouse=True)
def clean_gin(monkeypatch):
    """A fresh gin config, and the probe among the tasks."""
    monkeypatch.setitem(entry.TASK_MODULES, "probe", __name__)
    gin.clear_config()
    yield
    gin.clear_config()


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
    task = entry.get_task(name)
    for configurable in (task.function, *task.configures):
        for parameter in parameters_of(configurable):
            assert parameter.meaning, f"{configurable.__name__}.{parameter.name} has no meaning in its docstring"
            assert parameter.name in out


def test_docstring_continuation_lines_are_joined():
    assert parameters_of(probe)[0].meaning == "an input folder that exists."
    assert [parameter.required for parameter in parameters_of(probe)] == [True, True, False]


@pytest.mark.parametrize("path", CONFIGS)
def test_every_config_parses_strictly(path):
    entry._import_tasks()
    gin.add_config_file_search_path(str(ROOT))
    entry.parse([str(ROOT / path)], [])


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


def test_mistakes_on_the_command_line(capsys, tmp_path):
    assert call(capsys)[0] == 2
    code, _, err = call(capsys, "nonsense")
    assert code == 2 and "'nonsense' is unknown; the tasks are synthesize" in err
    code, _, err = call(capsys, "probe", "--ginc", "none.gin")
    assert code == 2 and "none.gin does not exist" in err


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


def test_works_from_any_folder_without_imports_of_heavy_packages(tmp_path):
    check = "import sys; sys.path.insert(0, sys.argv[1]); import run; run._import_tasks(); " \
            "print([m for m in ('pytorch_lightning', 'matplotlib', 'viser', 'optuna') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", check, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
