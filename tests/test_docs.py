"""What the documents name is there."""

import re

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
    words = {"Twelve": 12, "Thirteen": 13, "Fourteen": 14, "Fifteen": 15}
    for walk in (PROJECT / "docs" / "walks.md").read_text().split("\n## ")[1:]:
        named = dict.fromkeys(re.findall(r"`([\w/]+\.\w+)`", walk))
        on_cpu = [name for name in named if "/cuda/" not in name and "binding_packed" not in name]
        said = re.search(r"^(\w+) files", walk, re.MULTILINE).group(1)
        assert words[said] == len(on_cpu), walk.splitlines()[0]
