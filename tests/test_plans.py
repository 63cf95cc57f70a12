"""From a wrong setting or a changed input to a refusal, before any work and without touching what is there."""

import json
import os
import shutil

import gin
import pytest
import torch

import run as entry
from dataloader import ViewStore, add_channel
from tests.dataloader.scannet_fixture import write_scannet_scene
from utils.files import read_json, write_json
from utils.images import read_image, write_image

TINY = [
    "FitGrid.resolutions = (16,)", "FitOptimization.steps = (16,)", "FitOptimization.rays_per_step = (200,)",
    "FitPoses.rounds = 0", "FitData.holdout_every = 4", "FitBackground.rows = 8", "DEVICE = 'cpu'", "SIZE = (24, 32)",
    "train.epochs = 1", "train.batch_size = 2",
]  # fmt: skip
BY_FRAMES = "SplitOptions.val_frames = 'held_out'"


@pytest.fixture
def call(tmp_path, capsys):
    """``call(task, *bindings, flags=())``: exit code and what was written, with DATA and WORK below ``tmp_path``."""

    def call(task, *bindings, flags=()):
        gin.clear_config()
        places = [f"DATA = '{tmp_path}/data'", f"WORK = '{tmp_path}/work'"]
        arguments = [word for binding in (*places, *TINY, *bindings) for word in ("--ginb", binding)]
        code = entry.main([task, *arguments, *flags])
        output = capsys.readouterr()
        return code, output.out + output.err

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """DATA and WORK of a room of nine frames: fitted, rendered, annotated, and a network trained on it."""
    work = tmp_path_factory.mktemp("made")
    write_scannet_scene(work / "data" / "scans" / "room", num_frames=9, lost_frames=())
    bindings = [f"DATA = '{work}/data'", f"WORK = '{work}/work'", *TINY]
    for task, *more in (("fit",), ("render",), ("annotate",), ("train", BY_FRAMES)):
        gin.clear_config()
        assert entry.main([task, *(word for binding in (*bindings, *more) for word in ("--ginb", binding))]) == 0
    return work


@pytest.fixture
def rooms(made, tmp_path):
    """A copy of what was made."""
    for name in ("data", "work"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


REFUSED = {
    "bits of a field": ("fit", ["fit.bits = 5"], "fit.bits = 5: expected 4, 8, 16, 32"),
    "levels without steps": ("fit", ["FitGrid.resolutions = (16, 32)"], "FitOptimization.steps has 1 entries"),
    "an absent scene": ("fit", ["SCENES = ['room', 'hall']"], "scene 'hall' is not in"),
    "too few frames": ("fit", ["FitData.max_frames = 2"], "2 usable training frames"),
    "a way to go on": ("fit", ["fit.on_error = 'ignore'"], "on_error = 'ignore' is unknown"),
    "a macro for one scene": ("fit", ["SCENE = ['room']"],
        "macro SCENE is set, but nothing uses it (did you mean 'SCENES'?)"),
    "a macro of other tasks": ("train", ["SCENES = ['room']"],
        "SCENES is set on the command line, but nothing in this run uses it; it uses DATA"),
    "a misspelt macro": ("render", ["WROK = 'x'"], "(did you mean 'WORK'?)"),
    "a misspelt group": ("fit", ["FitGird.start = 'mesh'"], "(did you mean 'FitGrid'?)"),
    "a misspelt parameter": ("fit", ["FitGrid.dialte = 1"], "(did you mean 'dilate'?)"),
    "every 0th view": ("render", ["render.every = 0"], "render.every = 0"),
    "a dtype": ("render", ["render.sh_dtype = 'int4'"], "render.sh_dtype = 'int4' is unknown"),
    "a label rule": ("annotate", ["annotate.label_rule = 'best'"], "annotate.label_rule = 'best' is unknown"),
    "a backbone": ("train", ["NetworkOptions.backbone = 'resnet'", BY_FRAMES],
        "NetworkOptions.backbone = 'resnet' is unknown"),
    "a split list": ("train", ["TRAIN_SCENES = 'none.txt'"], "of scene names; correct the path, give 'all'"),
    "two ways to validate": ("train", [BY_FRAMES, "SplitOptions.val_every = 4"], "choose one way to validate"),
    "a rule for tail classes": ("analyze", ["analyze.tail = 'few'"], "tail = 'few' is unknown"),
    "a search space": ("search", [BY_FRAMES, "search.space = {'LossOptions.dise': ('uniform', 0, 1)}"],
        "(did you mean 'dice'?)"),
    "values of another type": ("search", [BY_FRAMES, "search.space = {'NetworkOptions.stem': ('uniform', 0, 1)}"],
        "NetworkOptions.stem = 0 is not of type str"),
    "what no trial can do": ("search", [BY_FRAMES, "NetworkOptions.backbone = 'resnet'"],
        "NetworkOptions.backbone = 'resnet' is unknown"),
    "frames to test": ("test", ["test.frames = 'fitted'"],
        "test.frames = 'fitted' is unknown; use 'all' or 'held_out'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_setting_is_refused_by_the_plan_and_nothing_is_touched(rooms, call, name):
    task, bindings, expected = REFUSED[name]
    before = state_of(rooms)
    for flags in ([], ["--dry-run"]):
        code, text = call(task, *bindings, flags=flags)
        assert code == 2 and expected in text and len(text.strip().splitlines()) == 1, text
    assert state_of(rooms) == before


def test_the_dry_run_says_what_is_done_and_what_would_be_made(rooms, call):
    write_scannet_scene(rooms / "data" / "scans" / "hall", num_frames=5, lost_frames=(1,))
    before = state_of(rooms)
    code, text = call("fit", flags=["--dry-run"])
    assert code == 0 and state_of(rooms) == before
    fields = rooms / "work" / "fields"
    assert f"room: {fields}/plenoxel_scannet_room is finished (6 frames of 64x48, 3 held out, 16^3)" in text
    assert f"hall: {fields}/plenoxel_scannet_hall to make (3 frames of 64x48, 1 held out, 16^3)" in text
    assert "in all: 1 to make, 1 done" in text


def test_a_run_with_nothing_to_make_leaves_the_records_of_the_one_that_made_it(rooms, call):
    before = state_of(rooms / "work")
    for task, *more in (("fit",), ("render",), ("annotate",), ("train", BY_FRAMES)):
        assert call(task, *more, "fit.checkpoint_seconds = 5.0")[0] == 0
    assert state_of(rooms / "work") == before


def test_a_run_killed_before_its_metrics_writes_them_the_next_time(rooms, call):
    metrics = rooms / "work" / "fields" / "run" / "metrics.json"
    expected = metrics.read_bytes()
    metrics.unlink()
    assert call("fit")[0] == 0 and metrics.read_bytes() == expected


def repaint(path):
    image = read_image(path)
    write_image(path, image.flip(-1))


def move_vertex(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"end_header") + 13] ^= 1  # in the first vertex's x
    path.write_bytes(content)


def scan(rooms):
    return rooms / "data" / "scans" / "room"


CHANGES = {
    "a photograph": (lambda rooms: repaint(scan(rooms) / "color" / "1.png"), {
        "fit": "scan.photographs changed since", "render": "scan.photographs changed since"}),
    "a depth map": (lambda rooms: shutil.copy(scan(rooms) / "depth/1.png", scan(rooms) / "depth/2.png"), {
        "fit": "scan.depth_maps changed since", "render": None}),
    "a pose": (lambda rooms: shutil.copy(scan(rooms) / "pose/1.txt", scan(rooms) / "pose/2.txt"), {
        "fit": "scan.cameras changed since", "render": "scan.cameras changed since"}),
    "a lost frame": (lambda rooms: (scan(rooms) / "pose/2.txt").unlink(), {
        "fit": "scan.frames changed since", "render": "changed since"}),
    "the labelled mesh": (lambda rooms: move_vertex(scan(rooms) / "room_vh_clean_2.labels.ply"), {
        "fit": None, "render": None, "annotate": "mesh changed since"}),
    "the field": (lambda rooms: (rooms / "work/fields/plenoxel_scannet_room/trans_info.npz").write_bytes(b"other"), {
        "fit": None, "render": "field changed since"}),
    "the times of all files": (lambda rooms: [os.utime(path) for path in rooms.rglob("*")], {
        "fit": None, "render": None, "annotate": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_results_of_older_inputs_are_not_taken_for_finished(rooms, call, name):
    change, expected = CHANGES[name]
    change(rooms)
    for task, message in expected.items():
        code, text = call(task)
        assert (code, bool(message)) in ((0, False), (2, True)), text
        assert message is None or message in text


def test_a_copied_project_is_the_same_project(rooms, call):
    """Identities name no paths and no times: everything is finished in the copy, too."""
    for task, *more in (("fit",), ("render",), ("annotate",), ("train", BY_FRAMES)):
        code, text = call(task, *more, flags=["--dry-run"])
        assert code == 0 and "in all: 1 done" in text, text


def test_a_channel_more_does_not_make_a_training_another_one(rooms, call):
    store = rooms / "work" / "views" / "original" / "room"
    add_channel(store, "quality", lambda array: array.fill(255), {"made": "for a test"})
    assert call("annotate", "annotate.with_depth = True")[0] == 0
    code, text = call("train", BY_FRAMES, flags=["--dry-run"])
    assert code == 0 and "is finished" in text
    code, text = call("train", BY_FRAMES, "LossOptions.quality = True", flags=["--dry-run"])
    assert code == 2 and "loss.quality = False there, True now" in text


def test_a_channel_that_is_used_does(rooms, call):
    assert call("annotate", "annotate.label_rule = 'nearest_vertex'", "annotate.overwrite = True")[0] == 0
    code, text = call("train", BY_FRAMES)
    assert code == 2 and "training[0].store changed since" in text


def test_which_frames_are_held_out_is_one_fact(rooms, call):
    """Of frames 0 to 8, 0, 4 and 8 were kept out of the field; rendering every second frame shifts nothing."""
    field, views = rooms / "work" / "fields" / "plenoxel_scannet_room", rooms / "work" / "views" / "original"
    assert read_json(field / "held_out.json") == {"scene": "room", "frames": ["0", "4", "8"]}
    assert list(read_json(field / "results.json")["held_out"]) == ["0", "4", "8"]
    for every in (1, 2, 3):
        shutil.rmtree(views / "room")
        for task in ("render", "annotate"):
            assert call(task, f"render.every = {every}")[0] == 0
        store = ViewStore(views / "room")
        assert store.attributes["held_out"] == ["0", "4", "8"]
        held_out = [name for name in store.cameras.names if name in ("0", "4", "8")]
        detail = f"{len(store) - len(held_out)} views of 32x24, {len(held_out)} to validate on"
        code, text = call("train", BY_FRAMES, "ROW = 'other'", flags=["--dry-run"])
        assert code == 0 and detail in text, text


def test_the_held_out_frames_are_those_that_are_tested(rooms, call):
    code, text = call("test", "test.frames = 'held_out'", flags=["--dry-run"])
    assert code == 0 and "3 views of 32x24 of 1 scenes" in text, text
    code, text = call("test", flags=["--dry-run"])
    assert code == 0 and "9 views of 32x24 of 1 scenes" in text, text


def test_scenes_are_called_what_the_user_calls_them(tmp_path, call):
    """Two links to folders of one name are two scenes, and the one that was trained on is recognised."""
    for name, frames in (("kitchen", 9), ("bath", 8)):
        write_scannet_scene(tmp_path / name / "capture", num_frames=frames, lost_frames=())
        (tmp_path / "data" / "scans").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "scans" / name).symlink_to(tmp_path / name / "capture")
    for task in ("fit", "render", "annotate"):
        assert call(task)[0] == 0
    stores = tmp_path / "work" / "views" / "original"
    assert {ViewStore(stores / name).scene for name in ("kitchen", "bath")} == {"kitchen", "bath"}
    assert call("train", "TRAIN_SCENES = ['kitchen']", BY_FRAMES)[0] == 0
    for name, seen in (("kitchen", ["kitchen"]), ("bath", [])):
        output = tmp_path / f"test_{name}"
        assert call("test", f"TEST_SCENES = ['{name}']", f"test.output_dir = '{output}'")[0] == 0
        assert read_json(output / "metrics.json")["rooms_seen_in_training"] == seen


def test_scenes_that_fail_are_skipped_reported_and_not_a_success(rooms, call, monkeypatch):
    """Any failure counts: memory, or a fault of the program."""
    from model.fitting import scene_fit

    write_scannet_scene(rooms / "data" / "scans" / "hall", num_frames=8, lost_frames=())

    def out_of_memory(*arguments, **options):
        raise torch.OutOfMemoryError("12 GiB wanted")

    with monkeypatch.context() as broken:
        broken.setattr(scene_fit, "load_training_frames", out_of_memory)
        code, text = call("fit", "fit.on_error = 'skip'")
    assert code == 3 and "error: 1 scenes failed: hall" in text
    reason = read_json(rooms / "work" / "fields" / "run" / "metrics.json")["failed"]["hall"]
    assert reason.startswith("OutOfMemoryError: 12 GiB wanted\n") and "in out_of_memory" in reason
    assert call("fit", "fit.on_error = 'skip'", flags=["--resume"])[0] == 0


def test_an_older_output_of_unknown_origin_is_refused(rooms, call):
    settings = rooms / "work" / "fields" / "plenoxel_scannet_room" / "settings.json"
    content = read_json(settings)
    del content["scan"]
    write_json(settings, content)
    code, text = call("fit")
    assert code == 2 and "made with other settings (scan is absent there" in text
    assert json.loads(settings.read_text()) == content
