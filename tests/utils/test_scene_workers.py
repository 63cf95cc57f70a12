"""Scenes on workers give what they give one after the other, with the config of the run."""

import logging
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from unittest.mock import Mock

import gin
import pytest
import torch

from utils.errors import UserError
from utils.paths import PROJECT
from utils.run_state import resume_requested
from utils.scene_workers import SceneWorkers, on_workers
from utils.scenes import for_each_scene


def test_without_ray_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    gin.bind_parameter("SceneWorkers.count", 2)
    gin.bind_parameter("SceneWorkers.address", "local")
    with pytest.raises(UserError, match="pip install ray"):
        for_each_scene(["a"], len, "x")


def test_a_cluster_is_told_how_threads_wait_and_how_many_there_are(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for users, expected in ((None, "3"), ("5", "5")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if users:
            monkeypatch.setenv("OMP_NUM_THREADS", users)
        ray = types.SimpleNamespace(init=Mock(side_effect=ConnectionError("stop here")))
        monkeypatch.setitem(sys.modules, "ray", ray)
        workers = SceneWorkers(count=2, address="auto", cores=3)
        with pytest.raises(UserError, match="stop here"):
            list(on_workers(["a"], len, workers))
        given = ray.init.call_args.kwargs["runtime_env"]["env_vars"]
        assert given["OMP_WAIT_POLICY"] == "PASSIVE" and given["OMP_NUM_THREADS"] == expected


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    ray = types.SimpleNamespace(init=Mock(side_effect=ConnectionError("Could not find any running Ray instance.\nx")))
    monkeypatch.setitem(sys.modules, "ray", ray)
    gin.bind_parameter("SceneWorkers.count", 2)
    gin.bind_parameter("SceneWorkers.address", "auto")
    with pytest.raises(UserError, match=r"SceneWorkers.address = 'auto' \(Could not find any running Ray instance.\)"):
        for_each_scene(["a"], len, "x")


@pytest.mark.parametrize("binding", [{"count": -1}, {"cores": 0}, {"retries": -1}])
def test_numbers_that_cannot_be_are_refused(binding):
    with pytest.raises(UserError, match=f"SceneWorkers.{next(iter(binding))} = "):
        SceneWorkers(**binding)


@pytest.fixture(params=["processes", "ray"])
def two_workers(request):
    """Two at a time; every call of ``for_each_scene`` starts processes, or Ray on this machine, for itself."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="needs ray")
        gin.bind_parameter("SceneWorkers.address", "local")
    gin.bind_parameter("SceneWorkers.count", 2)


def test_results_are_those_of_one_process_in_the_scenes_order(two_workers, resume, tmp_path, monkeypatch):
    import lib.plenoxel.ops  # noqa: F401  (a worker must load the extension before what belongs to it)
    from analysis.domes import DomeOptions

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    gin.bind_parameter("DomeOptions.spread", 0.7)

    def work(name):
        if name == "bad":
            raise UserError("bad is bad")
        return (name, os.getpid(), os.getcwd(), DomeOptions().spread, resume_requested(), logging.getLogger().level,
                torch.get_num_threads(), os.environ["OMP_WAIT_POLICY"])  # fmt: skip

    names = ["c", "bad", "a", "b"]
    results = for_each_scene(names, work, "x", "skip")
    assert list(results) == ["c", "a", "b", "failed"] and results.pop("failed") == {"bad": "bad is bad"}
    for name, (given, process, *state) in results.items():
        assert given == name and process != os.getpid()
        assert state == [str(tmp_path), 0.7, True, logging.ERROR, 1, "PASSIVE"]


def test_the_first_bad_scene_stops_the_run(two_workers, tmp_path):
    def work(name):
        (tmp_path / name).touch()
        raise UserError(f"{name} is bad")

    with pytest.raises(UserError, match="a is bad|b is bad"):
        for_each_scene(["a", "b", "c", "d", "e", "f"], work, "x")
    assert not (tmp_path / "f").exists()


def test_a_worker_that_dies_is_tried_again_and_then_told(two_workers, tmp_path):
    gin.bind_parameter("SceneWorkers.retries", 1)

    def work(name):
        tries = tmp_path / f"{name}{len(list(tmp_path.glob(f'{name}*')))}"
        tries.touch()
        if name == "fatal" or tries.name == "shaky0":
            os._exit(1)
        return name

    results = for_each_scene(["shaky", "fatal"], work, "x", "skip")
    assert results["shaky"] == "shaky" and "its worker died" in results["failed"]["fatal"]
    assert len(list(tmp_path.glob("fatal*"))) in (2, 3)  # once more where it died beside another


def test_mistakes_in_the_program_are_told_with_where_they_are(two_workers):
    with pytest.raises(ZeroDivisionError):
        for_each_scene(["a"], lambda name: 1 / 0, "x")
    failed = for_each_scene(["a", ""], lambda name: 1 / len(name), "x", "skip")["failed"]
    assert list(failed) == [""] and "ZeroDivisionError" in failed[""] and "Traceback" in failed[""]


def test_processes_end_with_the_run_that_started_them(tmp_path):
    """A run that is killed leaves nobody at work."""
    program = (
        "import os, time, pathlib, gin\n"
        "from utils.scenes import for_each_scene\n"
        "def work(name):\n"
        f"    pathlib.Path({str(tmp_path)!r}, name).write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    gin.bind_parameter('SceneWorkers.count', 2)\n"
        "    for_each_scene(['a', 'b'], work, 'x')\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not all((tmp_path / name).exists() for name in "ab"):
        time.sleep(0.1)
    pids = [int((tmp_path / name).read_text()) for name in "ab"]
    run.kill()
    run.wait()
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_more_than_there_is_is_refused():
    pytest.importorskip("ray", reason="needs ray")
    gin.bind_parameter("SceneWorkers.count", 2)
    gin.bind_parameter("SceneWorkers.address", "local")
    gin.bind_parameter("SceneWorkers.gpus", 1000)
    with pytest.raises(UserError, match="a worker needs 1000 GPUs and Ray has"):
        for_each_scene(["a"], len, "x")


@pytest.fixture
def stand_in(monkeypatch):
    """Ray with one worker: ``stand_in.outcomes`` are what its scenes give, or raise, in turn."""
    ray = types.ModuleType("ray")
    ray.exceptions = types.SimpleNamespace(
        RayError=type("RayError", (Exception,), {}), RayTaskError=type("RayTaskError", (Exception,), {}))
    ray.init, ray.shutdown, ray.put = lambda **options: None, lambda: None, lambda value: value
    ray.cluster_resources = lambda: {"CPU": 8}
    ray.outcomes, ray.started = [], []
    ray.asked = {}

    def options(**given):
        ray.asked.update(given)
        return types.SimpleNamespace(remote=lambda function, name, state: ray.started.append(name) or name)

    def get(name):
        outcome = ray.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    ray.remote = lambda function: types.SimpleNamespace(options=options)
    ray.wait = lambda running, timeout: (running[:1], running[1:])
    ray.get = get
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_deaths_are_counted_for_each_scene_and_told(stand_in, caplog):
    died = stand_in.exceptions.RayError("The node died.\nmore")
    stand_in.outcomes = [died, "b made", died, died]
    workers = SceneWorkers(count=1, address="auto", retries=2)
    results = dict(on_workers(["a", "b"], len, workers))
    assert stand_in.started == ["a", "b", "a", "a"] and results["b"] == "b made"  # again after the others
    assert str(results["a"]) == "its worker died (The node died.); give it more memory or cores"
    assert [record.getMessage() for record in caplog.records] == 2 * [
        "a: its worker died (The node died.); it is tried again"]
    assert stand_in.asked["max_retries"] == 0  # which would be further tries, uncounted


def test_a_cluster_without_machines_is_told_and_waited_for(stand_in, caplog):
    looks = iter([({"CPU": 8},), ({},), ({"CPU": 0.0},)])
    stand_in.cluster_resources = lambda: next(looks)[0]
    waits = iter([([], ["a"]), ([], ["a"]), (["a"], [])])
    stand_in.wait = lambda running, timeout: next(waits)
    stand_in.outcomes = ["made"]
    assert list(on_workers(["a"], len, SceneWorkers(count=1, address="auto"))) == [("a", "made")]
    told = "no machine of the cluster is left for 1 scenes; waiting for one"
    assert [record.getMessage() for record in caplog.records] == [told, told]


def test_workers_find_ray_where_the_driver_does(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/site/of/ray")
    ray = types.SimpleNamespace(init=Mock(side_effect=ConnectionError("stop here")))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(UserError, match="stop here"):
        list(on_workers(["a"], len, SceneWorkers(count=1, address="auto")))
    assert ray.init.call_args.kwargs["runtime_env"]["env_vars"]["PYTHONPATH"] == f"{PROJECT}:/site/of/ray"


@pytest.mark.parametrize("given, on_gpu, reserved", [(None, False, 0), (None, True, 1), (0.25, True, 0.25)])
def test_only_what_computes_on_a_gpu_reserves_one(monkeypatch, given, on_gpu, reserved):
    """A stand-in for Ray writes down what is asked for; on a machine with GPUs, fits on CPUs once reserved one each."""
    asked = {}
    ray = types.ModuleType("ray")
    ray.init = lambda **options: None
    ray.shutdown = lambda: None
    ray.cluster_resources = lambda: {"CPU": 8, "GPU": 4}
    ray.remote = lambda function: types.SimpleNamespace(options=lambda **options: asked.update(options))
    ray.put = lambda value: value
    monkeypatch.setitem(sys.modules, "ray", ray)
    workers = SceneWorkers(count=2, address="local", gpus=given)
    assert list(on_workers([], len, workers, on_gpu)) == [] and asked["num_gpus"] == reserved
