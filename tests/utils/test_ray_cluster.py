"""Scenes on a cluster of two machines (two nodes of Ray on this one): what is killed is done again, and once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.utils.ray_program import SCENES, notes
from utils.paths import PROJECT

pytest.importorskip("ray", reason="needs ray")
LIMIT = 300  # seconds for what takes few, on a machine that others use too


@pytest.fixture
def cluster():
    """A head without cores; tests add the nodes that work."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def drive(cluster, folder: Path, *bindings: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.utils.ray_program", cluster.address, str(folder), *bindings]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(driver: subprocess.Popen) -> tuple[dict, str]:
    output, errors = driver.communicate(timeout=LIMIT)
    assert driver.returncode == 0, errors
    return json.loads(output.splitlines()[-1]), errors


def wait_for(condition) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check_finished_once(folder: Path) -> None:
    assert sorted(notes(folder / "finishes")) == [[name] for name in SCENES]
    assert sorted(path.name for path in (folder / "out").iterdir() if not path.name.startswith(".")) == SCENES
    for name in SCENES:
        assert (folder / "out" / name / "second").read_text() == name


def test_a_machine_that_is_killed_costs_its_scenes_another_try(cluster, tmp_path):
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    (tmp_path / "hold").touch()
    driver = drive(cluster, tmp_path)
    wait_for(lambda: len({start[2] for start in notes(tmp_path / "starts")}) == 2)
    first = notes(tmp_path / "starts")
    cluster.remove_node(nodes[1], allow_graceful=False)
    lost, process = next((name, int(process)) for name, process, node, *_ in first if node == nodes[1].node_id)
    kill(process)  # with the machine
    (tmp_path / "hold").unlink()
    made, log = results(driver)
    assert made == dict.fromkeys(SCENES, "made")
    check_finished_once(tmp_path)
    starts = [name for name, *_ in notes(tmp_path / "starts")]
    assert sorted(starts) == sorted([*SCENES, lost])
    assert f"{lost}: its worker died" in log and "it is tried again" in log and "stage: 6/6" in log


def test_a_driver_that_is_killed_leaves_nobody_at_work_and_nothing_that_counts(cluster, tmp_path):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    (tmp_path / "hold").touch()
    driver = drive(cluster, tmp_path)
    wait_for(lambda: len(notes(tmp_path / "starts")) == 2)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    workers = [int(process) for _, process, *_ in notes(tmp_path / "starts")]
    wait_for(lambda: not any(is_alive(process) for process in workers))
    assert not any((tmp_path / "out" / name).exists() for name in SCENES) and not notes(tmp_path / "finishes")
    (tmp_path / "hold").unlink()
    made, _ = results(drive(cluster, tmp_path))
    assert made == dict.fromkeys(SCENES, "made")
    check_finished_once(tmp_path)
    made, _ = results(drive(cluster, tmp_path))
    assert made == dict.fromkeys(SCENES, "was there")
    check_finished_once(tmp_path)


def test_two_scenes_share_a_gpu(cluster, tmp_path):
    cluster.add_node(num_cpus=2, num_gpus=1)
    (tmp_path / "hold").touch()
    driver = drive(cluster, tmp_path, "SceneWorkers.gpus = 0.5")
    wait_for(lambda: len(notes(tmp_path / "starts")) == 2)  # both at once, though there is one GPU
    (tmp_path / "hold").unlink()
    assert results(driver)[0] == dict.fromkeys(SCENES, "made")
    assert {tuple(gpus) for _, _, _, *gpus in notes(tmp_path / "starts")} == {("0",)}
    check_finished_once(tmp_path)


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
