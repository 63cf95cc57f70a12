"""From stores to batches: the right view in the right place, SH in the right axes, and bad stores named."""

from pathlib import Path

import pytest
import torch

from dataloader import StoreViews, ViewDataset, ViewStore
from enet.augmentation import NUM_DRAWS, ViewBatch
from enet.options import AugmentationOptions, ViewOptions
from enet.statistics import compute_statistics
from enet.view_data import view_data
from enet.view_decoder import ViewDecoder, sh_matrices
from utils.errors import UserError
from utils.spherical_harmonics import sh_basis

CPU = torch.device("cpu")


def load(stores, uses_sh: bool = True, options: ViewOptions | None = None, batch_size: int = 3) -> list[ViewBatch]:
    """All views in order, as the network takes them."""
    data = view_data(options or ViewOptions(), uses_sh, val_stores=stores, batch_size=batch_size)
    return list(data.val_dataloader())


@pytest.mark.parametrize("sh_dtype", ["uint8", "float16"])
@pytest.mark.parametrize("cache", [True, False])
def test_batches_are_the_stores_views_in_order(make_store, cache, sh_dtype):
    paths = [make_store("a", count=4, sh_dtype=sh_dtype), make_store("b", folder="novel", count=3, sh_dtype=sh_dtype)]
    chosen = [StoreViews(paths[0], (1, 3)), StoreViews(paths[1])]
    batches = load(chosen, options=ViewOptions(color="photo", cache=cache, workers=0))
    stores = [ViewStore(path) for path in paths]
    expected = [(stores[0], 1), (stores[0], 3), *((stores[1], view) for view in range(3))]
    assert [len(batch.label) for batch in batches] == [3, 2]
    for field, channel in (("color", "photo"), ("sh", "sh"), ("label", "label")):
        found = torch.cat([getattr(batch, field) for batch in batches])
        assert torch.allclose(found, torch.stack([s.read(channel, v) for s, v in expected]).to(found.dtype))


def test_training_batches_wait_for_the_step_to_be_decoded(make_store):
    store = make_store("a", count=5)
    data = view_data(ViewOptions(), False, train_stores=[store], batch_size=2, weighted=True)
    loader = data.train_dataloader()
    views, draws = loader.sampler.epoch_batches()
    stored, quality = ViewStore(store).tensor("label"), ViewStore(store).tensor("quality")
    for batch, expected, random in zip(loader, views, draws, strict=True):
        assert torch.equal(batch.values["index"], expected) and torch.equal(batch.values["draws"], random)
        decoded = batch.decode()
        assert torch.equal(decoded.label, stored[expected])
        assert torch.equal(decoded.quality, quality[expected].float() / 255)


@pytest.mark.parametrize("frame", ["grid", "gravity", "camera"])
def test_mirrored_view_shows_the_mirrored_world(make_store, frame):
    """What a ray through the mirrored pixel sees is what the ray's mirror image saw before."""
    path = make_store("a", count=2, sh_dtype="float16")
    dataset = ViewDataset([path], inputs="rgb+sh", decoded=False)
    values = dataset.stored_batch(range(2))
    plain = ViewDecoder(dataset, CPU, frame)(values)
    mirroring = ViewDecoder(dataset, CPU, frame, AugmentationOptions(mirror=1.0))
    flipped = mirroring({**values, "draws": torch.zeros(2, NUM_DRAWS)})
    camera = torch.nn.functional.normalize(torch.randn(3, generator=torch.Generator().manual_seed(4)), dim=0)
    camera_mirrored = camera * torch.tensor([-1.0, 1, 1])
    store = dataset.stores[0]
    world_to_grid = torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3]
    for view in range(2):
        to_world = store.cameras.camera_to_world[view][:3, :3]
        to_frame = {"grid": world_to_grid @ to_world, "gravity": to_world, "camera": torch.eye(3).double()}[frame]
        basis, basis_mirrored = (sh_basis((to_frame @ d.double()).float()) for d in (camera, camera_mirrored))
        for channel in range(3):
            block = slice(9 * channel, 9 * channel + 9)
            before = torch.einsum("khw,k->hw", plain.sh[view, block], basis)
            after = torch.einsum("khw,k->hw", flipped.sh[view, block], basis_mirrored)
            assert torch.allclose(after.flip(-1), before, atol=1e-4)
    assert torch.equal(flipped.label, plain.label.flip(-1))


def test_frames_describe_the_same_radiance(make_store):
    path = make_store("a", count=1, sh_dtype="float16")
    dataset = ViewDataset([path], inputs="rgb+sh", decoded=False)
    decoded = {
        frame: ViewDecoder(dataset, CPU, frame)(dataset.stored_batch([0])).sh[0, :9]
        for frame in ("grid", "gravity", "camera")
    }
    store = dataset.stores[0]
    camera = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    world = store.cameras.camera_to_world[0][:3, :3] @ camera
    grid = torch.tensor(store.attributes["T"], dtype=torch.float64)[:3, :3] @ world
    seen = [
        torch.einsum("khw,k->hw", decoded[frame], sh_basis(direction.float()))
        for frame, direction in (("grid", grid), ("gravity", world), ("camera", camera))
    ]
    assert torch.allclose(seen[0], seen[1], atol=1e-4) and torch.allclose(seen[0], seen[2], atol=1e-4)


def test_no_matrices_where_nothing_turns(make_store):
    dataset = ViewDataset([make_store("a")], inputs="rgb+sh", decoded=False)
    assert sh_matrices(dataset, "grid", mirroring=False) is None


def test_statistics_are_those_of_all_pixels(make_store):
    paths = [make_store("a", count=3), make_store("b", count=2)]
    statistics = compute_statistics(load(paths, batch_size=2))
    stores = [ViewStore(path) for path in paths]
    for name, mean, std in (
        ("rgb", statistics.color_mean, statistics.color_std), ("sh", statistics.sh_mean, statistics.sh_std)
    ):  # fmt: skip
        pixels = torch.cat([store.read(name, view).flatten(1) for store in stores for view in range(len(store))], 1)
        assert torch.allclose(mean, pixels.mean(1), atol=1e-5)
        assert torch.allclose(std, pixels.std(1, correction=0), atol=1e-5)
    labels = torch.cat([store.tensor("label") for store in stores])
    for index in range(21):
        assert statistics.class_pixels[index] == (labels == index).sum()
        assert statistics.view_pixels[index] == (labels == index).flatten(1).any(1).sum() * labels[0].numel()


def test_bad_stores_are_named(make_store):
    def refused(match: str, path: Path) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load([path])
        assert path.name in str(caught.value)

    refused("label", make_store("unlabelled", leave_out=["label"]))
    refused("sh", make_store("colour_only", leave_out=["sh"]))
    wrong = torch.full((4, 24, 27), 39, dtype=torch.uint8)
    refused("39.*0..20", make_store("nyu40", label=wrong))
    with pytest.raises(UserError, match="size"):
        load([make_store("small"), make_store("large", size=(32, 32))])
