"""The search tries bindings, keeps its study, resumes, and writes the best; its trials are trainings of their own."""

import contextlib
import errno
import itertools
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="needs optuna")

import enet.search  # noqa: E402
import run as entry  # noqa: E402
from enet.search import Search, run_search  # noqa: E402
from utils.cores import usable_cores  # noqa: E402
from utils.disk import disk_refusal  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.files import read_json, write_json  # noqa: E402
from utils.paths import PROJECT  # noqa: E402
from utils.plans import FAILED  # noqa: E402
from utils.run_state import set_imports_allowed  # noqa: E402

SPACE = {"OptimizerOptions.learning_rate": ("log", 1e-4, 1e-1), "LossOptions.class_weights": ("choice", "enet", "none")}


@pytest.fixture
def trainings(monkeypatch):
    """Replaces the training process by one whose score is the learning rate; the commands it was started with."""
    commands: list[dict[str, str]] = []

    def call(self, command):
        bound = dict(entry.split(" = ", 1) for before, entry in itertools.pairwise(command) if before == "--ginb")
        commands.append(bound)
        rate = float(bound["OptimizerOptions.learning_rate"])
        if rate > 5e-2:
            return 2, "error: diverged"
        folder = f"{bound['train.runs_dir'][1:-1]}/{bound['train.name'][1:-1]}"
        write_json(f"{folder}/metrics.json", {"validation": {"mean_iou": rate}})
        return 0, ""

    monkeypatch.setattr("enet.search._Trainings._call", call)
    return commands


def test_goes_on_where_it_stopped(trainings, tmp_path):
    first = run_search(Search(tmp_path, "# config\n", SPACE, trials=3, jobs=1, seed=0))
    assert len(first["trials"]) + first["failed_trials"] == 3 == len(trainings)
    assert trainings[0]["train.name"] == "'trial_0000'"
    second = run_search(Search(tmp_path, "# config\n", SPACE, trials=6, jobs=2, seed=0))
    assert len(second["trials"]) + second["failed_trials"] == 6 == len(trainings)
    assert second["best_mean_iou"] == max(trial["mean_iou"] for trial in second["trials"])
    best = (tmp_path / "best.gin").read_text()
    assert f"OptimizerOptions.learning_rate = {second['best']['OptimizerOptions.learning_rate']!r}" in best
    assert run_search(Search(tmp_path, "# config\n", SPACE, trials=6, jobs=1, seed=0)) == second
    assert len(trainings) == 6


@pytest.mark.parametrize(
    "code, said",
    [(2, f"error: {disk_refusal(OSError(errno.ENOSPC, 'No space left on device', 'W/last.ckpt'))}"),
     (143, "stopped by SIGTERM; what is finished stays"), (-1, "stopped")],
)  # fmt: skip
def test_a_trial_that_was_not_let_finish_goes_on(trainings, tmp_path, monkeypatch, code, said):
    """A full disk and a signal say nothing about the bindings; counted as failures, they would decide the search."""
    expected = run_search(Search(tmp_path / "whole", "", SPACE, trials=4, jobs=1, seed=3))
    call, count = enet.search._Trainings._call, len(trainings)
    with monkeypatch.context() as patched:
        patched.setattr("enet.search._Trainings._call", lambda self, command: (
            call(self, command) if len(trainings) < count + 2 else (code, said)))  # fmt: skip
        with pytest.raises(UserError, match="trial_0002.*(No space left|stopped)"):
            run_search(Search(tmp_path / "stopped", "", SPACE, trials=4, jobs=1, seed=3))
    assert run_search(Search(tmp_path / "stopped", "", SPACE, trials=4, jobs=1, seed=3)) == expected


def test_failed_trials_do_not_make_the_command_fail(tmp_path, monkeypatch, trainings):
    """`failed` in a task's metrics are scenes; once a search with a failed trial ended in a TypeError."""
    scores = iter([(2, "error: diverged"), None])
    call = enet.search._Trainings._call
    monkeypatch.setattr("enet.search._Trainings._call", lambda self, command: next(scores) or call(self, command))
    space = {"OptimizerOptions.learning_rate": ("choice", 1e-3, 2e-3)}
    metrics = run_search(Search(tmp_path, "", space, trials=2, jobs=1, seed=0))
    assert metrics["failed_trials"] == 1 and FAILED not in metrics


@pytest.mark.parametrize("allowed", [False, True])
def test_trials_may_import_what_the_search_may(tmp_path, monkeypatch, allowed):
    commands = []
    monkeypatch.setattr("enet.search._Trainings._call", lambda self, command: (commands.append(command), (2, ""))[1])
    set_imports_allowed(allowed)
    try:
        with pytest.raises(UserError, match="no trial"):
            run_search(Search(tmp_path, "", SPACE, trials=1, jobs=1, seed=0))
    finally:
        set_imports_allowed(False)
    assert ("--allow-imports" in commands[0]) is allowed


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed", [0, 3, 11])
def test_a_killed_search_ends_as_one_that_was_not(trainings, tmp_path, monkeypatch, killed):
    """After ten trials the sampler looks at scores: a repeated or forgotten trial would show in the later ones."""
    expected = run_search(Search(tmp_path / "whole", "", SPACE, trials=14, jobs=1, seed=3))
    call, whole = enet.search._Trainings._call, list(trainings)

    def kill(self, command):
        if len(trainings) == len(whole) + killed:
            raise Killed
        return call(self, command)

    with monkeypatch.context() as patched:
        patched.setattr("enet.search._Trainings._call", kill)
        with pytest.raises(Killed):
            run_search(Search(tmp_path / "killed", "", SPACE, trials=14, jobs=1, seed=3))
    again = run_search(Search(tmp_path / "killed", "", SPACE, trials=14, jobs=1, seed=3))
    assert again == expected and len(trainings) == 2 * len(whole)


def test_a_study_is_of_one_search(trainings, tmp_path):
    run_search(Search(tmp_path, "", SPACE, 3, 1, seed=0, training={"train.epochs": 3}))
    for change in ({"seed": 1}, {"space": {"train.epochs": ("int", 1, 2)}}, {"training": {"train.epochs": 4}}):
        with pytest.raises(UserError, match="holds a search with other settings"):
            run_search(Search(tmp_path, "", **{"space": SPACE, "trials": 2, "jobs": 1, "seed": 0,
                                               "training": {"train.epochs": 3}, **change}))  # fmt: skip


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 200)
    with pytest.raises(UserError, match="study.db cannot be used .*malformed|study.db cannot be used .*not a database"):
        run_search(Search(tmp_path, "", SPACE, 1, 1, 0))


def _study(path, parameter="OptimizerOptions.learning_rate", score=0.5, direction="maximize"):
    study = optuna.create_study(study_name="search", storage=f"sqlite:///{path}", direction=direction)
    trial = study.ask()
    trial.suggest_float(parameter, 1e-4, 1e-1, log=True)
    study.tell(trial, score)


@pytest.mark.parametrize(
    ("study", "statement", "message"),
    [
        ({"parameter": "x.y = 1\nimport antigravity\nrun.task"}, None, "trial 0 has the parameters"),
        ({"score": float("inf")}, None, "trial 0 has the score inf"), ({"direction": "minimize"}, None, "to minimize"),
        ({}, "update trial_params set distribution_json='{\"name\": \"Evil\", \"attributes\": {}}'", "Evil"),
    ],
)
def test_a_study_of_something_else_becomes_no_config(trainings, tmp_path, study, statement, message):
    _study(tmp_path / "study.db", **study)
    if statement is not None:
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
            database.execute(statement)
    with pytest.raises(UserError, match=f"study.db cannot be read as the study of a search .*{message}.*new search"):
        run_search(Search(tmp_path, "", SPACE, 2, 1, 0))
    assert not (tmp_path / "best.gin").exists() and not trainings


def test_trials_end_with_the_search_however_that_ends(tmp_path):
    """SIGKILL of the search leaves no training behind."""
    child = ("import time; from utils.interrupts import obey_parent; obey_parent(); print('ready', flush=True); "
             "time.sleep(600)")  # fmt: skip
    parent = ("import os, subprocess, sys; from utils.interrupts import end_with_this_process as end; "
              "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE, text=True, "
              "env={**os.environ, **end()}); child.stdout.readline(); print(child.pid, flush=True); child.wait()")
    process = subprocess.Popen(
        [sys.executable, "-c", parent, child], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_trials_train_from_the_folder_that_the_user_stands_in(views, tmp_path, monkeypatch):
    """Nothing is replaced here: two trials at a time, in processes that share the cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    bindings = [
        "WORK = 'work'", f"train.views = ['{views.relative_to(tmp_path)}']", "DEVICE = 'cpu'", "train.epochs = 1",
        "train.batch_size = 8", "TRAIN_SCENES = ['scene0000_00']", "VAL_SCENES = ['scene0002_00']",
        "TEST_SCENES = ['scene0003_00']", "search.trials = 2", "search.jobs = 2",
        "search.space = {'OptimizerOptions.learning_rate': ('log', 1e-4, 1e-2)}",
    ]  # fmt: skip
    code = entry.main(["search", *(part for binding in bindings for part in ("--ginb", binding))])
    metrics = read_json("work/search/metrics.json")
    assert code == 0 and len(metrics["trials"]) == 2 and metrics["failed_trials"] == 0
    for trial in metrics["trials"]:
        folder = tmp_path / f"work/search/trials/trial_{trial['number']:04d}"
        assert f"OptimizerOptions.learning_rate = {trial['OptimizerOptions.learning_rate']!r}" in (
            folder / "operative_config.gin").read_text()  # fmt: skip
        assert read_json(folder / "metrics.json")["validation"]["mean_iou"] == trial["mean_iou"]
        assert [record["threads"] for record in read_json(folder / "run.json")] == [max(1, usable_cores() // 2)]


def test_refuses_a_space_it_does_not_understand(tmp_path):
    for space in ({}, {"train.epochs": ("grid", 1, 2)}, {"train.epochs": ("int", 1)}):
        with pytest.raises(UserError, match="search.space"):
            Search(tmp_path, "", space, trials=1, jobs=1, seed=0)
