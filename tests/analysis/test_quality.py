"""Render quality: what is known of a pixel, and that it lowers or raises the estimate as it should."""

from dataclasses import replace

import pytest
import torch

from analysis.observers import Observers
from analysis.quality import (
    FEATURES,
    QualityEstimator,
    QualityOptions,
    View,
    add_quality,
    expected_quality,
    stored_view,
)
from analysis.surface import field_depth
from dataloader import Mesh, ViewStore, save_perfception_scene
from tests.analysis import test_evidence as ball
from tests.analysis.box_room import INTRINSICS, ray_cast, trajectory, write_store
from utils.cameras import look_at
from utils.errors import UserError

OPTIONS = QualityOptions()
SINK = torch.tensor([2.5, 2.0, 0.9]).double()
field = ball.field  # the fixture


def estimator_of(poses):
    seen = Observers(poses.float(), INTRINSICS.float().expand(len(poses), 3, 3), ray_cast(poses)[1])
    return QualityEstimator(seen, OPTIONS)


def view_at(pose, **changes):
    depth = ray_cast(pose[None])[1][0]
    grey = torch.full((3, *depth.shape), 0.5)
    return replace(View(grey, torch.ones_like(depth), depth, depth, pose, INTRINSICS), **changes)


def test_options_of_the_wrong_length_are_refused():
    with pytest.raises(UserError, match=r"coefficients has 3 numbers, expected 6"):
        QualityOptions(coefficients=(1, 2, 3))
    with pytest.raises(UserError, match=r"without_photographs has 6 numbers, expected 5"):
        QualityOptions(coefficients_without_photographs=OPTIONS.coefficients)
    with pytest.raises(UserError, match="an odd number of pixels"):
        QualityOptions(smoothing=4)


def test_what_no_view_saw_is_worse_than_what_one_saw():
    eye = torch.tensor([4.0, 2.0, 1.2]).double()
    pose = look_at(eye, SINK)
    opposite = look_at(eye[None], torch.tensor([[5.0, 2.0, 1.2]]).double())
    (seen, error), (unseen, larger) = (
        (estimator.estimate(view_at(pose)), estimator.error(view_at(pose)))
        for estimator in (estimator_of(pose[None]), estimator_of(opposite))
    )
    assert (seen > unseen).all() and (larger > 1.8 * error).all()


def test_more_views_never_lower_the_quality():
    pose = look_at(torch.tensor([3.6, 3.0, 1.3]).double(), SINK)
    few, many = (estimator_of(poses).estimate(view_at(pose)) for poses in (trajectory()[:3], trajectory()))
    assert (many >= few).all() and many.mean() > few.mean() and many.max() <= 1


def test_transparency_and_fine_texture_lower_it():
    pose = trajectory()[0]
    estimator, plain = estimator_of(trajectory()), view_at(trajectory()[0])
    whole = estimator.estimate(plain)
    assert (estimator.estimate(view_at(pose, alpha=torch.full_like(plain.alpha, 0.6))) < whole).all()
    checkered = plain.color.clone()
    checkered[:, ::3] += 0.3
    assert (estimator.estimate(replace(plain, color=checkered)) < whole).all()


def test_where_there_is_no_surface_there_is_no_quality():
    view = view_at(trajectory()[0])
    surface = view.surface.clone()
    surface[:10] = 0
    assert (estimator_of(trajectory()).estimate(replace(view, surface=surface)) > 0).equal(surface > 0)


def test_features_are_what_their_names_say():
    pose = trajectory()[0]
    alpha = torch.full((48, 64), 0.75)
    slope = torch.arange(64).float().expand(3, 48, 64) / 100
    maps = dict(zip(FEATURES, estimator_of(pose[None]).features(view_at(pose, alpha=alpha, color=slope)), strict=True))
    inner = (slice(4, -4), slice(4, -4))
    assert maps["residual"].abs().max() == 0  # unknown
    torch.testing.assert_close(maps["texture"][inner].exp(), torch.full((40, 56), 0.01))
    torch.testing.assert_close(maps["transparency"], torch.full((48, 64), 0.25))
    torch.testing.assert_close(maps["support"], torch.full((48, 64), 2.0).log(), atol=1e-3, rtol=0)
    assert maps["angle"].abs().max() < 1e-2


def test_a_field_that_was_wrong_there_is_worse(field, tmp_path):
    """The same view of the same field, once with photographs that agree with it, once with others."""
    stores = [ball.write_store(tmp_path / name, field, photos) for name, photos in
              (("right", None), ("wrong", ball.wrong_from_the_right))]
    right, wrong = (QualityEstimator.of_scene(store.path, OPTIONS, tmp_path / "no field", field) for store in stores)
    from_the_right, from_the_left = stored_view(stores[0], 2), stored_view(stores[0], 3)
    seen = from_the_right.surface > 0
    assert (wrong.estimate(from_the_right) < right.estimate(from_the_right))[seen].all()
    lost = [float((right.estimate(v) - wrong.estimate(v)).mean()) for v in (from_the_right, from_the_left)]
    assert lost[0] > 2 * lost[1]


def test_quality_is_added_to_a_store_once(tmp_path):
    original, novel = write_store(tmp_path / "original"), write_store(tmp_path / "novel", trajectory(5))
    assert add_quality(novel, original, OPTIONS) and not add_quality(novel, original, OPTIONS)
    store = ViewStore.open(novel)
    quality = store.read("quality", 2)
    estimator = QualityEstimator(Observers.from_store(original, 200, depth_of=field_depth), OPTIONS)
    expected = estimator.estimate(stored_view(store, 2))
    assert (quality - expected).abs().max() <= 0.5 / 255 + 1e-6 and 0 < quality.mean() < 1
    with pytest.raises(UserError, match="quality"):
        add_quality(novel, original, QualityOptions(angle_scale=0.1))


def test_photographs_count_where_the_field_is_at_hand(field, tmp_path):
    original = ball.write_store(tmp_path / "original", field, ball.wrong_from_the_right)
    grid = field.grid
    save_perfception_scene(
        tmp_path / "field", grid.resolution, grid.links_idx, grid.density, grid.sh, field.transform, bits=16
    )
    for name in ("with", "without"):
        ball.write_store(tmp_path / name, field)
    add_quality(tmp_path / "with", original.path, OPTIONS, field=tmp_path / "field")
    add_quality(tmp_path / "without", original.path, OPTIONS)
    with_photographs, without = (
        ViewStore.open(tmp_path / name).tensor("quality").float() for name in ("with", "without"))
    estimator = QualityEstimator.of_scene(original.path, OPTIONS, tmp_path / "field")
    expected = estimator.estimate(stored_view(ViewStore.open(tmp_path / "with"), 1))
    assert (with_photographs[1] / 255 - expected).abs().max() <= 0.5 / 255 + 1e-6
    assert not torch.equal(with_photographs, without)


def test_expected_quality_is_that_of_what_the_field_would_render(field, tmp_path):
    store = ball.write_store(tmp_path / "ball", field)
    estimator = QualityEstimator.of_scene(store.path, OPTIONS, None, field)
    corners = torch.tensor([[-0.7, -2, -2], [-0.7, 2, -2], [-0.7, 0, 3.0]])
    wall = Mesh(corners, torch.tensor([[0, 1, 2]], dtype=torch.int32), None, torch.ones(3, dtype=torch.int32))
    means = expected_quality(estimator, field, wall, store.cameras)
    assert len(means) == 4 and all(0 < mean < 1 for mean in means)
