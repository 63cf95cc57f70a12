"""Losses and class weights against hand-computed values and naive loops."""

import math

import pytest
import torch

from enet.class_weights import class_weights
from enet.losses import dice_loss, lovasz_softmax_loss, weighted_cross_entropy


def random_case(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(classes, (2, 3, 5), generator=generator)


def test_cross_entropy_is_the_weighted_mean_of_the_pixels():
    logits, label = random_case()
    weights = torch.tensor([0.0, 1.0, 2.5, 0.3], dtype=torch.float64)
    quality = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total, normalizer = weighted_cross_entropy(logits, label, weights, quality)
    expected_total = expected_normalizer = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(5):
                scores = logits[b, :, y, x].tolist()
                index = int(label[b, y, x])
                entropy = math.log(sum(map(math.exp, scores))) - scores[index]
                weight = float(weights[index] * quality[b, y, x])
                expected_total += weight * entropy
                expected_normalizer += weight
    assert float(total.detach()) == pytest.approx(expected_total, rel=1e-12)
    assert float(normalizer.detach()) == pytest.approx(expected_normalizer, rel=1e-12)
    builtin = torch.nn.functional.cross_entropy(logits, label, weights)
    total, normalizer = weighted_cross_entropy(logits, label, weights)
    assert float((total / normalizer).detach()) == pytest.approx(float(builtin.detach()), rel=1e-12)


def test_unannotated_pixels_have_no_gradient():
    logits, label = random_case()
    weights = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    for loss in (weighted_cross_entropy(logits, label, weights)[0], lovasz_softmax_loss(logits, label),
                 dice_loss(logits, label)):  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, logits)
        per_pixel = gradient.abs().sum(1)
        assert not per_pixel[label == 0].any() and per_pixel[label != 0].all()


def naive_lovasz(logits: torch.Tensor, label: torch.Tensor) -> float:
    """Lovász extension by its definition: sum over the sorted errors of the loss's increments."""
    keep = label.flatten() != 0
    probabilities = logits.softmax(1).movedim(1, -1).reshape(-1, logits.shape[1])[keep]
    truth = label.flatten()[keep]
    losses = []
    for index in sorted(set(truth.tolist())):
        errors = [abs(float(t == index) - float(p[index])) for t, p in zip(truth, probabilities, strict=True)]
        order = sorted(range(len(errors)), key=lambda i: -errors[i])

        def jaccard_loss(wrong: set, index=index) -> float:
            actual = {i for i in range(len(truth)) if truth[i] == index}
            return len(wrong) / len(actual | wrong) if actual | wrong else 0.0

        losses.append(sum(
            errors[i] * (jaccard_loss(set(order[: k + 1])) - jaccard_loss(set(order[:k])))
            for k, i in enumerate(order)
        ))  # fmt: skip
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_equals_its_definition(seed):
    logits, label = random_case(seed)
    assert float(lovasz_softmax_loss(logits, label)) == pytest.approx(naive_lovasz(logits, label), rel=1e-9)


def test_set_losses_of_a_perfect_and_of_an_empty_batch():
    _, label = random_case()
    perfect = 100.0 * torch.nn.functional.one_hot(label, 4).movedim(-1, 1).double()
    for loss in (lovasz_softmax_loss, dice_loss):
        assert float(loss(perfect, label)) == pytest.approx(0.0, abs=1e-6)
        assert float(loss(perfect, torch.zeros_like(label))) == 0.0


def test_dice_by_hand():
    label = torch.tensor([[[1, 1, 2]]])
    logits = torch.log(torch.tensor([[[0.1, 0.2, 0.25], [0.5, 0.6, 0.25], [0.4, 0.2, 0.5]]]))[:, :, None]
    first = 2 * (0.5 + 0.6) / (0.5 + 0.6 + 0.25 + 2)
    second = 2 * 0.5 / (0.4 + 0.2 + 0.5 + 1)
    assert float(dice_loss(logits, label)) == pytest.approx(1 - (first + second) / 2, rel=1e-5)


def test_class_weights_by_hand():
    pixels = torch.tensor([50, 30, 20, 0])
    shown = torch.tensor([100, 100, 40, 0])
    enet = class_weights("enet", pixels, shown)
    assert enet.tolist() == pytest.approx([0, 1 / math.log(1.32), 1 / math.log(1.22), 0], rel=1e-6)
    # Shares where shown: 0.3 and 0.5; torch's median of two is the lower.
    assert class_weights("median_frequency", pixels, shown).tolist() == pytest.approx([0, 1, 0.6, 0], rel=1e-6)
    assert class_weights("none", pixels, shown).tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="inverse"):
        class_weights("inverse", pixels, shown)
