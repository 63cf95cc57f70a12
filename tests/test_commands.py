"""Every command of README and docs: ScanNet's are run on a small imitation, the others are understood as they stand."""

import argparse
import ast
import re
import shlex
import subprocess
from pathlib import Path

import gin
import pytest

import run as entry
import setup as project_setup
from tests.all_tasks import import_tasks
from tests.clone import clone_project
from tests.dataloader.scannet_downloads import FRAMES, SPLITS, write_downloads
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.config import parse, resolved_parameters
from utils.errors import UserError
from utils.files import read_json

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(path.relative_to(ROOT).as_posix() for path in
             (ROOT / "docs").rglob("*.md"))]  # fmt: skip
PROGRAMS = ("python", "bash", "pip", "tensorboard", "blender", "docker", "eval", "source", "export", "nvcc", "mkdocs")
STEPS = "Real ScanNet in five steps"


def commands_of(text):
    """Command lines in fenced shell blocks, indented blocks, and inline code; continued lines are joined."""
    fenced = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(fenced).replace("\\\n", " ").splitlines()
    lines += [line.strip() for line in rest.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    lines += re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", rest)
    found = []
    for line in lines:
        for part in re.split(r" && (?=source|bash|python)", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):
                words.pop(0)
            if words and words[0].removesuffix("3") in PROGRAMS:
                found.append(words)
    return found


COMMANDS = [(document, words) for document in DOCUMENTS for words in commands_of((ROOT / document).read_text())]


def test_the_documents_commands_are_found():
    assert len(COMMANDS) > 40
    assert {words[0] for _, words in COMMANDS} >= {"python", "bash", "pip", "tensorboard", "blender"}


@pytest.mark.parametrize("document, words", COMMANDS, ids=[" ".join(words)[:80] for _, words in COMMANDS])
def test_a_command_is_understood_as_it_stands(document, words):
    program = words[0].removesuffix("3")
    if program == "python" and words[1] == "run.py":
        understand_task([word for word in words[2:] if word != "..."])
    elif program == "python" and words[1].endswith(".py") and words[1] != "setup.py":
        understand_options((ROOT / words[1]).read_text(), words[2:], "add_argument")
    elif program == "bash":
        assert (ROOT / words[1]).is_file()
        if words[1].endswith(".sh"):
            understand_options((ROOT / words[1]).read_text(), words[2:], "") if words[1] != "scripts/test.sh" else None
    elif program == "pip":
        understand_packages(words[1:])
    elif program == "blender":
        script = words[words.index("-P") + 1]
        understand_options((ROOT / script).read_text(), words[words.index("--") + 1 :], "add_argument")
    elif program == "docker":
        if words[1] == "build":
            assert f" AS {words[words.index('--target') + 1]}\n" in (ROOT / "Dockerfile").read_text()
        else:
            assert all((ROOT / word).is_file() for word in words if word.startswith("scripts/"))


def understand_task(words):
    """Options, configs and bindings are known, and nothing that is required is missing."""
    arguments = entry._parser().parse_intermixed_args(words)
    if arguments.version or arguments.help:
        assert arguments.task is None or arguments.task == "TASK" or arguments.task in entry.TASK_MODULES
        return
    if arguments.task in (None, "TASK"):
        return
    task = import_tasks()[arguments.task]
    configs = arguments.ginc or [f"configs/stage/{arguments.task}.gin"]
    parse([str(ROOT / path) for path in configs], [*arguments.ginb, f"run.task = '{arguments.task}'"])
    for group in (task.plan, *task.configures):
        resolved_parameters(group)


def understand_options(source, words, call):
    """Every option is one that the script takes."""
    for option in (word for word in words if re.match(r"--?[a-z]", word)):
        assert re.search(rf'{call}\(.*"{option}"' if call else rf"{option}\)", source), option


def understand_packages(words):
    """What is installed is the project itself, or one of its requirements."""
    if words[0] != "install" or "." in words:
        return
    listed = (ROOT / "setup.py").read_text() + (ROOT / "requirements.txt").read_text()
    for word in words[1:]:
        name = re.match(r"[\w-]+", word).group()
        assert word.startswith("-") or name in listed, word


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_in_documents_imports_what_there_is(document):
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL):
        imports = [node for node in ast.parse(block).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), document, "exec"), {})


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text()):
            assert re.match(r"https?://", target) or (folder / target).exists(), f"{document}: {target}"


def test_extras_that_are_named_exist():
    extras = set(re.findall(r'^ {12}"(\w+)": \[', Path(project_setup.__file__).read_text(), re.MULTILINE))
    sentence = re.search(r"Other extras: (.*?);", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    named = set(re.findall(r"`(\w+)`", sentence))
    named |= set(re.findall(r'the extra "(\w+)"', (ROOT / "README.md").read_text()))
    assert named == extras - {"test"}


@pytest.fixture(scope="module")
def scannet(tmp_path_factory):
    """A clone of the project with an imitation of ScanNet's downloads, in which the README's steps have been run."""
    folder = tmp_path_factory.mktemp("clone")
    environment = clone_project(folder)
    write_downloads(folder / "DATA" / "sens", folder / "configs" / "splits")
    section = (ROOT / "README.md").read_text().partition(f"## {STEPS}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("tensorboard")]
    assert [line.split()[2] for line in lines] == ["extract", "verify", "fit", "DATA"]
    said = {}
    for line in lines:
        result = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
        said[line.split()[2]] = result.stderr
    return folder, said


def test_scannets_steps_as_the_readme_has_them(scannet):
    folder, said = scannet
    scenes = sorted(sum(SPLITS.values(), []))
    assert "5 streams; 1 without a labelled mesh beside them (scene0707_00)" in said["extract"]
    extracted = f"extracted 5 scenes: {5 * FRAMES} frames, of which 5 have a lost pose; 0 were left out as damaged,"
    assert extracted in said["extract"]
    assert "5 scans are complete and sound (5 notes)" in said["verify"]
    assert sorted(read_json(folder / "WORK/fields/run/metrics.json")["scenes"]) == scenes
    rows = read_json(folder / "WORK/report/report.json")["results"]["rows"]
    assert [row["row"] for row in rows] == [
        "camera_rgb", "rendered_rgb", "rendered_rgb_sh", "novel_rgb", "novel_rgb_sh"]  # fmt: skip
    training = read_json(folder / "WORK/runs/novel_rgb/training/settings.json")["training"]
    assert {entry["folder"] for entry in training} == {"original", "novel"}
    assert {entry["scene"] for entry in training} <= set(SPLITS["train"])
    tested = read_json(folder / "WORK/runs/novel_rgb/test/scores/results.json")
    assert tested["scenes"] == SPLITS["val"] and tested["views"] == FRAMES - 1


def test_fields_that_were_downloaded_stay_as_they_are(tmp_path):
    """Without settings.json, as PeRFception's: fit takes them, and makes those that are not there."""
    for scene in ("scene0000_00", "scene0001_00"):
        write_scannet_scene(tmp_path / "DATA" / "scans" / scene, (24, 32))
    small = ["FitGrid.resolutions = (16,)", "FitOptimization.steps = (4,)", "FitOptimization.rays_per_step = (50,)",
             "FitPoses.rounds = 0", "DEVICE = 'cpu'", f"DATA = '{tmp_path}/DATA'",
             f"WORK = '{tmp_path}/WORK'"]  # fmt: skip

    def fit(*bindings):
        gin.clear_config()
        return entry.main(["fit", *(word for line in (*small, *bindings) for word in ("--ginb", line))])

    assert fit("SCENES = ['scene0000_00']") == 0
    field = tmp_path / "WORK" / "fields" / "plenoxel_scannet_scene0000_00"
    (field / "settings.json").unlink()
    before = (field / "last.ckpt").read_bytes()
    assert fit("FitOptimization.steps = (5,)") == 0
    assert (field / "last.ckpt").read_bytes() == before and not (field / "settings.json").exists()
    assert (field.with_name("plenoxel_scannet_scene0001_00") / "settings.json").exists()
    assert fit("FitOptimization.steps = (5,)", "fit.overwrite = True") == 0 and (field / "settings.json").exists()


def test_the_hosted_machine_runs_what_has_to_pass():
    assert re.search(r"run: bash \.ci/run$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)


def test_a_wrong_command_is_not_understood():
    with pytest.raises((UserError, SystemExit, argparse.ArgumentError)):
        understand_task(["fit", "--ginb", "FitGird.start = 'mesh'"])
    with pytest.raises(AssertionError):
        understand_options('add_argument("--side")', ["--sides", "3"], "add_argument")
