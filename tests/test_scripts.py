"""The scripts, with a Python that writes down how it is called: paths are those of where the user stands."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORDER = """#!/usr/bin/env bash
case "$1" in
    -c) echo "$VIRTUAL_ENV" ;;
    *) echo "$PWD: $*" >>"$CALLS" ;;
esac
[ -z "${SLOW:-}" ] || [[ "$*" != *"run.py $SLOW "* ]] || { echo "pid $$" >>"$CALLS"; sleep 600; }
[ -z "${REFUSED:-}" ] || [[ "$*" != *"$REFUSED"* ]] || exit 2
"""
STAGES = ["fit", "render", "annotate", "analyze", "sample", "filter", "render", "annotate"]


@pytest.fixture
def call(tmp_path):
    """``call("demo.sh", ...)`` runs a copy of a script from the folder ``tmp_path/elsewhere``; the calls of Python."""
    project, environment = tmp_path / "project", tmp_path / "environment"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    shutil.copytree(ROOT / "configs", project / "configs")
    (project / "lib").mkdir()
    for name in ("setup.py", "requirements.lock"):
        shutil.copy(ROOT / name, project)
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    (tmp_path / "elsewhere" / "capture").mkdir(parents=True)

    def run(script: str, *arguments: str, refused: str = "", code: int = 0) -> list[str]:
        calls = tmp_path / "calls"
        calls.write_text("")
        result = subprocess.run(
            ["bash", f"../project/scripts/{script}", *arguments], cwd=tmp_path / "elsewhere", stderr=subprocess.PIPE,
            env={**os.environ, "VIRTUAL_ENV": str(environment), "CALLS": str(calls), "REFUSED": refused}, text=True,
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        run.errors = result.stderr
        return calls.read_text().splitlines()

    return run


def tasks(calls: list[str], project: Path) -> list[str]:
    """Names of the tasks that were run, each where the user stands."""
    runs = [line for line in calls if "run.py" in line]
    for line in runs:
        assert line.startswith(f"{project.parent}/elsewhere: {project}/run.py "), line
        configs = [word for word in line.split() if word.endswith(".gin")]
        assert all(Path(word).is_absolute() or word.startswith("configs/") for word in configs), line
    return [line.split()[2] for line in runs]


def test_demo(call, tmp_path):
    calls = call("demo.sh", "out")
    assert tasks(calls, tmp_path / "project") == ["synthesize", *STAGES, *["train", "test"] * 5, "report"]
    assert all("DATA = 'out/data'" in line and "WORK = 'out'" in line for line in calls if "run.py" in line)
    assert f"{tmp_path}/project: setup.py build_ext --inplace" in calls


def test_capture(call, tmp_path):
    calls = call("capture.sh", "capture", "out")
    assert tasks(calls, tmp_path / "project") == [*STAGES, *["train", "test"] * 3, "report"]
    link = tmp_path / "elsewhere/out/data/scans/capture"
    assert link.is_symlink() and link.samefile(tmp_path / "elsewhere/capture")


def test_a_refused_row_is_left_out_and_named(call, tmp_path):
    calls = call("pipeline.sh", "data", "out", "configs/data/scannet.gin", refused="exp/novel_rgb.gin", code=3)
    assert tasks(calls, tmp_path / "project") == [*STAGES, *["train", "test"] * 3, "train", "train", "test", "report"]
    assert call.errors.splitlines()[-1].endswith(": novel_rgb")
    calls = call("pipeline.sh", "data", "out", "configs/data/scannet.gin", refused="run.py annotate", code=2)
    assert tasks(calls, tmp_path / "project") == STAGES[:3]


def test_the_whole_pipeline_is_planned_though_nothing_is_there(call, tmp_path):
    given = ["data", "out", "configs/data/scannet.gin", "novel_rgb"]
    calls = call("pipeline.sh", "--dry-run", *given, refused="run.py fit")
    assert tasks(calls, tmp_path / "project") == [*STAGES, "train", "test", "report", "estimate"]
    runs = [line for line in calls if "run.py" in line]
    assert all("--dry-run" in line and "--resume" not in line for line in runs)
    calls = call("pipeline.sh", *given)
    assert all("--resume" in line and "--dry-run" not in line for line in calls if "run.py" in line)


def test_tests_run_in_the_project(call, tmp_path):
    folder = tmp_path / "project"
    ray = call("test.sh", "--ray", "tests/utils")  # which is there, as far as the recorder says
    assert ray[-1] == f"{folder}: -m pytest -q -n 2 tests/utils"
    assert call("test.sh", "tests/lib")[-2:] == [f"{folder}: -m ruff check .", f"{folder}: -m pytest -q -n 2 tests/lib"]


@pytest.mark.parametrize("kind", ["checkpoint", "predictions"])
def test_fuse(call, tmp_path, kind):
    given = tmp_path / "elsewhere" / "given"
    given.mkdir() if kind == "predictions" else given.write_text("")
    calls = call("fuse.sh", "data", "out", "given", str(ROOT / "configs" / "smoke" / "capture.gin"))
    assert tasks(calls, tmp_path / "project") == ["fit", "render", "annotate", "fuse"]
    runs = [line for line in calls if "run.py" in line]
    assert all("smoke/capture.gin" in line and "WORK = 'out'" in line for line in runs)
    assert f"fuse.{kind} = 'given'" in runs[-1]


def test_label(call, tmp_path):
    """A capture without labels, by the network that comes along or by another one."""
    calls = [line for line in call("label.sh", "capture", "out") if "run.py" in line]
    assert [line.split()[2] for line in calls] == ["fit", "render", "adapt", "fuse", "report"]
    out = f"{tmp_path}/elsewhere/out"
    assert (tmp_path / "elsewhere/out/data/scans/capture").is_symlink()
    assert all(f"WORK = '{out}'" in line and "smoke/capture.gin" in line for line in calls)
    assert "adapt.checkpoint = 'analysis/geometry_randomised_model/best.ckpt'" in calls[2]
    assert f"adapt.output_dir = '{out}/adapted'" in calls[2]
    assert f"fuse.checkpoint = '{out}/adapted/network/best.ckpt'" in calls[3] and "fuse.scans_dir = %SCANS" in calls[3]
    (tmp_path / "elsewhere" / "mine.ckpt").write_text("")
    calls = [line for line in call("label.sh", "capture", "out", "mine.ckpt") if "run.py" in line]
    assert f"adapt.checkpoint = '{tmp_path}/elsewhere/mine.ckpt'" in calls[2]
    call("label.sh", "capture", "out", "none.ckpt", code=2)
    assert "perhaps a checkpoint" in call.errors


def test_shipped_models(call, tmp_path):
    """Of the benchmark's test rooms, as experiment.sh makes them."""
    calls = [line for line in call("shipped_models.sh", "out", "2") if "run.py" in line]
    assert [line.split()[2] for line in calls] == [
        "synthesize", "fit", "render", "annotate", "test", "test", "test"]  # fmt: skip
    assert "synthesize.first = 112" in calls[0] and "synthesize.rooms = 2" in calls[0] and "'second'" in calls[0]
    assert f"WORK = '{tmp_path}/elsewhere/out'" in calls[0]
    call("shipped_models.sh", "out", "two", code=2)
    assert "'two' is no number of rooms" in call.errors


def test_real_room(call, tmp_path):
    """Shipped networks as they are and adapted; every input from random and from shipped weights, and on own labels."""
    calls = [line for line in call("real_room.sh", "capture", "out", "0 1", "ba") if "run.py" in line]
    rows = ["train", "test", "train", "test", "fuse", "train", "test"]
    shipped = ["adapt", "test", "test"] * 2 * 3
    assert [line.split()[2] for line in calls] == ["divide", "fit", "render", "annotate", *shipped, *rows * 3 * 2]
    adapt, as_it_is, adapted = calls[7:10]
    assert "adapted/sh_model_b'" in adapt and "TEST_SCENES = ['capture_b']" in adapt
    assert "test.checkpoint = 'analysis/sh_model/best.ckpt'" in as_it_is and "sh_model_shipped_b_0" in as_it_is
    assert "out/adapted/sh_model_b/network/best.ckpt'" in adapted and "sh_model_adapted_b_0" in adapted
    assert "SCENES = ['capture']" in calls[1] and "SCENES = ['capture_a', 'capture_b']" in calls[2]
    field = tmp_path / "elsewhere/out/fields/plenoxel_scannet_capture_b"
    assert field.is_symlink() and str(field.readlink()) == "plenoxel_scannet_capture"
    assert f"divide.scan = '{tmp_path}/elsewhere/capture'" in calls[0]
    assert all(f"WORK = '{tmp_path}/elsewhere/out'" in line and "--resume" in line for line in calls)
    scratch, _, tuned, _, fused, student, tested = calls[22:29]
    assert "HALF = 'capture_b'" in scratch and "OTHER_HALF = 'capture_a'" in scratch and "train.start" not in scratch
    assert "train.start = 'analysis/sh_model/best.ckpt'" in tuned and "ROW = 'rendered_rgb_tuned_ba_0'" in tuned
    assert "rendered_rgb_tuned_ba_0/training/best.ckpt" in fused and "SCENES = ['capture_a']" in fused
    assert "SelfTrainingOptions.scenes = ['capture_a']" in student and "labels/rendered_rgb_tuned_ba_0'" in student
    assert "ROW = 'rendered_rgb_self_ba_0'" in tested and "SEED = 1" in calls[29]
    assert "analysis/geometry_randomised_model" in calls[-2]
    call("real_room.sh", "nothing", "out", code=2)
    assert "expected a scene's folder" in call.errors


def alive(pid: int) -> bool:
    """Whether a process runs, and has not only been left for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interrupted_experiment_leaves_nothing_running(call, tmp_path):
    calls = tmp_path / "calls"
    calls.write_text("")
    words = ["experiment.sh", "--work", "out", "--rows", "rendered_rgb", "--seeds", "0 1", "--lanes", "2", "--small"]
    environment = {"VIRTUAL_ENV": str(tmp_path / "environment"), "CALLS": str(calls), "SLOW": "train"}
    script = subprocess.Popen(
        ["bash", f"../project/scripts/{words[0]}", *words[1:]], cwd=tmp_path / "elsewhere", stderr=subprocess.PIPE,
        env={**os.environ, **environment}, text=True,
    )  # fmt: skip
    while script.poll() is None and calls.read_text().count("pid ") < 2:
        time.sleep(0.02)
    script.terminate()
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 130 and "run the same command to go on" in errors, errors
    trained = [int(line.split()[1]) for line in calls.read_text().splitlines() if line.startswith("pid ")]
    deadline = time.monotonic() + 60  # a training that goes on takes ten times as long
    while any(map(alive, trained)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(trained) == 2 and not any(map(alive, trained))
    assert "run.py test" not in calls.read_text()


def test_experiment_labels_by_the_teachers_network_before_the_student_is_trained(call, tmp_path):
    (tmp_path / "elsewhere" / "out").mkdir()
    rows = "rendered_rgb self_training_rgb"
    calls = call("experiment.sh", "--work", "out", "--rows", rows, "--seeds", "7", "--small", "--fused")
    runs = [line.split(" run.py ")[1] for line in calls if " run.py " in line]
    made = [line.split()[0] for line in runs]
    assert made[:6] == ["synthesize", "synthesize", "synthesize", "fit", "render", "annotate"] and made[-1] == "compare"
    rows = [(line.split()[0], next(word for word in line.split() if "configs/exp/" in word)) for line in runs[6:-1]]
    assert rows == [(task, f"configs/exp/{row}.gin") for row, tasks in (
        ("rendered_rgb", ("train", "test")), ("half_of_the_rooms", ("train", "test")),
        ("self_training_rgb", ("fuse", "train", "test")),
    ) for task in tasks]  # fmt: skip
    assert all("test.fused = True" in line and "SEED = 7" in line and "small.gin" in line for line in runs[6:-1])
    assert all("TEACHER = 'half_of_the_rooms_7'" in line for line in runs[-4:-1])
    assert "compare.rows = ['rendered_rgb','self_training_rgb',]" in runs[-1]


def test_experiment_makes_novel_views_beside_trainings_and_searches_rates_first(call, tmp_path):
    (tmp_path / "elsewhere" / "out").mkdir()
    given = ("experiment.sh", "--work", "out", "--rows", "rendered_rgb novel_rgb segformer_rgb", "--seeds", "7 8")
    more = ("--lanes", "3", "--workers", "4", "--rates", "1e-3 3e-3")
    runs = [line.split(" run.py ")[1] for line in call(*given, *more) if " run.py " in line]
    made = [line.split()[0] for line in runs]
    assert made.count("synthesize") == 3 and sorted(line.split("rooms = ")[1][:2] for line in runs[:3]) == [
        "16", "24", "96"]  # fmt: skip
    trained = [line.split("ROW = '")[1].split("'")[0] for line in runs if line.startswith("train ")]
    searched = {f"rate_{row}_{rate}" for row in ("rendered_rgb", "segformer_rgb") for rate in ("1e-3", "3e-3")}
    assert set(trained[:4]) == searched and all(("test " in line) <= ("rate_" not in line) for line in runs)
    rows = ("rendered_rgb", "novel_rgb", "segformer_rgb")
    assert set(trained[4:]) == {f"{row}_{seed}" for row in rows for seed in (7, 8)}
    novel = next(place for place, line in enumerate(runs) if "'novel_rgb_" in line)
    assert made.index("rate") < novel and {"analyze", "sample", "filter"} < set(made[:novel]) and made[-1] == "compare"
    assert all("learning_rate" not in line for line in runs if "rate_" not in line)
    again = [line.split(" run.py ")[1].split()[0] for line in call(*given, *more) if " run.py " in line]
    assert set(again) == {"train", "test", "compare"}  # the views are there
    for marker in (tmp_path / "elsewhere/out/made").iterdir():
        marker.unlink()
    runs = call(*given, *more, refused="run.py rate", code=1)
    assert "novel_views" in call.errors
    assert not any("exp/novel_rgb" in line or "run.py compare" in line for line in runs)


def test_experiment_takes_the_best_of_the_rates_that_trained(call, tmp_path):
    work = tmp_path / "elsewhere" / "out"
    given = ("experiment.sh", "--work", "out", "--rows", "rendered_rgb", "--seeds", "7", "--rates")
    for rate, score in (("1e-3", 0.2), ("3e-3", 0.4), ("1e-2", 0.3)):
        folder = work / f"runs/rate_rendered_rgb_{rate}/training"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(f'{{"validation": {{"mean_iou": {score}}}}}')
    real = tmp_path / "environment/bin/python"
    recorder = real.read_text()
    real.write_text(recorder.replace("case", f'[ "$1" != - ] || exec {sys.executable} "$@"\ncase', 1))
    rates = "1e-3 3e-3 3e-2"  # the last has no results: it diverged, say
    runs = [line for line in call(*given, rates, refused="learning_rate = 3e-2") if " run.py " in line]
    chosen = (work / "rates/enet.gin").read_text().splitlines()
    assert chosen[0] == f"# among {rates}" and chosen[-1] == "OptimizerOptions.learning_rate = 3e-3"
    assert all(("out/rates/enet.gin" in line) == ("ROW = 'rendered_rgb_7'" in line) for line in runs)
    call(*given, "1e-3 1e-2", code=2)
    assert "is of other rates than '1e-3 1e-2'" in call.errors
    (work / "rates/enet.gin").unlink()
    call(*given, "5e-2", code=1)
    assert "trained with none of the learning rates 5e-2" in call.errors


def test_experiment_compares_nothing_where_a_training_failed(call, tmp_path):
    (tmp_path / "elsewhere" / "out").mkdir()
    given = ("experiment.sh", "--work", "out", "--rows", "rendered_rgb camera_rgb live_rgb_sh", "--seeds", "7")
    for lanes in ("1", "2"):
        calls = call(*given, "--lanes", lanes, refused="exp/camera_rgb.gin", code=1)
        runs = [line for line in calls if " run.py " in line]
        assert any("run.py test" in line and "live_rgb_sh_7" in line for line in runs)  # other rows go on
        assert not any("run.py compare" in line for line in runs) and "in_a_lane camera_rgb 7" in call.errors


def test_experiment_trains_nothing_where_a_stage_failed(call, tmp_path):
    given = ("experiment.sh", "--work", "out", "--rows", "rendered_rgb", "--seeds", "7", "--workers", "2")
    for stage, code in (("synthesize", 1), ("fit", 2), ("annotate", 2)):
        runs = [line for line in call(*given, refused=f"run.py {stage}", code=code) if " run.py " in line]
        assert not any("run.py train" in line for line in runs)
        assert not list((tmp_path / "elsewhere/out/made").iterdir())


def test_experiment_trains_no_run_that_an_earlier_call_still_trains(call, tmp_path):
    python = tmp_path / "environment/bin/python"
    python.write_text(
        RECORDER + '[ "$2" != train ] || ! flock -n "$OLDPWD/out/lanes/rendered_rgb_7" true || echo free >>"$CALLS"\n'
    )
    given = ("experiment.sh", "--work", "out", "--rows", "rendered_rgb", "--seeds", "7", "--lanes", "2")
    calls = call(*given)
    assert any("run.py train" in line for line in calls) and "free" not in calls
    assert (tmp_path / "elsewhere/out/lanes/rendered_rgb_7").exists()


@pytest.mark.parametrize("given", [("--lanes", "0"), ("--lanes", "08"), ("--minutes", "09"), ("--workers", "-1")])
def test_experiment_refuses_numbers_that_it_cannot_use(call, given):
    assert not call("experiment.sh", *given, code=2)
    assert call.errors.startswith("error: ") and given[1] in call.errors


SBATCH = """
sbatch() {  # as Slurm: each job of the array by a shell of its own, with its variables
    local range="${1#--array=}" command="$3" step=1 first last id
    [ "$2" = --wrap ] || return 1
    case "$range" in *:*) step="${range#*:}" range="${range%:*}" ;; esac
    first="${range%-*}" last="${range#*-}"
    for ((id = first; id <= last; id += step)); do
        SLURM_ARRAY_TASK_ID=$id SLURM_ARRAY_TASK_MIN=$first SLURM_ARRAY_TASK_STEP=$step \
            SLURM_ARRAY_TASK_COUNT=$(((last - first) / step + 1)) sh -c "$command" || return
    done
}
"""


@pytest.mark.parametrize(("array", "listed"), [("0-2", False), ("4-8:2", True), ("0-9", False)])
def test_jobs_of_an_array_share_all_scenes(call, tmp_path, array, listed):
    """Each scene is in one job's list; jobs without a scene start nothing."""
    place, names = tmp_path / "elsewhere", [f"scene{number:04d}_00" for number in range(7)]
    for name in names:
        (place / "data" / "scans" / name).mkdir(parents=True)
    (place / "data" / "scans" / "readme.txt").touch()
    names = names[1:6] if listed else names
    (place / "some.txt").write_text("# a list\n\n" + "".join(f"{name}\n" for name in names))
    call("setup.sh")
    job = "exec bash ../project/scripts/array_job.sh render data out small.gin --ginb 'SIZE = (60, 80)'"
    environment = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "environment"), "CALLS": str(tmp_path / "calls"),
                   "SCENES_FILE": "some.txt" if listed else ""}  # fmt: skip
    subprocess.run(["bash", "-c", f'{SBATCH} sbatch --array={array} --wrap "{job}"'], cwd=place, env=environment,
                   check=True)  # fmt: skip
    runs = [line for line in (tmp_path / "calls").read_text().splitlines() if "run.py" in line]
    assert all("run.py render --resume" in line and line.endswith("--ginb SIZE = (60, 80)") for line in runs)
    lists = [re.search(r"SCENES = '(.*?)'", line)[1] for line in runs]
    shares = [(place / path).read_text().split() for path in lists]
    assert sorted(sum(shares, [])) == names and max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares) == min(len(names), {"0-2": 3, "4-8:2": 3, "0-9": 10}[array])


@pytest.mark.parametrize("job", [{}, {"JOB_NUMBER": "3", "JOB_COUNT": "3"}, {"JOB_NUMBER": "0", "JOB_COUNT": "x"}])
def test_a_job_without_a_number_is_refused(call, tmp_path, job, monkeypatch):
    for name, value in {"JOB_NUMBER": "", "JOB_COUNT": "", "SLURM_ARRAY_TASK_ID": "", **job}.items():
        monkeypatch.setenv(name, value)
    assert call("array_job.sh", "fit", "data", "out", "small.gin", code=2) == []
    assert call.errors.startswith("error: which job is this?")


@pytest.mark.parametrize("listed", [True, False])
def test_a_job_of_no_scenes_at_all_is_refused(call, tmp_path, listed, monkeypatch):
    (tmp_path / "elsewhere/data/scans").mkdir(parents=True)
    (tmp_path / "elsewhere/some.txt").write_text("# none\n\n")
    scenes = "some.txt" if listed else ""
    given = {"JOB_NUMBER": "0", "JOB_COUNT": "2", "SLURM_ARRAY_TASK_ID": "", "SCENES_FILE": scenes}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert not any("run.py" in line for line in call("array_job.sh", "fit", "data", "out", "small.gin", code=2))
    assert call.errors.startswith(f"error: no scene in {'some.txt' if listed else 'data/scans'}: ")
