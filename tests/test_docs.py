"""What the documents name is there."""

import importlib
import json
import re
import subprocess
import sys

import pytest

from utils.paths import PROJECT

DOCUMENTS = sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "docs").glob("*.md"))
FOLDERS = (
    "utils", "lib", "dataloader", "model", "enet", "analysis", "configs", "scripts", "tests", "benchmarks", "docs",
)


@pytest.mark.parametrize("document", ["README.md", *DOCUMENTS])
def test_files_that_are_named_exist(document):
    text = (PROJECT / document).read_text()
    named = {name for name in re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`", text) if name.split("/")[0] in FOLDERS}
    for name in sorted(named):
        assert any(PROJECT.glob(re.sub("[A-Z]{3,}", "*", name))), name  # TASK.gin stands for any task's


def test_walks_say_how_many_files_they_name():
    words = {"Twelve": 12, "Thirteen": 13, "Fourteen": 14, "Fifteen": 15, "Sixteen": 16}
    for walk in (PROJECT / "docs" / "walks.md").read_text().split("\n## ")[1:]:
        named = dict.fromkeys(re.findall(r"`([\w/]+\.\w+)`", walk))
        on_cpu = [name for name in named if "/cuda/" not in name and "binding_packed" not in name]
        said = re.search(r"^(\w+) files", walk, re.MULTILINE).group(1)
        assert words[said] == len(on_cpu), walk.splitlines()[0]


def test_the_site_has_every_page_once_and_what_it_names_is_there():
    text = (PROJECT / "mkdocs.yml").read_text()
    pages = re.findall(r": ([\w/]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(pages) == sorted(path.relative_to(PROJECT / "docs").as_posix() for path in
                                   (PROJECT / "docs").rglob("*.md"))  # fmt: skip
    for name in re.findall(r"^::: (\S+)$", (PROJECT / "docs" / "api.md").read_text(), re.MULTILINE):
        module, _, member = name.rpartition(".")
        assert getattr(importlib.import_module(module), member).__doc__, name


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "A sparse voxel grid" in (tmp_path / "api" / "index.html").read_text()


def test_the_notebook_runs_from_a_capture_to_fused_labels(tmp_path):
    """As it stands, but for a smaller room and fewer steps, and where it writes."""
    notebook = json.loads((PROJECT / "docs" / "capture_to_labels.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"), "no outputs are kept"
    code = "\n".join(cells)
    for old, new in (
        ('ROOT / "outputs" / "notebook"', f"Path({str(tmp_path)!r})"),
        ('"DEVICE = \'cpu\'", *bindings]', '"DEVICE = \'cpu\'", *bindings, *SMALL.get(task, ())]'),
    ):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    small = {"synthesize": ["PictureOptions.size = (60, 80)", "PictureOptions.frames = 10", "RoomOptions.edge = 0.12"],
             "fit": ["FitGrid.resolutions = (32,)", "FitOptimization.steps = (20,)",
                     "FitOptimization.rays_per_step = (500,)"]}  # fmt: skip
    code = f"SMALL = {small!r}\n{code}\nassert picture.shape[-1] == 5 * 124 and fused.any()\n"
    (tmp_path / "notebook.py").write_text(code)
    command = [sys.executable, str(tmp_path / "notebook.py")]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "held-out PSNR" in result.stdout and "fused: pixel accuracy" in result.stdout
