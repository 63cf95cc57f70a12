"""The task ``fuse``: perfect predictions give the annotation back; outputs, refusals, interruptions, checkpoints."""

import json
import math

import gin
import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d, one_hot

from dataloader import SceneTransform, ViewStore, load_mesh
from enet import fused_scene, predictions
from enet.field_fusion import certainty_of
from enet.inputs import Beside
from enet.task_fuse import fuse
from model import PlenoxelGrid, RadianceField
from model.nested_grids import nest_grids
from model.semantic_field import SEMANTIC_FILE, SemanticField, classes_at
from model.task_annotate import annotate
from tests.model.test_render_task import call as render
from tests.model.test_render_task import contents, work  # noqa: F401  (a fixture)
from utils.errors import UserError
from utils.labels import ids_to_classes, label_set

SCENE = "scene0000_00"


@pytest.fixture(scope="module")
def fields(work):  # noqa: F811
    """Field and annotated views of the fixture's room, and perfect predictions of the views."""
    render(work, work / "views")
    annotate(str(work / "scans"), str(work / "views"), device="cpu", label_rule="nearest_vertex")
    labels = ViewStore(work / "views" / SCENE).tensor("label").long()
    folder = work / "predictions"
    folder.mkdir()
    np.save(folder / f"{SCENE}.npy", one_hot(labels, 21).movedim(-1, 1).half().numpy())
    return work


def run(fields, output, **options):
    options = {"predictions": str(fields / "predictions"), "device": "cpu", **options}
    return fuse(str(fields / "fields"), str(fields / "views"), str(output), **options)


def away_from_edges(labels):
    """Pixels whose neighbours, two away, all have their label; unannotated ones are left out."""
    images = labels.float()[:, None]
    same = max_pool2d(images, 5, 1, 2) == -max_pool2d(-images, 5, 1, 2)
    return same[:, 0] & (labels > 0)


def test_perfect_predictions_give_the_annotation(fields, tmp_path):
    metrics = run(fields, tmp_path)
    truth = ViewStore(fields / "views" / SCENE).tensor("label")
    label = torch.from_numpy(np.load(tmp_path / SCENE / "label.npy"))
    assert label.dtype == torch.uint8 and label.shape == truth.shape
    inner = away_from_edges(truth)
    assert inner.float().mean() > 0.2
    assert (label[inner] == truth[inner]).float().mean() > 0.995
    assert metrics["single"]["mean_iou"] == 1.0 and metrics["single"]["pixel_accuracy"] == 1.0
    assert metrics["fused"]["pixel_accuracy"] > 0.9
    assert metrics["scenes"][SCENE]["fused"] == metrics["fused"] and metrics["scenes"][SCENE]["views"] == 6
    assert set(metrics["fused"]["class_iou"]) == set(metrics["single"]["class_iou"])
    assert metrics["vertices"] is None


def test_certainty_by_hand():
    """Certain, uniform, two classes alike, and nothing; channel 0 is no class."""
    mean = torch.zeros(4, 21)
    mean[0, 3], mean[1, 1:], mean[2, [4, 7]], mean[0, 0] = 0.6, 0.05, 0.4, 0.4
    expected = torch.tensor([1.0, 0.0, 1 - math.log(2) / math.log(20), 0.0])
    torch.testing.assert_close(certainty_of(mean), expected, atol=1e-5, rtol=0)


def test_confidence_is_stored_beside_the_labels(fields, tmp_path):
    """Of perfect predictions within patches, not much larger than voxels, it is high; of uniform ones 0 everywhere."""
    gin.bind_parameter("RefinementOptions.steps", 0)
    run(fields, tmp_path / "perfect")
    values = np.load(fields / "predictions" / f"{SCENE}.npy")
    np.save(tmp_path / f"{SCENE}.npy", np.full_like(values, 1 / 21))
    run(fields, tmp_path / "uniform", predictions=str(tmp_path))
    sure, unsure = (np.load(tmp_path / name / SCENE / "confidence.npy") for name in ("perfect", "uniform"))
    truth = ViewStore(fields / "views" / SCENE).tensor("label")
    assert sure.shape == truth.shape and sure.dtype == np.uint8
    assert np.median(sure[away_from_edges(truth).numpy()]) > 120 and unsure.max() <= 1
    assert json.loads((tmp_path / "perfect" / SCENE / "source.json").read_text()) == {"trained_on": None}


def test_the_mesh_is_labelled_in_scannets_colours(fields, tmp_path):
    metrics = run(fields, tmp_path, scans_dir=str(fields / "scans"))
    mesh = load_mesh(tmp_path / SCENE / "mesh.ply", require_labels=True)
    original = load_mesh(next((fields / "scans" / SCENE).glob("*.labels.ply")))
    assert torch.equal(mesh.vertices, original.vertices) and torch.equal(mesh.faces, original.faces)
    classes = ids_to_classes(mesh.labels.numpy())
    assert np.array_equal(mesh.colors.numpy(), label_set().colors[classes])
    assert (classes > 0).any() and metrics["vertices"]["pixel_accuracy"] > 0.1  # vertices lie on the borders of patches


def test_classes_at_points_within_patches(fields, tmp_path):
    run(fields, tmp_path)
    mesh = load_mesh(next((fields / "scans" / SCENE).glob("*.labels.ply")))
    corners = mesh.faces.long()
    truth = ids_to_classes(mesh.labels[corners])
    within = (truth == truth[:, :1]).all(1) & (truth[:, 0] > 0)
    field = RadianceField.load(fields / "fields" / f"plenoxel_scannet_{SCENE}")
    semantic = SemanticField.load(tmp_path / SCENE / SEMANTIC_FILE, field.grid)
    points = mesh.vertices[corners[within]].mean(1)
    classes = classes_at(field, semantic, points)
    cell = ((field.transform.points_to_grid(points) + 1) * 12 - 0.5).round().long()
    rows = field.grid.links[tuple(cell.T)].long()
    seen = (rows >= 0) & (semantic.evidence[rows] > 0.5)  # not only from the rim of a view
    assert seen.sum() > 20
    assert (classes[seen] == truth[within][seen, 0]).float().mean() > 0.9


def test_classes_at_points_of_nested_grids():
    """At a voxel's middle its own class is found, whichever level it is in."""
    generator = torch.Generator().manual_seed(0)
    grids = []
    for level in range(3):
        mask = torch.ones(8, 8, 8, dtype=torch.bool)
        mask[2:6, 2:6, 2:6] = level == 0
        count = int(mask.sum())
        grids.append(PlenoxelGrid.from_mask(mask, torch.ones(count), torch.zeros(count, 27)))
    grid = nest_grids(grids)
    classes = torch.randint(1, 5, (grid.num_voxels,), generator=generator)
    probabilities = torch.nn.functional.one_hot(classes, 5).float()
    semantic = SemanticField(probabilities, *torch.ones(2, grid.num_voxels))
    found = classes_at(RadianceField(grid, SceneTransform.identity()), semantic, grid.voxel_centers())
    assert torch.equal(found, classes.to(torch.uint8))


def test_smaller_predictions_are_taken(fields, tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    values = torch.from_numpy(np.load(fields / "predictions" / f"{SCENE}.npy")).float()
    small = torch.nn.functional.interpolate(values, size=(15, 20), mode="area")
    np.save(folder / f"{SCENE}.npy", (small / small.sum(1, keepdim=True)).half().numpy())
    metrics = run(fields, tmp_path / "fused", predictions=str(folder))
    assert np.load(tmp_path / "fused" / SCENE / "label.npy").shape == (6, 31, 40)
    assert metrics["single"]["pixel_accuracy"] > 0.8 and metrics["fused"]["pixel_accuracy"] > 0.8


def test_killed_and_resumed_gives_the_same_bytes(fields, tmp_path, monkeypatch, resume):
    run(fields, tmp_path / "whole")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fused_scene, "render_labels", fail)
    with pytest.raises(KeyboardInterrupt):
        run(fields, tmp_path / "cut")
    assert not (tmp_path / "cut" / SCENE).exists() and (tmp_path / "cut" / f"{SCENE}.partial" / SEMANTIC_FILE).exists()
    monkeypatch.undo()
    again = run(fields, tmp_path / "cut")
    assert contents(tmp_path / "whole" / SCENE) == contents(tmp_path / "cut" / SCENE)
    assert run(fields, tmp_path / "cut") == again  # finished already


def test_other_settings_are_refused(fields, tmp_path):
    run(fields, tmp_path)
    gin.bind_parameter("RefinementOptions.trust", 2.0)
    with pytest.raises(UserError, match="refinement.trust"):
        fuse.plan(str(fields / "fields"), str(fields / "views"), str(tmp_path), device="cpu",
                  predictions=str(fields / "predictions"))  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v[:5], "the store has 6 views"),
        (lambda v: v[:, :20], "21 classes"),
        (lambda v: v[0], "expected predicted class probabilities"),
        (lambda v: v.astype(np.float64), "expected predicted class probabilities"),
        (lambda v: v * 2, "holds no probabilities"),
        (lambda v: v * np.float16("nan"), "holds no probabilities"),
    ],
)
def test_wrong_predictions_are_refused(change, message, fields, tmp_path):
    values = np.load(fields / "predictions" / f"{SCENE}.npy")
    np.save(tmp_path / f"{SCENE}.npy", change(values))
    with pytest.raises(UserError, match=message):
        run(fields, tmp_path / "fused", predictions=str(tmp_path))


def test_truncated_or_absent_predictions_are_refused(fields, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        run(fields, tmp_path / "fused", predictions=str(tmp_path))
    whole = (fields / "predictions" / f"{SCENE}.npy").read_bytes()
    (tmp_path / f"{SCENE}.npy").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="truncated"):
        run(fields, tmp_path / "fused", predictions=str(tmp_path))


@pytest.mark.parametrize("options", [{"predictions": ""}, {"checkpoint": "x"}])
def test_one_source_of_predictions_is_needed(options, fields, tmp_path):
    with pytest.raises(UserError, match="set one of them"):
        run(fields, tmp_path, **options)


def test_a_checkpoint_predicts(fields, tmp_path, monkeypatch):
    """Its predictions, fused, are those of a file that holds them; the views need no labels."""
    from enet.module import SegmentationModule
    from enet.options import ViewOptions

    class Network(torch.nn.Module):
        beside = Beside()

    size = None

    class Constant(SegmentationModule):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.network = Network()
            self._set_hparams({"views": ViewOptions().__dict__, "size": size, "scenes": ["scene0009_00"]})

        device = torch.device("cpu")

        def predict(self, color, sh=None):
            assert sh is None and color.min() >= 0 and color.max() <= 1
            return torch.softmax(color.mean(1, keepdim=True) * torch.arange(21.0)[None, :, None, None], 1)

    (tmp_path / "net.ckpt").write_bytes(b"weights")
    monkeypatch.setattr(fused_scene, "load_checkpoint", lambda path, device: Constant())
    by_network = run(fields, tmp_path / "network", predictions="", checkpoint=str(tmp_path / "net.ckpt"), batch_size=4)
    store = ViewStore(fields / "views" / SCENE)
    color = torch.stack([store.read("rgb", view) for view in range(len(store))])
    np.save(tmp_path / f"{SCENE}.npy", Constant().predict(color).numpy())
    by_file = run(fields, tmp_path / "file", predictions=str(tmp_path))
    assert json.dumps(by_network) == json.dumps(by_file)
    source = json.loads((tmp_path / "network" / SCENE / "source.json").read_text())
    assert source == {"trained_on": ["scene0009_00"]}
    labels = [(tmp_path / name / SCENE / "label.npy").read_bytes() for name in ("network", "file")]
    assert labels[0] == labels[1]
    size = (124, 124)
    options = {"predictions": "", "checkpoint": str(tmp_path / "net.ckpt")}
    with pytest.raises(UserError, match="trained on images of 124x124 pixels, these have 40x31.*fuse.other_size"):
        run(fields, tmp_path / "other", **options)
    run(fields, tmp_path / "other", **options, other_size=True)


def test_sh_images_reach_the_network_in_its_axes(fields):
    """As views for training have them: rotated into the frame that the network's options name."""
    from enet.options import ViewOptions
    from enet.stored_views import StoredViews

    seen = []

    class Module:
        device = torch.device("cpu")
        network = type("Network", (), {"beside": Beside(uses_sh=True)})
        hparams = {"views": {**ViewOptions(sh_frame="camera").__dict__}, "scenes": []}

        def predict(self, color, sh):
            seen.append(sh)
            return torch.full((len(color), 21, *color.shape[-2:]), 1 / 21)

    store = ViewStore(fields / "views" / SCENE)
    assert len(list(predictions.CheckpointPredictions(Module(), store, 4))) == 2
    source = StoredViews([store.path], ViewOptions(sh_frame="camera", cache=False, workers=0), uses_sh=True)
    expected = [batch.resolve().sh for batch in source.batches(source.ordered_steps(4), torch.device("cpu"))]
    torch.testing.assert_close(torch.cat(seen), torch.cat(expected), atol=1e-5, rtol=1e-5)
