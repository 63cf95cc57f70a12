"""A second source of views, in memory instead of in stores, trains by the same path, without being a special case."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import gin
import pytest
import torch
from pytorch_lightning.plugins.precision import DoublePrecision, MixedPrecision
from torch import Tensor

from dataloader import ViewStore
from enet.augmentation import augment
from enet.data_module import SegmentationDataModule
from enet.draws import NUM_DRAWS, Draws
from enet.mixing import MixOptions
from enet.module import SegmentationModule
from enet.options import AugmentationOptions, LossOptions, NetworkOptions, OptimizerOptions, ViewOptions
from enet.stored_views import StoredViews
from enet.training import Budget, TrainingOptions, train_once
from enet.view_source import DeferredBatch, Step, TrainingOrder, ViewBatch, ViewSource, in_order
from tests.enet.conftest import SIZE
from utils.files import read_json
from utils.labels import label_set

CPU = torch.device("cpu")
AUGMENTATION = AugmentationOptions(
    smallest_crop=0.7, brightness=0.2, contrast=0.2, saturation=0.2, white_balance=0.1, hue=0.1, gamma=0.2, blur=0.8,
    noise=0.02,
)  # fmt: skip


def paint(views: ViewBatch, draws: Tensor | None) -> ViewBatch:
    """The last thing done to a batch. A number of each view beyond the augmentation's, if there is one, changes what is
    seen, as a new pose would."""
    if draws is None:
        return views
    views = augment(views, Draws.split(draws), AUGMENTATION)
    if draws.shape[1] > NUM_DRAWS:
        views.color = views.color * draws[:, NUM_DRAWS, None, None, None]
    return views


class PaintedViews(ViewSource):
    """Views in memory, decoded; ``fresh`` ones look new in every epoch."""

    size, has_sh, has_weight = SIZE, True, True

    def __init__(self, views: ViewBatch, scenes: list[str], fresh: bool = False):
        self.views, self.scenes = views, scenes
        self.num_draws = NUM_DRAWS + fresh

    def __len__(self) -> int:
        return len(self.views.label)

    def identity(self) -> dict:
        return {"painted": float(self.views.color.sum()), "draws": self.num_draws}

    def batches(self, steps: Sequence[Step], device: torch.device) -> Iterator[DeferredBatch]:
        for step in steps:
            held = {name: values for name, values in vars(self.views).items() if values is not None}
            chosen = ViewBatch(**{name: values[step.views].to(device) for name, values in held.items()})
            yield DeferredBatch(paint, chosen, step.draws)


class ScenesApart(PaintedViews):
    """Each process has every n-th view at hand, as one with its own scenes resident would."""

    def training_steps(self, order: TrainingOrder, epoch: int) -> list[Step]:
        mine = torch.arange(order.rank, len(self), order.world_size)
        share = TrainingOrder(order.epoch_views // order.world_size, order.batch_size, order.seed + order.rank)
        return [Step(mine[step.views], step.draws) for step in share.shuffled(len(mine), self.num_draws, epoch)]

    def ordered_steps(self, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Step]:
        return [Step(step.views * world_size + rank) for step in in_order(len(self) // world_size, batch_size)]


def options() -> TrainingOptions:
    return TrainingOptions(
        NetworkOptions(stem="conv_sum"), ViewOptions(), AUGMENTATION, LossOptions(quality=True), OptimizerOptions()
    )


def train(folder, training: ViewSource, validation: ViewSource) -> dict:
    budget = Budget(epochs=2, batch_size=4, epoch_views=len(training))
    train_once(folder, training, validation, options(), budget, CPU)
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def stored(paths, training: bool) -> StoredViews:
    return StoredViews(paths, ViewOptions(), True, AUGMENTATION if training else None, weighted=training)


def painted(paths, kind: type[PaintedViews] = PaintedViews, **changes) -> PaintedViews:
    """The same views as those of the stores."""
    stores = [ViewStore(path) for path in paths]
    channels = [torch.cat([torch.stack([store.read(name, view) for view in range(len(store))]) for store in stores])
                for name in ("rgb", "sh", "label", "quality")]  # fmt: skip
    color, sh, label, quality = channels
    return kind(ViewBatch(color, sh, label.to(torch.uint8), quality), [store.scene for store in stores], **changes)


@pytest.fixture
def rooms(views):
    return sorted(views.iterdir())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_source_in_memory_trains_to_the_same_bits_as_stores_with_its_views(rooms, tmp_path):
    expected = train(tmp_path / "stored", stored(rooms[:2], True), stored(rooms[2:3], False))
    found = train(tmp_path / "painted", painted(rooms[:2]), painted(rooms[2:3]))
    assert_same(found, expected)
    results = [read_json(tmp_path / name / "results.json") for name in ("stored", "painted")]
    assert results[0]["validation"] == results[1]["validation"]
    assert (results[1]["training_views"], results[1]["validation_views"]) == (16, 8)
    settings = read_json(tmp_path / "painted/settings.json")
    assert settings["training"] == painted(rooms[:2]).identity()


class Killed(Exception):
    pass


def test_views_that_are_new_in_every_epoch_are_the_same_after_resuming(rooms, tmp_path, monkeypatch, resume):
    training, validation = painted(rooms[:2], fresh=True), painted(rooms[2:3])
    expected = train(tmp_path / "whole", training, validation)
    training_step = SegmentationModule.training_step

    def killed_step(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 2:
            raise Killed
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as killing:
        killing.setattr(SegmentationModule, "training_step", killed_step)
        with pytest.raises(Killed):
            train(tmp_path / "cut", training, validation)
    assert_same(train(tmp_path / "cut", training, validation), expected)


def test_a_source_decides_what_each_process_sees(rooms):
    source = painted(rooms[:2], ScenesApart)
    data = SegmentationDataModule(source, source, batch_size=2, epoch_views=16, seed=0)
    for rank in range(2):
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, strategy=SimpleNamespace(root_device=CPU)
        )  # fmt: skip
        loader = data.train_dataloader()
        seen = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches = list(loader)
            assert len(batches) == len(loader) == 4
            seen.append(torch.cat([batch.parts[0].color for batch in batches]))
        mine = source.views.color[rank::2]
        assert not torch.equal(*seen)  # another order
        for colors in seen:
            assert torch.equal(colors.flatten(1).sum(1).sort().values, mine.flatten(1).sum(1).sort().values)
        validated = torch.cat([batch.resolve().color for batch in data.val_dataloader()])
        assert torch.equal(validated, mine)


@pytest.mark.parametrize("kind", ["stored", "painted"])
def test_what_a_batch_still_needs_is_one_graph_for_the_compiler(rooms, kind):
    source = stored(rooms[:2], True) if kind == "stored" else painted(rooms[:2], fresh=True)
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda batch: batch.resolve(), backend=count, fullgraph=True, dynamic=False)
    for epoch in range(2):
        for batch in source.batches(source.training_steps(TrainingOrder(epoch_views=16, batch_size=4), epoch), CPU):
            found, expected = vars(compiled(batch)), vars(batch.resolve())
            assert all(torch.equal(found[name], expected[name]) for name in expected if expected[name] is not None)
    assert len(graphs) == 1


@pytest.mark.parametrize("kind", ["stored", "painted"])
def test_lightning_converts_nothing_within_a_batch(rooms, kind):
    source = stored(rooms[:1], True) if kind == "stored" else painted(rooms[:1])
    (batch,) = source.batches(source.training_steps(TrainingOrder(epoch_views=4, batch_size=4), epoch=0), CPU)
    for precision in (DoublePrecision(), MixedPrecision("bf16-mixed", "cpu")):
        assert precision.convert_input(batch) is batch


def test_what_a_network_needs_and_a_source_lacks_is_refused(rooms, tmp_path):
    training, validation = painted(rooms[:2]), painted(rooms[2:3])
    validation.has_sh = False
    with pytest.raises(ValueError, match="'conv_sum' takes SH images"):
        train(tmp_path / "run", training, validation)
    validation.has_sh, training.has_weight = True, False
    with pytest.raises(ValueError, match="no weights"):
        train(tmp_path / "run", training, validation)


def test_a_process_that_shares_a_training_has_its_config(rooms):
    """Option groups that a source asks for there, and the label set, are those of the process that started it."""
    module = SegmentationDataModule(painted(rooms[:1]), painted(rooms[:1]), 2, 16, 0)
    gin.bind_parameter("label_set.table", "configs/labels/nyu40.tsv")
    gin.bind_parameter("MixOptions.shares", (0.25, 0.75))
    data = pickle.dumps(module)
    gin.clear_config()
    pickle.loads(data)
    assert label_set().path.name == "nyu40.tsv" and MixOptions().shares == (0.25, 0.75)
