"""ScanNet's label images beside what is rasterized: agreement where they are exact, and less where they are shifted."""

import gin
import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import ViewStoreWriter, load_scene
from dataloader.label_images import LabelImages
from dataloader.label_mesh import load_label_mesh
from model.label_agreement import LabelAgreement, compare_labels
from model.task_annotate import annotate
from tests.dataloader.scannet_fixture import fixture_intrinsics, fixture_poses, trace_room_labels, write_scannet_scene
from utils.errors import UserError
from utils.labels import benchmark_set, label_set

SIZE, COUNT = (48, 64), 6
RAW = 100  # raw id of the benchmark's first class in the fixture's table


@pytest.fixture
def scan(tmp_path):
    """Exact labels at the photographs' size, by raw ids; frame 0 has none."""
    scan = write_scannet_scene(tmp_path / "scans" / "scene0000_00", SIZE, num_frames=COUNT, lost_frames=())
    names, ids = benchmark_set().names, benchmark_set().ids
    rows = [f"{RAW + index}\t{names[index]}\t9\t{ids[index]}\n" for index in range(1, 21)]
    (tmp_path / "scannetv2-labels.combined.tsv").write_text("id\traw_category\tcount\tnyu40id\n" + "".join(rows))
    for frame in range(1, COUNT):
        write(scan, frame, exact(frame))
    return scan


def exact(frame) -> np.ndarray:
    """Raw ids ``[H, W]`` of a frame."""
    classes, _ = trace_room_labels(fixture_poses(COUNT)[frame], fixture_intrinsics(SIZE), SIZE)
    return (classes + RAW).numpy().astype(np.uint16)


def write(scan, frame, ids) -> None:
    (scan / "label-filt").mkdir(exist_ok=True)
    Image.fromarray(ids).save(scan / "label-filt" / f"{frame}.png")


def compared(scan) -> dict:
    scene = load_scene(scan)
    return compare_labels(scene, load_label_mesh(scene), LabelImages(scene).frames).figures()


def test_exact_images_agree_but_for_pixels_on_borders(scan):
    found = compared(scan)
    assert found["images"] == COUNT - 1 and found["pixels"] == (COUNT - 1) * SIZE[0] * SIZE[1] == found["compared"]
    assert found["agreement"] > 0.995 and found["mean_iou"] > 0.98 and found["in_neither"] == 0
    assert set(found["class_iou"]) <= set(label_set().names[1:]) and len(found["class_iou"]) > 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_the_same_pixels(scan):
    scene = load_scene(scan)
    mesh, frames = load_label_mesh(scene), LabelImages(scene).frames
    counts = compare_labels(scene, mesh, frames, device="cuda").counts
    on_cpu = compare_labels(scene, mesh, frames).counts
    assert (counts - on_cpu).abs().sum() <= 0.002 * on_cpu.sum()  # pixels whose centres lie on edges


def test_shifted_images_agree_less_the_further_they_are(scan):
    agreement = []
    for shift in (1, 4, 12):
        for frame in range(1, COUNT):
            write(scan, frame, np.roll(exact(frame), shift, axis=1))
        agreement.append(compared(scan)["agreement"])
    assert 0.98 > agreement[0] > 0.9 > agreement[1] > agreement[2]


def test_images_of_half_the_size_are_compared_at_theirs(scan):
    classes, _ = trace_room_labels(fixture_poses(COUNT)[2], fixture_intrinsics((24, 32)), (24, 32))
    for frame in range(1, COUNT):
        (scan / "label-filt" / f"{frame}.png").unlink()
    write(scan, 2, (classes + RAW).numpy().astype(np.uint16))
    found = compared(scan)
    assert found["pixels"] == 24 * 32 and found["agreement"] > 0.99


def test_pixels_without_a_label_are_counted_apart(scan):
    for frame in range(1, COUNT):
        ids = exact(frame)
        ids[:12] = 0
        write(scan, frame, ids)
    found = compared(scan)
    assert found["only_rasterized"] == (COUNT - 1) * 12 * SIZE[1] == found["pixels"] - found["compared"]
    assert found["only_label_images"] == 0 and found["agreement"] > 0.995


def test_figures_are_those_of_the_counts():
    counts = torch.zeros(label_set().num_classes, label_set().num_classes, dtype=torch.int64)
    counts[0, 0], counts[0, 1], counts[2, 0], counts[1, 1], counts[1, 2], counts[2, 2] = 1, 2, 3, 10, 5, 20
    found = LabelAgreement(4, counts).figures()
    wall, floor = label_set().names[1:3]
    assert found == {
        "images": 4, "pixels": 41, "compared": 35, "agreement": 30 / 35, "mean_iou": (10 / 15 + 20 / 25) / 2,
        "only_rasterized": 3, "only_label_images": 2, "in_neither": 1, "class_iou": {wall: 10 / 15, floor: 20 / 25},
    }  # fmt: skip
    assert LabelAgreement(0, counts * 0).figures()["agreement"] is None


@pytest.mark.parametrize("table", ["configs/labels/scannet200.tsv", "names"])
def test_other_label_sets_read_the_same_images(scan, tmp_path, table):
    """Raw ids as they are, or the categories' names."""
    if table == "names":
        table = tmp_path / "own.tsv"
        table.write_text("# ids: names\nid\tname\tcolor\n7\twall\t#010203\n9\tfloor\t#040506\n")
    with gin.unlock_config():
        gin.bind_parameter("label_set.table", str(table))
    classes = LabelImages(load_scene(scan)).read("3")
    ids = torch.from_numpy(exact(3).astype(np.int64))
    if label_set().id_system == "names":
        assert torch.equal(classes, torch.where(ids == RAW + 1, 1, torch.where(ids == RAW + 2, 2, 0)).to(torch.uint8))
    else:
        assert torch.equal(classes, torch.from_numpy(label_set().class_of_id)[ids]) and classes.any()


def store_of(scan, tmp_path, names=None):
    cameras = load_scene(scan).cameras((24, 32))
    if names is not None:
        cameras.names[:] = names
    path = tmp_path / "views" / scan.name
    writer = ViewStoreWriter.create(path, cameras, {"rgb": ("uint8", (3, 24, 32))}, {})
    writer.write(range(len(cameras)), {"rgb": torch.ones(len(cameras), 3, 24, 32, dtype=torch.uint8)})
    writer.finish()
    return path


def test_annotate_says_how_far_they_agree_also_of_labels_that_are_there(scan, tmp_path):
    store = store_of(scan, tmp_path)
    without = annotate(str(scan.parent), str(store.parent), device="cpu")[scan.name]
    found = annotate(str(scan.parent), str(store.parent), device="cpu", compare_label_images=True)[scan.name]
    agreement = found.pop("label_images")
    assert found == without and agreement["images"] == COUNT - 1 and agreement["agreement"] > 0.995


def test_views_that_are_no_frames_are_refused_before_anything_is_made(scan, tmp_path):
    store = store_of(scan, tmp_path, [f"dome{number}" for number in range(COUNT)])
    with pytest.raises(UserError, match="has no view of the 5 frames that have label images"):
        annotate.plan(str(scan.parent), str(store.parent), device="cpu", compare_label_images=True)


@pytest.mark.parametrize("ids, message", [
    (np.full(SIZE, 99, np.uint16), "2.png holds the id 99, which .*combined.tsv does not list"),
    (np.full((48, 48), RAW + 1, np.uint16), "2.png is 48x48, the photographs are 64x48"),
    (np.zeros((*SIZE, 3), np.uint8), r"2.png holds uint8 \[48, 64, 3\]; expected one channel"),
])  # fmt: skip
def test_images_that_cannot_be_are_refused_by_name(scan, ids, message):
    write(scan, 2, ids)
    with pytest.raises(UserError, match=message):
        LabelImages(load_scene(scan)).read("2")


def test_garbage_is_refused_by_name(scan):
    sound = (scan / "label-filt" / "2.png").read_bytes()
    for content in (b"", b"\0" * 99, sound[: len(sound) // 2], b"<html>"):
        (scan / "label-filt" / "2.png").write_bytes(content)
        with pytest.raises(UserError, match="2.png"):
            LabelImages(load_scene(scan)).read("2")
    table = scan.parents[1] / "scannetv2-labels.combined.tsv"
    table.write_text("id\traw_category\n101\twall\n")
    with pytest.raises(UserError, match=r"combined.tsv.*'nyu40id' is missing"):
        LabelImages(load_scene(scan)).read("3")
    for file in (scan / "label-filt").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="label-filt holds no label image"):
        LabelImages(load_scene(scan))
