"""What pip is told: an editable install reaches this folder from an empty one, any other is refused in one sentence."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
USE_BACKEND = "import sys; sys.path.insert(0, '.'); import setup; print(setup.{}(*sys.argv[1:]))"


@pytest.fixture
def project(tmp_path):
    """This project under another path, so that nothing is written into its folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.suffix != ".egg-info" and entry.name not in ("build", "outputs"):
            (folder / entry.name).symlink_to(entry)
    return folder


def ask_backend(project: Path, hook: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", USE_BACKEND.format(hook), *arguments], cwd=project,
                          capture_output=True, text=True)  # fmt: skip


def test_editable_install_works_from_an_empty_folder(project, tmp_path):
    wheel = ask_backend(project, "build_editable", str(tmp_path))
    assert wheel.returncode == 0, wheel.stderr
    zipfile.ZipFile(tmp_path / wheel.stdout.splitlines()[-1]).extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = f"import site, sys; site.addsitedir({str(tmp_path / 'site')!r}); import model, run; " \
            "import analysis.report.page; sys.exit(run.main(['--help']))"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "synthesize" in result.stdout


def test_a_wheel_runs_where_there_is_nothing_else_of_the_project(project, tmp_path):
    built = ask_backend(project, "build_wheel", str(tmp_path))
    assert built.returncode == 0, built.stderr
    wheel = tmp_path / built.stdout.splitlines()[-1]
    assert f"cp{sys.version_info[0]}{sys.version_info[1]}" in wheel.name and "none-any" not in wheel.name
    archive = zipfile.ZipFile(wheel)
    archive.extractall(tmp_path / "site")
    (record,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    assert f"Requires-Dist: torch=={torch.__version__.partition('+')[0]}\n" in archive.read(record).decode()
    (tmp_path / "empty").mkdir()
    render = (
        "import torch, lib.plenoxel.ops; from model import PlenoxelGrid, RenderOptions, render_rays; "
        "grid = PlenoxelGrid.from_sparse((2, 2, 2), torch.arange(8), torch.ones(8), torch.zeros(8, 27)); "
        "rays = torch.tensor([[0., 0, -3]]), torch.tensor([[0., 0, 1]]); "
        "out = render_rays(grid, *rays, RenderOptions(), ('alpha',)); "
        "print(float(out.alpha), lib.plenoxel.ops.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for command, expected in (
        (["-c", render], str(tmp_path / "site")), (["-m", "run", "--version"], "0.1.0"),
        (["-m", "run", "fit", "--help"], "FitGrid"),
        (["-m", "run", "synthesize", "--dry-run", "--ginb", "synthesize.rooms = 1"], "dry run: synthesize would run"),
    ):
        result = subprocess.run([sys.executable, *command], cwd=tmp_path / "empty", env=environment,
                                capture_output=True, text=True)  # fmt: skip
        assert result.returncode == 0 and expected in result.stdout, result.stderr
    assert not any((tmp_path / "empty").iterdir())


def test_a_build_that_does_not_see_pytorch_is_refused(project):
    hidden = "import sys; sys.modules['torch'] = None; sys.path.insert(0, '.'); import importlib.util, setup; " \
             "importlib.util.find_spec = lambda name: None; setup.get_requires_for_build_wheel()"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", hidden], cwd=project, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: pip hides PyTorch from the build; add --no-build-isolation, or use pip install -e .\n"
    )


def test_copies_as_sources_are_refused(project):
    result = ask_backend(project, "build_sdist")
    assert result.returncode == 1
    assert result.stderr == (
        "error: this project is used from its folder; run bash scripts/setup.sh, then pip install -e .\n"
    )


def test_setup_py_refuses_them_too(project):
    result = subprocess.run([sys.executable, "setup.py", "install"], cwd=project, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("error: this project is used from its folder")


def test_an_editable_install_without_extensions_is_refused(project, tmp_path):
    (project / "lib").unlink()
    (project / "lib").mkdir()
    result = ask_backend(project, "get_requires_for_build_editable")
    assert result.returncode == 1
    assert result.stderr == "error: the native extensions are not built; run bash scripts/setup.sh first\n"


def test_extensions_built_elsewhere_are_those_that_load(tmp_path):
    """One build for many machines: SSIR_LIBRARIES names its folder."""
    for library in (ROOT / "lib").glob("*/_C*.so"):
        (tmp_path / "lib" / library.parent.name).mkdir(parents=True)
        shutil.copy(library, tmp_path / "lib" / library.parent.name)
    check = "import pathlib; from lib.library import load_library; " \
            "[load_library(folder.parent) for folder in pathlib.Path('lib').glob('*/ops.py')]; " \
            "print(open('/proc/self/maps').read())"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True,
                            env={**os.environ, "SSIR_LIBRARIES": str(tmp_path)})  # fmt: skip
    loaded = {Path(line.split()[-1]) for line in result.stdout.splitlines() if re.search(r"/lib/\w+/_C\S*\.so$", line)}
    assert {path.parent.name for path in loaded} == {path.parent.name for path in (ROOT / "lib").glob("*/_C*.so")}
    assert all(path.is_relative_to(tmp_path) for path in loaded), loaded
