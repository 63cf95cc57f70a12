"""One process writes an output at a time, and whoever comes second learns who does."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from utils.errors import UserError
from utils.locks import check_unlocked, lock, lock_file, locked, set_patience, unlock

ROOT = Path(__file__).resolve().parents[2]
HOLD = "import sys; from utils.locks import lock; lock(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of ``out`` until it is told to end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_writer_is_refused_and_told_who_the_first_is(tmp_path, other):
    for attempt in (lock, check_unlocked):
        with pytest.raises(UserError, match=f"out is being written by process {other.pid} on .* since 20"):
            attempt(tmp_path / "out")
    lock(tmp_path / "beside")
    unlock(tmp_path / "beside")


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, other):
    other.kill()
    other.communicate()
    check_unlocked(tmp_path / "out")
    lock(tmp_path / "out")
    unlock(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_holder_may_lock_again_and_leaves_no_file(tmp_path):
    with locked(tmp_path / "out"):
        lock(tmp_path / "out")
        with locked(tmp_path / "out"):
            check_unlocked(tmp_path / "out")
        assert lock_file(tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_has_none_of_its_parents_locks(tmp_path):
    lock(tmp_path / "out")
    child = os.fork()
    if not child:
        try:
            unlock(tmp_path / "out")  # must not take the parent's lock away
            lock(tmp_path / "out")
        except UserError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert lock_file(tmp_path / "out").exists()
    unlock(tmp_path / "out")


def test_a_patient_process_waits_until_the_holder_is_gone(tmp_path, other):
    set_patience(600.0)
    try:
        Timer(0.5, other.kill).start()
        lock(tmp_path / "out")
        assert other.wait() == -signal.SIGKILL
    finally:
        set_patience(0.0)
        unlock(tmp_path / "out")
