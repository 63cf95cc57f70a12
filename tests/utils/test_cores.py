"""How a process shares its machine: what stands when PyTorch is loaded, whoever loads it, and users' last word."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils import cores
from utils.cores import control_group_quota, environment_of, environment_of_each, share_machine, usable_cores

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "SSIR_OMP_NUM_THREADS",
            "PYTEST_XDIST_WORKER_COUNT")  # fmt: skip
TELL_WHEN_PYTORCH_COMES = """
import importlib, os, sys
class Tell:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            print(*(os.environ.get(setting) for setting in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Tell)
importlib.import_module(sys.argv[1])
import torch
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process that inherits none of the settings."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run([sys.executable, "-c", code, *arguments], env={**clean, **environment}, cwd=ROOT,
                          capture_output=True, text=True, check=True)  # fmt: skip


@pytest.mark.parametrize("first", ["run", "lib.plenoxel.ops", "lib.raster", "dataloader.view_store", "model",
                                   "enet.metrics", "analysis.domes", "tests.conftest"])  # fmt: skip
def test_whatever_is_imported_first_waiting_is_set_before_pytorch_is_loaded(first):
    assert run_python(TELL_WHEN_PYTORCH_COMES, first).stdout == "PASSIVE None\n"


def test_the_test_commands_workers_share_the_cores():
    workers = str(2 * usable_cores())
    told = run_python(TELL_WHEN_PYTORCH_COMES, "tests.conftest", PYTEST_XDIST_WORKER_COUNT=workers)
    assert told.stdout == "PASSIVE 1\n"
    told = run_python(TELL_WHEN_PYTORCH_COMES, "tests.conftest", PYTEST_XDIST_WORKER_COUNT="2", OMP_NUM_THREADS="5")
    assert told.stdout == "PASSIVE 5\n"


def test_openmp_hears_it():
    code = "import model, sys, torch; print(torch.get_num_threads())"
    result = run_python(code, OMP_DISPLAY_ENV="VERBOSE")
    if "OMP_WAIT_POLICY" not in result.stderr:
        pytest.skip("this PyTorch's OpenMP library does not show its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in result.stderr
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in run_python(
        code, OMP_DISPLAY_ENV="VERBOSE", OMP_WAIT_POLICY="ACTIVE").stderr  # fmt: skip


@pytest.mark.parametrize("setting", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_says_of_waiting_is_all_that_is_said(setting):
    environment = {setting: "7"}
    share_machine(environment)
    assert environment == {setting: "7"}


@pytest.fixture
def machine(monkeypatch):
    """``machine(cores, quota)`` pretends to be on one."""

    def pretend(affinity: int, quota: float = math.inf) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)))
        monkeypatch.setattr(cores, "control_group_quota", lambda: quota)

    return pretend


def test_a_quota_limits_the_threads_but_not_the_users(machine):
    machine(64, 2.5)
    assert usable_cores() == 3
    environment: dict[str, str] = {}
    share_machine(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
    environment = {"OMP_NUM_THREADS": "64"}
    share_machine(environment)
    assert environment["OMP_NUM_THREADS"] == "64"
    machine(2, 8.0)
    environment = {}
    share_machine(environment)
    assert "OMP_NUM_THREADS" not in environment  # OpenMP counts the two by itself


@pytest.mark.parametrize(("affinity", "processes", "threads"), [(2, 2, "1"), (2, 5, "1"), (16, 3, "5"), (16, 16, "1")])
def test_processes_share_the_cores(machine, monkeypatch, affinity, processes, threads):
    machine(affinity)
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    assert environment_of_each(processes)["OMP_NUM_THREADS"] == threads
    assert environment_of_each(1) == {}


def test_what_this_project_chose_is_shared_again_and_what_the_user_chose_is_not(machine):
    machine(16, 8.0)
    chosen: dict[str, str] = {}
    share_machine(chosen)
    share = environment_of(4, chosen)
    assert share == {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "4", "SSIR_OMP_NUM_THREADS": "4"}
    child = {**chosen, **share}
    share_machine(child)  # as the child does when it starts
    assert child == {**chosen, **share}
    assert environment_of(2, child)["OMP_NUM_THREADS"] == "2"  # a grandchild
    assert environment_of(4, {"OMP_NUM_THREADS": "8"}) == {"OMP_NUM_THREADS": "8"}


def control_group(folder: Path, files: dict[str, str], groups: str) -> float:
    for name, text in files.items():
        (folder / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "mounted" / name).write_text(text)
    (folder / "groups").write_text(groups)
    return control_group_quota(folder / "groups", folder / "mounted")


@pytest.mark.parametrize(("files", "groups", "cores_granted"), [
    ({"cpu.max": "250000 100000\n"}, "0::/\n", 2.5),
    ({"cpu.max": "max 100000\n"}, "0::/\n", math.inf),
    ({"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 4.0),
    ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "800000 100000\n"}, "0::/a/b\n", 1.0),
    ({"cpu.max": "150000 50000\n"}, "0::/not/mounted/here\n", 3.0),
    ({"cpu/jobs/cpu.cfs_quota_us": "600000\n", "cpu/jobs/cpu.cfs_period_us": "100000\n"},
     "4:memory:/\n1:cpu,cpuacct:/jobs\n0::/\n", 6.0),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", math.inf),
    ({"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"}, "3:cpuset:/\n", math.inf),
    ({}, "0::/\n", math.inf),
])  # fmt: skip
def test_quota_of_control_groups(tmp_path, files, groups, cores_granted):
    assert control_group(tmp_path, files, groups) == cores_granted


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path):
    assert control_group_quota(tmp_path / "absent", tmp_path) == math.inf
