"""The scores of feature sets against constructed data whose answer is known."""

import pytest
import torch

from analysis.sh_classes import (
    PixelSample,
    class_information,
    discriminant_accuracy,
    linear_residual,
    merge_samples,
    principal_components,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def constructed(sh_shift, rgb_shift, count=12000):
    """Three classes; class k shifts SH channel 4 by ``sh_shift * k`` and red by ``rgb_shift * k``."""
    label = torch.arange(count) % 3
    rgb, sh = normal(count, 3), normal(count, 27, seed=1)
    rgb[:, 0] += rgb_shift * label
    sh[:, 4] += sh_shift * label
    sh[:, 0] += rgb[:, 0]
    return PixelSample(rgb, sh, label + 1, torch.arange(count) // 300)


def test_principal_components_find_the_axis_of_a_known_cloud():
    axis = torch.nn.functional.normalize(torch.arange(1.0, 6.0), dim=0)
    cloud = normal(4000, 1) * 3 * axis + 0.1 * normal(4000, 5, seed=1)
    scores, variance = principal_components(cloud)
    assert variance[0] == pytest.approx(9 / (9 + 5 * 0.01), abs=0.01) and variance.sum() == pytest.approx(1)
    assert torch.allclose(scores[:, 0], (cloud - cloud.mean(0)) @ axis, atol=0.05)
    covariance = torch.cov(scores.T)
    assert (covariance - torch.diag(covariance.diag())).abs().max() < 1e-4


def test_a_residual_holds_nothing_of_the_predictors():
    rgb, train = normal(500, 3), torch.arange(500) % 2 == 0
    target = rgb @ normal(3, 27, seed=2) + 4.0
    assert linear_residual(target, rgb, train).abs().max() < 1e-4


def test_information_only_in_sh_is_found_in_the_residual():
    found = class_information(constructed(sh_shift=6.0, rgb_shift=0.0))["accuracy"]
    assert found["sh residual"] > 0.95 and found["sh"] > 0.95 and found["rgb + sh"] > 0.95
    assert found["rgb"] == pytest.approx(1 / 3, abs=0.08)


def test_information_that_colour_has_already_is_not_credited_to_sh():
    found = class_information(constructed(sh_shift=0.0, rgb_shift=6.0))["accuracy"]
    assert found["rgb"] > 0.95 and found["sh degree 0"] > 0.85
    assert found["sh residual"] == pytest.approx(1 / 3, abs=0.08)


def test_accuracy_is_balanced_over_classes():
    """A classifier that is right on the big class only scores one half, not nine tenths."""
    labels = torch.cat((torch.ones(9000), torch.full((1000,), 2.0))).long()
    train = torch.arange(10_000) % 2 == 0
    assert discriminant_accuracy(normal(10_000, 2), labels, train) == pytest.approx(0.5, abs=0.12)


def test_classes_with_too_few_pixels_are_left_out():
    sample = constructed(6.0, 0.0)
    rare = sample.label.clone()
    rare[:10] = 20
    information = class_information(PixelSample(sample.rgb, sample.sh, rare, sample.group))
    assert information["classes"] == ["wall", "floor", "cabinet"] and information["chance"] == pytest.approx(1 / 3)
    only_one = PixelSample(sample.rgb, sample.sh, torch.ones_like(rare), sample.group)
    assert class_information(only_one) is None


def test_samples_survive_the_file_and_merge_by_scene(tmp_path):
    sample = constructed(1.0, 1.0, count=600)
    sample.save(tmp_path / "s.npz")
    loaded = PixelSample.load(tmp_path / "s.npz")
    assert torch.equal(loaded.label, sample.label) and torch.allclose(loaded.sh, sample.sh, atol=4e-3)
    merged = merge_samples({"a": loaded, "b": loaded, "c": loaded})
    assert merged.group.unique().tolist() == [0, 1, 2] and len(merged.label) == 1800
    assert merge_samples({"a": loaded, "b": loaded}).group.unique().tolist() == [0, 1]
    assert torch.equal(loaded.draw(50, 3, "a").label, loaded.draw(50, 3, "a").label)
