"""Where a field was wrong is kept per voxel, and rendered back into other views."""

import pytest
import torch

from analysis.evidence import Evidence, matched_colors
from dataloader import CameraList, SceneTransform, ViewStore, ViewStoreWriter
from model import PlenoxelGrid, RadianceField
from utils.cameras import look_at

SIZE = (24, 32)
EYES = torch.tensor([[1.9, 0.2, 0.2], [-1.9, 0.3, 0.3], [1.7, 0.9, -0.3], [-1.7, -0.9, 0.5]]).double()
POSES = look_at(EYES, torch.zeros(4, 3).double())  # two from either side
INTRINSICS = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]).double()


@pytest.fixture(scope="module")
def field():
    """An opaque ball of radius 0.7 with a colour of its own in every voxel."""
    centres = (torch.arange(24) + 0.5) / 12 - 1
    radius = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij")).norm(dim=0)
    mask = radius < 0.7
    count = int(mask.sum())
    sh = torch.zeros(count, 3, 9)
    sh[..., 0] = 3 * (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    grid = PlenoxelGrid.from_mask(mask, torch.full((count,), 60.0), sh.reshape(count, 27))
    return RadianceField(grid, SceneTransform.identity())


def write_store(path, field, photos=None, order=range(4), names=("rgb", "photo", "depth", "alpha")):
    """The field's views; their photographs are the renders, but for ``photos(view, render)``."""
    views = field.render_views(POSES, INTRINSICS.expand(4, 3, 3), SIZE)
    order = list(order)
    cameras = CameraList("ball", [str(k) for k in order], POSES[order], INTRINSICS.expand(4, 3, 3).clone(), SIZE,
                         [{} for _ in order])  # fmt: skip
    channels = {"rgb": ("uint8", (3, *SIZE)), "photo": ("uint8", (3, *SIZE)), "depth": ("uint16", SIZE),
                "alpha": ("uint8", SIZE)}  # fmt: skip
    writer = ViewStoreWriter.create(path, cameras, {name: channels[name] for name in names}, {"test": True})
    for row, view in enumerate(order):
        rgb, alpha = views.rgb[view].clamp(0, 1), views.alpha[view]
        photo = rgb if photos is None else photos(view, rgb)
        values = {"rgb": rgb, "photo": photo, "alpha": alpha, "depth": views.depth[view]}
        writer.write(row, {name: values[name] for name in names})
    writer.finish()
    return ViewStore.open(path)


def wrong_from_the_right(view, render):
    """Photographs taken from x > 0 show something else."""
    return render.flip(2) if EYES[view, 0] > 0 else render


def residual_seen(evidence, field, view):
    alpha = field.render_view(POSES[view], INTRINSICS, SIZE).alpha
    return float(evidence.render(POSES[view], INTRINSICS, alpha)[alpha > 0.9].mean())


def test_a_perfect_field_has_no_residual_but_that_of_eight_bits(field, tmp_path):
    evidence = Evidence.measure(field, write_store(tmp_path / "ball", field), 200, frozenset(), 0.3)
    assert evidence.residual.max() < 1 / 255
    unseen = Evidence.measure(field, write_store(tmp_path / "wrong", field, wrong_from_the_right), 1, frozenset(), 0.3)
    inner = unseen.residual.median()  # most voxels are inside, where no ray comes
    assert inner > 0.02 and (unseen.residual == inner).float().mean() > 0.5, "they have the mean of the scene"


def test_the_side_that_was_rendered_wrongly_shows_it_from_other_cameras_too(field, tmp_path):
    store = write_store(tmp_path / "ball", field, wrong_from_the_right)
    evidence = Evidence.measure(field, store, 200, frozenset({"2", "3"}), 0.3)
    right, left = residual_seen(evidence, field, 2), residual_seen(evidence, field, 3)  # neither was looked at
    assert right > 0.02 and right > 3 * left


def test_held_out_photographs_are_never_looked_at(field, tmp_path):
    def nonsense_when_held_out(view, render):
        return torch.rand(3, *SIZE) if view in (0, 2) else render

    held_out = frozenset({"0", "2"})
    first = Evidence.measure(field, write_store(tmp_path / "a", field), 200, held_out, 0.3)
    second = Evidence.measure(field, write_store(tmp_path / "b", field, nonsense_when_held_out), 200, held_out, 0.3)
    assert torch.equal(first.residual, second.residual)


def test_the_order_of_views_changes_nothing_beyond_rounding(field, tmp_path):
    first = Evidence.measure(field, write_store(tmp_path / "a", field, wrong_from_the_right), 200, frozenset(), 0.3)
    other = write_store(tmp_path / "b", field, wrong_from_the_right, order=[2, 0, 3, 1])
    torch.testing.assert_close(Evidence.measure(field, other, 200, frozenset(), 0.3).residual, first.residual)


def test_without_photographs_there_is_none(field, tmp_path):
    store = write_store(tmp_path / "ball", field, names=("rgb", "depth", "alpha"))
    assert Evidence.measure(field, store, 200, frozenset(), 0.3) is None


def test_exposure_and_white_balance_are_no_error():
    image = torch.rand(3, 8, 9)
    gain, offset = torch.tensor([0.5, 1.2, 0.9])[:, None, None], torch.tensor([0.1, -0.1, 0.0])[:, None, None]
    torch.testing.assert_close(matched_colors(image, gain * image + offset), gain * image + offset)
    flat = torch.full((3, 8, 9), 0.3)
    torch.testing.assert_close(matched_colors(flat, image), image.mean((1, 2), keepdim=True).expand_as(image))
