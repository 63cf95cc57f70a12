"""How modules depend on each other: rooms import from rooms above them only, and no modules import each other.

Read from the sources, so imports within functions and for type checkers count as well.
"""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("utils", "lib", "dataloader", "model", "enet", "analysis", "run")


def project_modules(root):
    """Path of each module by its dotted name."""
    paths = [path for room in ROOMS for path in (*root.glob(f"{room}.py"), *(root / room).rglob("*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


def imports_of(path, modules):
    """Names of the project's modules that a file imports, wherever in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which this test does not follow"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {part if part in modules else node.module for part in parts}
    return imported & modules.keys()


def import_graph(root):
    modules = project_modules(root)
    return {name: imports_of(path, modules) for name, path in modules.items()}


def upward_imports(graph):
    """Imports from a room that stands below the importing one."""
    rank = {room: number for number, room in enumerate(ROOMS)}
    return [f"{name} imports {other}" for name, others in graph.items() for other in sorted(others)
            if rank[other.split(".")[0]] > rank[name.split(".")[0]]]  # fmt: skip


def cycle(graph):
    """Names along one circle of imports, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_rooms_import_only_from_rooms_above():
    graph = import_graph(ROOT)
    assert {name.split(".")[0] for name in graph} == set(ROOMS)
    assert any(other.startswith("utils.") for other in graph["run"]), "imports are not found"
    assert upward_imports(graph) == []


def test_no_modules_import_each_other():
    assert cycle(import_graph(ROOT)) is None


def test_a_wrong_import_is_found(tmp_path):
    for name, content in {
        "utils/__init__.py": "",
        "utils/first.py": "def late():\n    from utils import second\n",
        "utils/second.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from utils.first import late\n",
        "lib/__init__.py": "import model.grid\n",
        "model/grid.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    graph = import_graph(tmp_path)
    assert upward_imports(graph) == ["lib imports model.grid"]
    assert set(cycle(graph)) == {"utils.first", "utils.second"}
