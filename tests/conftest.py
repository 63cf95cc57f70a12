"""Fixtures that several rooms' tests share."""

import os
import signal
from pathlib import Path

import gin
import hypothesis
import pytest

from utils.cores import environment_of_each
from utils.run_state import set_resume

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before anything imports PyTorch
    os.environ.update(environment_of_each(int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))

# The same examples on every machine; HYPOTHESIS_PROFILE=default draws new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test draws the same numbers, whichever ran before it in its process."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def plain_config():
    """Every test begins with an empty gin config and leaves one, however it ends; names stay registered."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the golden files and the real capture; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SSIR_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"reference data is absent ({folder}); set SSIR_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def heard_signals():
    """Also where a shell started the tests in the background, or nohup, so that they began by ignoring some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def resume():
    """Behave as if --resume had been given."""
    set_resume(True)
    yield
    set_resume(False)
