"""What the tests on a cluster run: a driver, and a stage that stops where a test wants to kill it.

    python -m tests.utils.ray_program ADDRESS FOLDER [BINDING ...]

The stage makes FOLDER/out/SCENE in two halves; between them it waits while FOLDER/hold exists. It notes in
FOLDER/starts (scene, process, Ray's node, GPUs seen) and in FOLDER/finishes what it did.
"""

import json
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import gin

from utils.outputs import commit_output, prepare_output
from utils.run_state import set_resume
from utils.scenes import for_each_scene

SCENES = [f"scene{number}" for number in range(6)]


def stage(name: str, root: Path) -> str:
    """Make one scene; ``bad`` scenes fail after their first half."""
    import ray

    folder = prepare_output(root / "out" / name, {"scene": name})
    if folder is None:
        return "was there"
    (folder / "first").write_text(name)
    node, gpus = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    _note(root / "starts", f"{name} {os.getpid()} {node} {gpus}")
    while (root / "hold").exists():
        time.sleep(0.05)
    (folder / "second").write_text(name)
    commit_output(root / "out" / name)
    _note(root / "finishes", name)
    return "made"


def _note(path: Path, line: str) -> None:
    with open(path, "a") as file:  # one write, so lines of several processes do not mix
        file.write(line + "\n")


def notes(path: Path) -> list[list[str]]:
    """The words of each line that stages noted; none while there is no such file."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    address, root, *bindings = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    gin.parse_config([f"SceneWorkers.address = '{address}'", "SceneWorkers.count = 2", *bindings])
    set_resume(True)
    print(json.dumps(for_each_scene(SCENES, partial(stage, root=Path(root)), "stage", "skip")))
