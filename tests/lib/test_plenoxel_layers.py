"""Sphere layers: the ops against the PyTorch reference, gradients, bits for any thread count, and CUDA against C++."""

import pytest
import torch
from torch.library import opcheck

from lib.plenoxel.layers import shade_layers, shade_layers_gradients
from lib.plenoxel.reference_layers import _shade_layers
from tests.lib.cuda_parity import assert_agrees, assert_close_to_largest, needs_gpu

CASES = [  # rows, layers, step size, brightness, density unit
    (1, 2, 0.5, 1.0, 1.0),
    (6, 5, 0.3, 0.0, 30.0),
    (16, 16, 0.5, 0.4, 1.0),
    (33, 4, 1.7, 1.0, 5.0),
    (3, 3, 4.0, 0.2, 0.1),  # fewer samples than layers
]


def random_texture(rows, layers, seed=0, dtype=torch.float64):
    """Colours and densities of both signs, so that both are clamped often."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2 * rows, layers, 4, generator=generator, dtype=torch.float64).mul(2).to(dtype)


def rays(count=200, seed=1, dtype=torch.float64):
    """Origins in and out of the sphere, some far out; directions of many lengths."""
    origins, directions = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    origins[::3] *= 0.1
    origins[1::7] *= 20
    return origins.to(dtype), directions.to(dtype)


def axis_parallel_rays(dtype=torch.float64):
    """Along both ways of every axis, from the middle and from beside it: poles, the seam, and whole rows are met."""
    ways = torch.cat((torch.eye(3), -torch.eye(3))).to(dtype)
    origins = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, -0.25, 0], [0, 0, 2], [3, 3, 3]], dtype=dtype)
    return origins.repeat_interleave(6, dim=0), ways.repeat(5, 1)


def options_of(case):
    return dict(zip(("step_size", "brightness", "density_unit"), case[2:], strict=True))


def gradients(texture, ray_origins, ray_directions, grad_rgb, **options):
    """The gradient by the texture, and which directions are touched."""
    by_texture = torch.zeros_like(texture)
    touched = torch.zeros(texture.shape[:2], dtype=torch.bool, device=texture.device)
    shade_layers_gradients(texture, ray_origins, ray_directions, grad_rgb, by_texture, touched, **options)
    return by_texture, touched


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [rays(), rays(0), rays(1), axis_parallel_rays()], ids=["200", "0", "1", "axes"])
def test_matches_the_reference(case, batch):
    texture, options = random_texture(*case[:2]).requires_grad_(), options_of(case)
    actual, expected = (shade(texture, *batch, **options) for shade in (shade_layers, _shade_layers))
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
    cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(2), dtype=actual.dtype)
    by_texture = [torch.autograd.grad(rgb, texture, cotangent)[0] for rgb in (actual, expected)]
    torch.testing.assert_close(*by_texture, rtol=1e-10, atol=1e-11)


def test_float32_is_as_good_as_the_references():
    texture, batch = random_texture(16, 16), rays()
    exact = _shade_layers(texture, *batch)
    single = [shade(texture.float(), *(part.float() for part in batch)) for shade in (shade_layers, _shade_layers)]
    errors = [(rgb - exact).abs().mean() for rgb in single]
    assert errors[0] < 1.5 * errors[1] < 1e-5


@pytest.mark.parametrize("case", CASES[:2])
def test_gradcheck(case):
    batch, options = rays(5), options_of(case)
    texture = random_texture(*case[:2]).requires_grad_()
    assert torch.autograd.gradcheck(lambda texture: shade_layers(texture, *batch, **options), texture)


def test_gradients_are_added():
    texture, batch = random_texture(4, 3), rays(9)
    once, _ = gradients(texture, *batch, torch.ones(9, 3).double())
    twice = once.clone()
    shade_layers_gradients(texture, *batch, torch.ones(9, 3).double(), twice)
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("case", CASES[1:4])
def test_touched_directions_are_those_with_a_gradient(case):
    texture, batch = random_texture(64, case[1]), rays(20)
    by_texture, touched = gradients(texture, *batch, torch.ones(20, 3).double(), **options_of(case))
    assert torch.equal(touched, (by_texture != 0).any(-1).any(-1)) and 0 < touched.float().mean() < 0.5


def test_only_corners_without_a_share_are_touched_in_vain():
    """Rays from the middle in the plane z = 0 look exactly along columns."""
    texture, batch = random_texture(8, 4).abs(), axis_parallel_rays()
    by_texture, touched = gradients(texture, *batch, torch.ones(30, 3).double())
    used = (by_texture != 0).any(-1).any(-1)
    assert (touched | ~used).all() and touched.sum() > used.sum()


def test_unseen_rays_touch_nothing():
    by_texture, touched = gradients(random_texture(4, 3), *rays(9), torch.zeros(9, 3).double())
    assert not by_texture.any() and not touched.any()


def test_what_is_hidden_has_no_gradient():
    texture = random_texture(4, 8).abs()
    texture[:, :, :4, 3] = 1e6
    by_texture, _ = gradients(texture, torch.zeros(50, 3).double(), rays(50)[1], torch.ones(50, 3).double())
    assert by_texture[:, :, :2].any() and not by_texture[:, :, 4:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_bits(dtype):
    texture, batch = random_texture(7, 5, dtype=dtype), rays(9000, dtype=dtype)  # more than are recorded at once
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            rgb = shade_layers(texture, *batch)
            results.append((rgb, *gradients(texture, *batch, rgb)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def op_arguments(dtype=torch.float64):
    texture, batch = random_texture(3, 4, dtype=dtype), rays(6, dtype=dtype)
    touched = torch.zeros(texture.shape[:2], dtype=torch.bool)
    seen = torch.arange(6) != 4
    return {
        "shade_layers": (texture.clone().requires_grad_(), *batch, seen, 0.4, 0.5, 3.0),
        "shade_layers_gradients": (texture, *batch, batch[0], torch.zeros_like(texture), touched, 0.4, 0.5, 3.0),
    }


@pytest.mark.parametrize("name", op_arguments())
def test_opcheck(name):
    opcheck(getattr(torch.ops.plenoxel, name).default, op_arguments()[name])


@pytest.mark.parametrize("name, left_out", [("shade_layers", 3), ("shade_layers_gradients", 5)])
def test_opcheck_without_what_is_optional(name, left_out):
    arguments = list(op_arguments()[name])
    arguments[left_out] = None
    opcheck(getattr(torch.ops.plenoxel, name).default, tuple(arguments))


def test_rays_that_are_not_seen_get_the_brightness_and_give_no_gradient():
    texture, batch = random_texture(6, 5), rays()
    seen = torch.rand(200, generator=torch.Generator().manual_seed(3)) < 0.5
    everything = shade_layers(texture, *batch, brightness=0.25)
    leaf = texture.clone().requires_grad_()
    for shade in (shade_layers, _shade_layers):
        rgb = shade(leaf, *batch, brightness=0.25, seen=seen)
        assert (rgb[~seen] == 0.25).all()
        torch.testing.assert_close(rgb[seen], everything[seen], rtol=1e-11, atol=1e-12)
        (by_texture,) = torch.autograd.grad(rgb.sum(), leaf)
        expected, _ = gradients(texture, *batch, seen[:, None].double().expand(-1, 3).contiguous(), brightness=0.25)
        torch.testing.assert_close(by_texture, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"texture": torch.zeros(3, 6, 1, 4)}, "L of at least 2"),
        ({"texture": torch.zeros(3, 5, 2, 4)}, r"\[R, 2 R, L, 4\]"),
        ({"texture": torch.zeros(3, 6, 2, 3)}, "texture must have size 4"),
        ({"texture": torch.zeros(3, 6, 2, 4).half()}, "float32 or float64"),
        ({"texture": torch.zeros(145)[1:].view(3, 6, 2, 4)}, "multiple of 4"),
        ({"origins": torch.zeros(5, 3).double()}, "origins must be Float"),
        ({"directions": torch.zeros(4, 3)}, "directions must have size 5"),
        ({"step_size": 0.0}, "step_size must be positive"),
    ],
)
def test_wrong_input_is_named(change, message):
    right = {"texture": torch.zeros(3, 6, 2, 4), "origins": torch.zeros(5, 3), "directions": torch.ones(5, 3)}
    with pytest.raises(RuntimeError, match=message):
        shade_layers(**{**right, **change})


def test_rays_without_direction_read_nothing_beyond_the_texture():
    directions = torch.zeros(3, 3).double()
    assert shade_layers(random_texture(2, 3), directions, directions).isnan().all()


def off_the_poles(origins, directions):
    """Without rays along y: at a pole a latitude is as uncertain as the square root of a rounding."""
    keep = directions[:, 1] == 0
    return origins[keep], directions[keep]


CUDA_BATCHES = [rays(), rays(1), off_the_poles(*axis_parallel_rays())]


@needs_gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", CUDA_BATCHES, ids=["200", "1", "axes"])
def test_cuda_matches_cpu(case, batch):
    texture, batch = random_texture(*case[:2]).float(), [part.float() for part in batch]
    on_gpu, options = [part.cuda() for part in (texture, *batch)], options_of(case)
    cotangent = torch.randn(batch[0].shape, generator=torch.Generator().manual_seed(2))
    assert_agrees(shade_layers(*on_gpu, **options), shade_layers(texture, *batch, **options))
    seen = torch.arange(len(batch[0])) % 3 > 0
    some = shade_layers(*on_gpu, seen=seen.cuda(), **options)
    assert_agrees(some, shade_layers(texture, *batch, seen=seen, **options))
    expected, _ = gradients(texture, *batch, cotangent, **options)
    actual, touched = gradients(*on_gpu, cotangent.cuda(), **options)
    assert_close_to_largest(actual, expected, 1e-4)
    assert not (actual != 0).any(-1).any(-1)[~touched].any()


@needs_gpu
def test_cuda_without_rays():
    texture, none = random_texture(3, 4).float().cuda(), torch.empty(0, 3).cuda()
    assert shade_layers(texture, none, none).shape == (0, 3)
    by_texture, touched = gradients(texture, none, none, none)
    assert not by_texture.any() and not touched.any()


@needs_gpu
def test_cuda_at_the_poles():
    texture, batch = random_texture(16, 16).float(), axis_parallel_rays(torch.float32)
    actual = shade_layers(*(part.cuda() for part in (texture, *batch)))
    torch.testing.assert_close(actual.cpu(), shade_layers(texture, *batch), rtol=0, atol=5e-3)


@needs_gpu
def test_cuda_gradients_behind_what_is_nearly_opaque():
    """Small gradients are as precise as large ones, relative to themselves: RMSProp does not see their size."""
    texture, (origins, directions) = random_texture(8, 16).abs(), rays(200)
    origins, directions = origins * 0.3, torch.nn.functional.normalize(directions, dim=-1)
    texture[..., 3] *= 30  # the largest gradient of layer 8 is then some 1e-5 of that of layer 0
    expected, _ = gradients(texture, origins, directions, torch.ones(200, 3).double())
    on_gpu = [part.float().cuda() for part in (texture, origins, directions)]
    actual, _ = gradients(*on_gpu, torch.ones(200, 3).cuda())
    for layer in (0, 8, 15):
        assert_close_to_largest(actual[:, :, layer].double(), expected[:, :, layer], 1e-4)


@needs_gpu
def test_cuda_autograd():
    texture = random_texture(5, 4).float().cuda().requires_grad_()
    batch = [part.float().cuda() for part in rays(50)]
    (by_texture,) = torch.autograd.grad(shade_layers(texture, *batch).sum(), texture)
    expected, _ = gradients(texture.detach(), *batch, torch.ones(50, 3).cuda())
    assert_close_to_largest(by_texture, expected)


@needs_gpu
@pytest.mark.parametrize("name", op_arguments())
def test_cuda_opcheck(name):
    arguments = [part.detach().cuda() if isinstance(part, torch.Tensor) else part
                 for part in op_arguments(torch.float32)[name]]
    if name == "shade_layers":
        arguments[0].requires_grad_()
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(getattr(torch.ops.plenoxel, name).default, tuple(arguments), test_utils=checks)


@needs_gpu
def test_cuda_is_told_from_cpu():
    texture, (origins, directions) = random_texture(3, 4).float().cuda(), rays(5)
    with pytest.raises(RuntimeError, match="one device"):
        shade_layers(texture, origins.float(), directions.float())
    with pytest.raises(RuntimeError, match="float64 runs on the CPU only"):
        shade_layers(texture.double(), origins.cuda(), directions.cuda())
