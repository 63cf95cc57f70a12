"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest

from utils.cores import environment_of_each
from utils.run_state import set_resume

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before anything imports PyTorch
    os.environ.update(environment_of_each(int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the golden files and the real capture; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SSIR_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"reference data is absent ({folder}); set SSIR_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def resume():
    """Behave as if --resume had been given."""
    set_resume(True)
    yield
    set_resume(False)
