"""What is masked is neither drawn nor measured."""

import math

import pytest
import torch

from model.fitting.evaluation import psnr, ssim
from model.fitting.frames import Frames
from model.fitting.ray_sampler import RaySampler
from utils.cameras import look_at


def sampler(valid):
    images = torch.zeros(2, 6, 8, 3, dtype=torch.uint8)
    images[~valid] = 255  # a stranger in white
    poses = look_at(torch.tensor([[0.0, -2, 0], [0.5, -2, 0]]).double(), torch.zeros(2, 3).double())
    intrinsics = torch.tensor([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]]).double()
    frames = Frames([0, 1], images, torch.zeros(2, 6, 8, dtype=torch.int16), poses, intrinsics, valid=valid)
    return RaySampler(frames, poses, 1.0, torch.Generator().manual_seed(0))


def test_masked_pixels_are_never_drawn():
    valid = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(1)) < 0.6
    drawn = sampler(valid).draw(4000)
    assert drawn.colors.max() == 0 and drawn.frames.unique().tolist() == [0, 1]
    every = sampler(valid)
    assert every.num_pixels == int(valid.sum())
    assert torch.equal(every.pixels(torch.arange(every.num_pixels)), valid.flatten().nonzero()[:, 0])


def test_masked_pixels_are_not_measured():
    photo = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    render, valid = photo.clone() * 0.9, torch.ones(32, 32, dtype=torch.bool)
    valid[8:20, 8:20] = False
    spoiled = torch.where(valid, photo, 1 - photo)
    expected = -10 * math.log10(float(((render - photo) ** 2)[:, valid].mean()))
    assert psnr(render, spoiled, valid) == pytest.approx(expected, abs=1e-4)
    assert ssim(render, spoiled, valid) > ssim(render, spoiled) + 0.1
    assert ssim(photo, spoiled, valid) == pytest.approx(1)
