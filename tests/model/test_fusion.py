"""Fusing views on voxels, refining what was fused, and the semantic field's file."""

import inspect

import numpy as np
import pytest
import torch

import model
from dataloader import SceneTransform
from model import fuse_views, fusion, render_rays
from model.fusion import FusionOptions, entropy
from model.fusion_refinement import RefinementOptions, refine_fused
from model.semantic_field import SemanticField
from tests.model.grid_fixture import filled
from tests.model.test_grid import random_grid
from utils.cameras import camera_rays, look_at
from utils.errors import UserError

SIZE, SMALL = (24, 32), (12, 16)
INTRINSICS = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]], dtype=torch.float64)
TRANSFORM = SceneTransform(torch.eye(4), torch.tensor([0.4, -0.3, 0.2]), 0.5)
PLAIN = FusionOptions(certainty=0, context_distance=0)


def ball():
    """A ball of voxels around the grid's middle, opaque."""
    cells = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"), -1)
    return filled((cells - 7.5).norm(dim=-1) < 5, density=300.0)


def cameras(count=5):
    eyes = torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    middle = TRANSFORM.points_from_grid(torch.zeros(1, 3, dtype=torch.float64))
    return look_at(middle + eyes.double() * 3, middle.expand(count, 3)), INTRINSICS.expand(count, 3, 3)


def predictions(count=5, channels=4, size=SMALL, seed=0):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(1)


def fuse(grid, probabilities, count=5, options=PLAIN, **more):
    return fuse_views(grid, probabilities, *cameras(count), SIZE, TRANSFORM, options=options, **more)


def test_signature_is_that_of_the_design():
    assert "fuse_views" in model.__all__
    names = ["grid", "probabilities", "camera_to_world", "intrinsics", "size", "transform", "weights"]
    assert list(inspect.signature(fuse_views).parameters)[:7] == names


def test_a_voxel_gets_the_mean_of_the_rays_that_see_it():
    """Written out with the weights of the reference, for rays through the centres of predictions' pixels."""
    from lib.plenoxel.reference_features import _ray_weights
    from model import RenderOptions

    grid, poses, small = ball(), cameras()[0], predictions()
    half = INTRINSICS * torch.tensor([[0.5], [0.5], [1]], dtype=torch.float64)
    rays = [r.reshape(-1, 3) for r in camera_rays(TRANSFORM.to_grid(poses), half, *SMALL)]
    weights = _ray_weights(grid.handle, *rays, RenderOptions())
    expected = weights.T @ small.movedim(1, -1).reshape(-1, 4) / weights.sum(0).clamp(min=1e-9)[:, None]
    seen = weights.sum(0) > 0.01
    assert seen.sum() > 100
    torch.testing.assert_close(fuse(grid, small)[seen], expected[seen], atol=1e-5, rtol=1e-5)


def test_certain_and_distant_rays_count_more():
    grid, poses = ball(), cameras(2)[0]
    sure, torn = torch.tensor([0.98, 0.02]), torch.tensor([0.3, 0.7])
    views = torch.stack([p[:, None, None].expand(2, *SMALL) for p in (sure, torn)])
    poses = torch.stack((poses[0], poses[0]))  # the same view, predicted twice
    means = [fuse_views(grid, views, poses, INTRINSICS.expand(2, 3, 3), SIZE, TRANSFORM, options=options)
             for options in (PLAIN, FusionOptions(certainty=1, context_distance=0))]  # fmt: skip
    seen = means[0].sum(1) > 0.5
    torch.testing.assert_close(means[0][seen], ((sure + torn) / 2).expand(int(seen.sum()), 2))
    counts = torch.exp(-entropy(torch.stack((sure, torn))))
    expected = (sure * counts[0] + torn * counts[1]) / counts.sum()
    torch.testing.assert_close(means[1][seen], expected.expand(int(seen.sum()), 2))
    poses[1] = poses[0]
    poses[1, :3, 3] += poses[1, :3, 2] * 1.0  # a metre nearer
    far_half = FusionOptions(certainty=0, context_distance=100)
    near = fuse_views(grid, views, poses, INTRINSICS.expand(2, 3, 3), SIZE, TRANSFORM, options=far_half)
    plain = fuse_views(grid, views, poses, INTRINSICS.expand(2, 3, 3), SIZE, TRANSFORM, options=PLAIN)
    both = (plain[:, 0] > 0.4) & (plain[:, 0] < 0.9)
    assert both.sum() > 10 and (near[both, 0] > plain[both, 0]).all()


def test_weights_of_views_and_pixels():
    grid, views = ball(), predictions()
    chosen = torch.tensor([0.0, 1, 1, 0, 0])
    poses, intrinsics = cameras()
    expected = fuse_views(grid, views[1:3], poses[1:3], intrinsics[1:3], SIZE, TRANSFORM, options=PLAIN)
    torch.testing.assert_close(fuse(grid, views, weights=chosen), expected)
    per_pixel = chosen[:, None, None].expand(5, *SMALL)
    torch.testing.assert_close(fuse(grid, views, weights=per_pixel), expected)


def test_iterators_and_batches_change_only_rounding(monkeypatch):
    grid, views = ball(), predictions()
    expected = fuse(grid, views, options=FusionOptions())
    assert torch.equal(fuse(grid, iter(views), options=FusionOptions()), expected)
    assert torch.equal(fuse(grid, iter(views.split(2)), options=FusionOptions()), expected)
    monkeypatch.setattr(fusion, "_RAYS_AT_ONCE", 2 * SMALL[0] * SMALL[1])
    torch.testing.assert_close(fuse(grid, iter(views), options=FusionOptions()), expected)


def test_permuting_the_views_changes_only_rounding():
    grid, views, (poses, intrinsics) = ball(), predictions(), cameras()
    order = torch.tensor([3, 0, 4, 2, 1])
    permuted = fuse_views(grid, views[order], poses[order], intrinsics, SIZE, TRANSFORM)
    expected = fuse_views(grid, views, poses, intrinsics, SIZE, TRANSFORM)
    torch.testing.assert_close(permuted, expected)
    refined = [refine_fused(grid, fused, (fused.sum(1) > 0).float(), 0.5) for fused in (permuted, expected)]
    torch.testing.assert_close(*refined, atol=1e-4, rtol=1e-4)


def test_temperature_divides_logits():
    logits = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * 3
    expected = fuse(ball(), (logits / 2.5).softmax(1).repeat(2, 1, 1, 1)[:5], options=FusionOptions())
    found = fuse(ball(), logits.softmax(1).repeat(2, 1, 1, 1)[:5], options=FusionOptions(temperature=2.5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    without = torch.tensor([[0.0, 0.64, 0.36]])
    torch.testing.assert_close(fusion.tempered(without, 2.0), torch.tensor([[0, 0.8 / 1.4, 0.6 / 1.4]]))
    torch.testing.assert_close(fusion.tempered(without, 0.01), torch.tensor([[0.0, 1.0, 0.0]]))
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="temperature must be a positive number"):
            FusionOptions(temperature=bad)


@pytest.mark.parametrize("count", [4, 6])
def test_other_numbers_of_views_are_refused(count):
    with pytest.raises(ValueError, match="5 views"):
        fuse(ball(), iter(predictions(count)))


def test_perfect_predictions_are_not_refined_away():
    """Five classes in slabs, one of a single layer; smoothing across their borders must not win over certainty."""
    grid = ball()
    height = grid.links_idx % 16
    truth = torch.bucketize(height, torch.tensor([4, 6, 7, 10]), right=True)
    fused = torch.nn.functional.one_hot(truth, 5).float()
    refined = refine_fused(grid, fused, torch.ones(len(truth)), 0.5)
    assert torch.equal(refined.argmax(1), truth)


def test_confusions_are_learnt_from_the_scene():
    """A rare class that looks more like a frequent one than like itself, but never as the frequent one does."""
    grid = ball()
    rare = torch.arange(grid.num_voxels) % 8 == 0
    fused = torch.where(rare[:, None], torch.tensor([0.55, 0.4, 0.05]), torch.tensor([0.95, 0.02, 0.03]))
    fused = (fused + torch.rand(fused.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    fused[~rare][:20] = 0
    seeds = rare.nonzero()[::10, 0]
    fused[seeds] = torch.tensor([0.4, 0.55, 0.05])  # of which a few are recognized
    refined = refine_fused(grid, fused, torch.ones(len(fused)), 0.5, RefinementOptions(smoothing=0, trust=6))
    assert (refined.argmax(1)[rare] == 1).float().mean() > 0.95
    assert (refined.argmax(1)[~rare] == 0).all()


def test_smoothing_asks_similar_neighbours():
    grid = ball()
    fused = torch.full((grid.num_voxels, 2), 0.5)
    fused[:, 0] += 0.2
    fused[:, 1] -= 0.2
    odd = torch.arange(grid.num_voxels) % 13 == 0
    fused[odd] = torch.tensor([0.45, 0.55])
    evidence = torch.ones(len(fused))
    alone = refine_fused(grid, fused, evidence, 0.5, RefinementOptions(steps=1, smoothing=0, trust=20))
    together = refine_fused(grid, fused, evidence, 0.5, RefinementOptions(steps=1, smoothing=20, trust=20, reach=2))
    assert (together[odd, 0] > alone[odd, 0]).all() and (together.argmax(1) == 0).all()


def test_unseen_voxels_and_absent_classes_stay_empty():
    grid = ball()
    fused = torch.rand(grid.num_voxels, 4)
    fused[:, 2] = 0
    evidence = torch.rand(grid.num_voxels)
    fused[::5], evidence[::5] = 0, 0
    refined = refine_fused(grid, fused, evidence, 0.5)
    assert not refined[::5].any() and not refined[:, 2].any()
    torch.testing.assert_close(refined.sum(1), (evidence > 0).float())
    assert refine_fused(grid, fused, evidence, 0.5, RefinementOptions(steps=0)) is fused


def test_semantic_field_is_read_back(tmp_path):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    field = SemanticField(torch.rand(200, 21), torch.rand(200) * 50, torch.rand(200))
    field.save(tmp_path / "semantic.npz", grid)
    field.save(tmp_path / "again.npz", grid)
    assert (tmp_path / "semantic.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    back = SemanticField.load(tmp_path / "semantic.npz", grid)
    assert (back.probabilities - field.probabilities).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(back.evidence, field.evidence, rtol=1e-3, atol=0)
    torch.testing.assert_close(back.certainty, field.certainty, rtol=0, atol=2**-11)
    stored = field.as_stored()
    for name in ("probabilities", "evidence", "certainty"):
        assert torch.equal(getattr(stored, name), getattr(back, name)), name


def test_damaged_and_foreign_semantic_fields_are_refused(tmp_path):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    path = tmp_path / "semantic.npz"
    SemanticField(torch.rand(200, 3), torch.ones(200), torch.ones(200)).save(path, grid)
    with pytest.raises(UserError, match="belongs to other voxels"):
        SemanticField.load(path, grid.select(torch.arange(200) != 7))
    with np.load(path) as file:
        arrays = dict(file)
    changed = arrays["levels"].copy()
    changed[5, 1] ^= 1
    np.savez(path, **{**arrays, "levels": changed})
    with pytest.raises(UserError, match="checksum"):
        SemanticField.load(path, grid)
    np.savez(path, **{name: value for name, value in arrays.items() if name != "evidence"})
    with pytest.raises(UserError, match="semantic.npz"):
        SemanticField.load(path, grid)


def test_depth_of_counting_is_in_metres():
    """The distance at which rays count in full is that of the world, not of the grid's frame."""
    grid, (poses, intrinsics) = ball(), cameras(1)
    rays = [r.reshape(-1, 3) for r in camera_rays(TRANSFORM.to_grid(poses), intrinsics, *SIZE)]
    out = render_rays(grid, *rays, outputs=("depth", "alpha"))
    distance = (out.depth[out.alpha > 0.999] / TRANSFORM.scene_scale).max()
    assert 2 < distance < 3  # a ball of 1.25 m seen from 3 m
    views = predictions(1, size=SIZE)
    sums = [fusion.accumulate_views(grid, views, poses, intrinsics, SIZE, TRANSFORM, options=o)[1].sum()
            for o in (PLAIN, FusionOptions(certainty=0, context_distance=1.0),
                      FusionOptions(certainty=0, context_distance=6.0))]  # fmt: skip
    assert 0.95 < sums[1] / sums[0] <= 1 and 0.3 < sums[2] / sums[0] < 0.5
