"""Augmentation keeps all that a batch holds aligned, and a mirrored view is a view of the mirrored world."""

import pytest
import torch

from enet.augmentation import augment, mirrored
from enet.draws import NUM_DRAWS, Draws
from enet.options import AugmentationOptions
from enet.view_source import ViewBatch
from utils.errors import UserError

SIZE = (16, 20)


def make_batch(count: int = 6, seed: int = 0) -> ViewBatch:
    """Everything in the batch is a function of the label, so that alignment can be seen."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(21, (count, SIZE[0] // 4, SIZE[1] // 4), generator=generator).to(torch.uint8)
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2)
    value = label.float()[:, None] / 20
    color, sh, geometry = (value.expand(-1, channels, -1, -1).clone() for channels in (3, 27, 6))
    return ViewBatch(color, sh, label, value[:, 0], geometry)


def make_draws(count: int = 6, seed: int = 1, **fixed: float) -> Draws:
    draws = Draws.split(torch.rand(count, NUM_DRAWS, generator=torch.Generator().manual_seed(seed)))
    return Draws(**{**vars(draws), **{name: torch.full((count,), value) for name, value in fixed.items()}})


def test_defaults_change_nothing():
    batch = make_batch()
    changed = augment(batch, make_draws(), AugmentationOptions())
    assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(changed).values(), strict=True))


def test_mirror_flips_everything_of_the_chosen_views_only():
    batch, draws, options = make_batch(), make_draws(), AugmentationOptions(mirror=0.5)
    chosen = mirrored(draws, options)
    assert 0 < int(chosen.sum()) < 6
    changed = augment(batch, draws, options)
    for before, after in zip(vars(batch).values(), vars(changed).values(), strict=True):
        assert torch.equal(after[chosen], before[chosen].flip(-1)) and torch.equal(after[~chosen], before[~chosen])


def test_crop_takes_all_along_and_labels_by_nearest():
    batch = make_batch()
    changed = augment(batch, make_draws(), AugmentationOptions(smallest_crop=0.5))
    assert not torch.equal(changed.label, batch.label)
    assert set(changed.label.unique().tolist()) <= set(batch.label.unique().tolist())
    inside = (changed.weight * 20).frac().abs() < 1e-4  # away from where two labels were blended
    value = changed.label.float() / 20
    agree = ((changed.color[:, 0] - value).abs() < 0.02) & ((changed.sh[:, 13] - value).abs() < 0.02)
    assert inside.float().mean() > 0.4 and agree[inside].float().mean() > 0.98
    # Geometry is taken from the very pixel that the label is.
    assert torch.equal(changed.geometry, value[:, None].expand(-1, 6, -1, -1))


def test_crop_of_half_the_size_at_the_top_left_shows_that_quarter():
    batch = make_batch()
    draws = make_draws(crop_size=0.0, crop_row=0.0, crop_column=0.0)
    changed = augment(batch, draws, AugmentationOptions(smallest_crop=0.5))
    expected = batch.label[:, :8, :10].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(changed.label, expected)


def test_jitter_touches_colour_only_and_by_the_right_factor():
    batch = make_batch()
    draws = make_draws(brightness=0.75, contrast=0.5, saturation=0.5)  # factors 1 + 0.2 * 0.5, 1, 1
    changed = augment(batch, draws, AugmentationOptions(brightness=0.2, contrast=0.3, saturation=0.3))
    assert torch.allclose(changed.color, (batch.color * 1.1).clamp(0, 1), atol=1e-6)
    assert torch.equal(changed.sh, batch.sh) and torch.equal(changed.label, batch.label)
    assert torch.equal(changed.geometry, batch.geometry)


@pytest.mark.parametrize("name, value", [("mirror", 1.5), ("smallest_crop", 0.0), ("contrast", -0.1)])
def test_refuses_impossible_options(name, value):
    with pytest.raises(UserError, match=name):
        AugmentationOptions(**{name: value})
