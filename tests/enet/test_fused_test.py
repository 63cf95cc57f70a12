"""Scores of fused predictions in the task ``test``: those of ``fuse``, of the tested views alone, beside the others."""

from dataclasses import asdict

import gin
import numpy as np
import pytest
import torch

from dataloader import ViewStore
from enet import load_checkpoint
from enet.evaluation import sampled_views, samples_of_scenes
from enet.field_fusion import fuse_predictions, render_labels
from enet.metrics import confusion_matrix
from enet.module import SegmentationModule
from enet.options import NetworkOptions, ViewOptions
from enet.task_fuse import fuse
from enet.task_test import test as run_test
from model import RadianceField
from model.task_annotate import annotate
from tests.events import read_events
from tests.model.test_render_task import SIZE, work  # noqa: F401  (a fixture)
from tests.model.test_render_task import call as render
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.images import read_image
from utils.labels import colorize

SCENE = "scene0000_00"


@pytest.fixture(scope="module")
def made(work):  # noqa: F811
    """Field and annotated views of the fixture's room, and a network of random weights."""
    render(work, work / "tested")
    annotate(str(work / "scans"), str(work / "tested"), device="cpu")
    module = SegmentationModule(
        asdict(NetworkOptions()), views=asdict(ViewOptions()), scenes=["scene0009_00"], size=SIZE, seed=3
    )
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, work / "net.ckpt")
    return work


def run(made, output, **options):
    options = {"fused": True, "fields_dir": str(made / "fields"), "batch_size": 4, "samples": 3, **options}
    return run_test(str(made / "net.ckpt"), [str(made / "tested")], str(output), device="cpu", **options)


def test_scores_are_those_of_fuse(made, tmp_path):
    found = run(made, tmp_path / "test")
    fused = fuse(str(made / "fields"), str(made / "tested"), str(tmp_path / "fused"), str(made / "net.ckpt"),
                 device="cpu", batch_size=4)["fused"]  # fmt: skip
    assert found["fused"]["confusion"] == fused["confusion"] and found["fused"]["mean_iou"] == fused["mean_iou"]
    assert found["confusion"] != found["fused"]["confusion"]
    counts, single = (part["by_scene"][SCENE] for part in (found["fused"], found))
    assert counts["truth"] == single["truth"] and sum(counts["truth"]) > 1000
    assert counts["hits"] == [fused["confusion"][k][k] for k in range(1, 21)]
    assert read_json(tmp_path / "test/fused/results.json") == found["fused"]
    assert found["fused"]["calibration"]["log_loss_at_temperature"] <= found["fused"]["calibration"]["log_loss"]
    scalars = read_events(tmp_path / "test/fused/tensorboard").scalars
    assert scalars["test_fused/mean_iou"] == [pytest.approx(fused["mean_iou"])]


def test_sample_pictures_show_the_same_views_with_fused_labels(made, tmp_path):
    run(made, tmp_path)
    fuse(str(made / "fields"), str(made / "tested"), str(tmp_path / "fuse"), str(made / "net.ckpt"), device="cpu",
         batch_size=4)  # fmt: skip
    labels = np.load(tmp_path / "fuse" / SCENE / "label.npy")
    single, fused = (sorted((tmp_path / name / "samples").glob("*.png")) for name in ("scores", "fused"))
    assert [path.name for path in single] == [path.name for path in fused] == ["000.png", "001.png", "002.png"]
    for view, paths in zip((0, 1, 4), zip(single, fused, strict=True), strict=True):  # two of each batch of four
        (image, truth, _), (image_too, truth_too, shown) = (read_image(path).chunk(3, -1) for path in paths)
        assert torch.equal(image, image_too) and torch.equal(truth, truth_too)
        assert torch.equal(shown, colorize(torch.from_numpy(labels[view])))


def test_only_tested_views_are_fused(made, tmp_path):
    """With held-out frames alone, others add nothing to the field's voxels."""
    store = ViewStore(made / "tested" / SCENE)
    held_out = store.cameras.names[1:4]
    meta = read_json(store.path / "meta.json")
    write_json(store.path / "meta.json", {**meta, "attributes": {**meta["attributes"], "held_out": held_out}})
    some = run(made, tmp_path / "some", frames="held_out")
    write_json(store.path / "meta.json", meta)
    field = RadianceField.load(made / "fields" / f"plenoxel_scannet_{SCENE}")
    cameras = store.cameras.select([1, 2, 3])
    color = torch.stack([store.read("rgb", view) for view in (1, 2, 3)])
    semantic = fuse_predictions(field, [(cameras, [load_checkpoint(made / "net.ckpt").predict(color)])]).as_stored()
    label = torch.cat([labels for _, labels, _ in render_labels(field, semantic, cameras)])
    expected = confusion_matrix(label, store.tensor("label")[1:4].long())
    assert some["fused"]["confusion"] == expected.tolist() and int(expected.sum()) == 3 * SIZE[0] * SIZE[1]


def test_single_views_scores_stay_when_fused_ones_are_added(made, tmp_path):
    plain = run(made, tmp_path, fused=False)
    before = (tmp_path / "scores/results.json").stat().st_mtime_ns
    both = run(made, tmp_path)
    assert {**both, "fused": None} == {**plain, "fused": None} and "fused" not in plain
    assert (tmp_path / "scores/results.json").stat().st_mtime_ns == before
    gin.bind_parameter("FusionOptions.certainty", 0.5)
    with pytest.raises(UserError, match="fused was made with other settings .fusion.certainty = 1.0 there, 0.5 now"):
        run(made, tmp_path)


def test_a_field_is_needed(made, tmp_path):
    with pytest.raises(UserError, match="test.fused = True needs test.fields_dir"):
        run(made, tmp_path, fields_dir="")
    with pytest.raises(UserError, match=f"holds no field of {SCENE}"):
        run(made, tmp_path, fields_dir=str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_samples_by_hand():
    assert sampled_views(6, 4, 3) == [0, 1, 4]
    assert sampled_views(5, 4, 6) == [0, 1, 2, 4]  # the last batch has one view
    assert sampled_views(8, 4, 0) == [] and sampled_views(3, 160, 12) == [0, 1, 2]
    assert samples_of_scenes(12, [40, 40, 40, 40, 40]) == [3, 3, 2, 2, 2]
    assert samples_of_scenes(12, [1, 40]) == [1, 11]
