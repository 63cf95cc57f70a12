"""Layered sphere images: svox2's mathematics, written out sample by sample, and what they are good for."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dataloader import load_perfception_scene
from model import PlenoxelGrid, RenderOptions, render_rays
from model.fitting import background
from model.fitting.optimizer import GridOptimizer
from model.fitting.options import FitBackground, FitOptimization, FitRegularization
from model.fitting.ray_sampler import RayBatch
from model.sphere_layers import DENSITY_UNIT, SphereLayers

BAND_0 = 0.28209479177387814


def random_layers(layers=5, rows=6, dtype=torch.float32, seed=0) -> SphereLayers:
    generator = torch.Generator().manual_seed(seed)
    texture = torch.randn(rows, 2 * rows, layers, 4, generator=generator, dtype=dtype) * 2
    return SphereLayers(texture / texture.new_tensor([1, 1, 1, DENSITY_UNIT]))


def rays(count=60, seed=1, dtype=torch.float32):
    """Origins inside, on and outside the unit sphere; directions of many lengths."""
    generator = torch.Generator().manual_seed(seed)
    origins, directions = torch.randn(2, count, 3, generator=generator, dtype=dtype)
    origins[:3] = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, -3]], dtype=dtype)
    directions[:3] = torch.tensor([[0, 0, -1], [0, 1, 0], [0, 0, 1]], dtype=dtype)
    return origins, directions


def one_ray(texture, origin, direction, step_size, brightness):
    """svox2's render_background_forward for one ray, in Python's own floats; nothing is seen behind the camera."""
    rows, _, layers, _ = texture.shape
    origin, direction = origin.double(), direction.double()
    world_step = float(1 / direction.norm())
    direction = direction * world_step
    along = float(origin @ direction)
    nearest = max(float(origin @ origin) - along**2, 0) ** 0.5
    inner = max(nearest + 1e-3, 1.0)
    last, left, color = 1 / inner, 1.0, [0.0, 0.0, 0.0]
    steps = int(layers / step_size) + 2
    for number in range(steps):
        radius = steps / (steps - number - 0.5)
        if radius < inner:
            continue
        distance = -along + (radius**2 - nearest**2) ** 0.5
        if distance <= 0:
            last = 1 / radius
            continue
        x, y, z = ((origin + distance * direction) / radius).tolist()
        column = 2 * rows * (0.5 + math.atan2(x, z) / (2 * math.pi))
        row = rows * (0.5 - math.asin(max(-1.0, min(y, 1.0))) / math.pi)
        layer = min(max((1 - 1 / radius) * layers - 0.5, 0), layers - 1)
        first = min(int(column), 2 * rows - 1), min(int(row), rows - 1), min(int(layer), layers - 2)
        value = torch.zeros(4, dtype=torch.float64)
        for corner in range(8):
            bits = corner >> 2, corner >> 1 & 1, corner & 1
            share = 1.0
            for bit, at, start in zip(bits, (column, row, layer), first, strict=True):
                share *= at - start if bit else 1 - (at - start)
            i, j, k = (start + bit for start, bit in zip(first, bits, strict=True))
            value += share * texture[j % rows, i % (2 * rows), k].double()
        if value[3] > 0:
            sigma = float(value[3]) * 30
            through = math.exp(-world_step * (last - 1 / radius) * sigma)
            for c in range(3):
                color[c] += left * (1 - through) * max(float(value[c]) * BAND_0 + 0.5, 0)
            left *= through
        last = 1 / radius
    return torch.tensor([c + left * brightness for c in color])


@pytest.mark.parametrize("layers, step_size, brightness", [(2, 0.5, 1.0), (5, 0.3, 0.0), (16, 1.0, 0.4)])
def test_shades_as_svox2(layers, step_size, brightness):
    sky, (origins, directions) = random_layers(layers), rays()
    expected = torch.stack([one_ray(sky.texture, *ray, step_size, brightness)
                            for ray in zip(origins, directions, strict=True)])
    torch.testing.assert_close(sky.shade(origins, directions, step_size, brightness), expected, rtol=0, atol=3e-6)


def test_gradient():
    origins, directions = rays(4, dtype=torch.float64)
    texture = random_layers(3, 2, torch.float64).texture.requires_grad_()
    torch.autograd.gradcheck(lambda texture: SphereLayers(texture).shade(origins, directions), texture)


def test_no_rays():
    assert random_layers().shade(torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)


def test_nothing_is_seen_behind_the_camera():
    sky = SphereLayers(torch.zeros(8, 16, 4, 4))
    sky.texture[:, :, 0] = 1e3  # a white shell at radius 1 to 1.3
    origins, away = torch.tensor([[0.0, 0, -1.7]]), torch.tensor([[0.0, 0, -1]])
    assert sky.shade(origins, away, brightness=0.25).allclose(torch.tensor(0.25))
    assert (sky.shade(origins, -away, brightness=0.25) > 100).all()  # its far side


def test_what_is_infinitely_far_has_no_parallax():
    sky = SphereLayers.around(16, 64, torch.device("cpu"))
    sky.texture[:, :, -1, :3] = torch.randn(64, 128, 3, generator=torch.Generator().manual_seed(0))
    directions = normalize(rays(200)[1], dim=-1)
    near, far = sky.shade(torch.zeros(200, 3), directions), sky.shade(torch.full((200, 3), 0.01), directions)
    assert (near - far).abs().mean() < 0.01 < 0.05 < near.std()


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 4, 1, 4), (2, 5, 3, 4)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\[R, 2 R, L, 4\]"):
        SphereLayers(torch.zeros(shape))


def layered_grid(background, **box) -> PlenoxelGrid:
    generator = torch.Generator().manual_seed(2)
    density, sh = torch.rand(20, generator=generator) * 3, torch.randn(20, 27, generator=generator)
    grid = PlenoxelGrid.from_sparse((4, 5, 6), torch.arange(0, 120, 6), density, sh, **box)
    grid.background = background
    return grid


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_grid_is_rendered_in_front(backend):
    grid, options = layered_grid(random_layers()), RenderOptions(background_brightness=0.3, step_size=0.4)
    origins, directions = rays()
    directions = normalize(directions, dim=-1)
    out = render_rays(grid, origins, directions, options, backend=backend)
    alone = render_rays(layered_grid(None), origins, directions, options, backend=backend)
    behind = grid.background.shade(origins, directions, 0.4, 0.3)
    expected = alone.rgb + (1 - alone.alpha)[:, None] * (behind - 0.3)
    torch.testing.assert_close(out.rgb, expected, rtol=1e-5, atol=1e-6)
    for name in ("sh", "depth", "alpha"):
        assert torch.equal(getattr(out, name), getattr(alone, name))
    only = render_rays(grid, origins, directions, options, outputs=("rgb",), backend=backend)
    assert only.alpha is None and torch.equal(only.rgb, out.rgb)


def test_the_grids_frame_and_gradients():
    """Off-centre and of three radii: layers live in the grid's own frame, and directions shrink with it."""
    box = {"center": (1.0, 2.0, 3.0), "radius": (0.5, 1.0, 2.0)}
    grid = layered_grid(random_layers(), **box)
    center, radius = torch.tensor(grid.center), torch.tensor(grid.radius)
    origins, directions = rays()
    origins, directions = origins + center, normalize(directions, dim=-1)
    grid.background.texture.requires_grad_(), grid.density.requires_grad_()
    out = render_rays(grid, origins, directions)
    alone = render_rays(layered_grid(None, **box).replace(density=grid.density), origins, directions)
    behind = grid.background.shade((origins - center) / radius, directions / radius)
    expected = alone.rgb + (1 - alone.alpha)[:, None] * (behind - 1)
    torch.testing.assert_close(out.rgb, expected, rtol=1e-5, atol=1e-6)
    cotangent = torch.randn(out.rgb.shape, generator=torch.Generator().manual_seed(3))
    wanted = grid.density, grid.background.texture
    for actual, by_hand in zip(
        torch.autograd.grad(out.rgb, wanted, cotangent), torch.autograd.grad(expected, wanted, cotangent), strict=True
    ):
        torch.testing.assert_close(actual, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("brightness", [None, 0.25])
def test_a_fits_step_takes_the_gradient_of_its_loss(monkeypatch, brightness):
    grid = layered_grid(random_layers())
    options = RenderOptions() if brightness is None else RenderOptions(background_brightness=brightness)
    origins, directions = rays()
    directions, target = normalize(directions, dim=-1), torch.rand(60, 3, generator=torch.Generator().manual_seed(4))
    layers = SphereLayers(grid.background.texture.clone().requires_grad_())
    loss = ((render_rays(grid.replace(background=layers), origins, directions, options).rgb - target) ** 2).mean()
    (expected,) = torch.autograd.grad(loss, layers.texture)
    gradients = []
    monkeypatch.setattr(
        background.ops, "rmsprop_step", lambda param, grad, *rest, **named: gradients.append(grad.clone())
    )
    optimizer = GridOptimizer(
        grid, FitOptimization(density_rate=(1.0, 1.0)), FitRegularization(), RenderOptions(), 10, torch.Generator(),
        background.BackgroundOptimizer(grid.background, FitBackground(), RenderOptions(), 10),
    )  # fmt: skip
    batch = RayBatch(origins, directions, target, torch.zeros(60, dtype=torch.long), None)
    optimizer.step(0, batch, target, brightness)
    torch.testing.assert_close(gradients[0].view_as(expected), expected, rtol=1e-4, atol=1e-8)
    assert expected.abs().max() > 1e-4


def white_sky(levels) -> torch.Tensor:
    """What rays let through after layers were fitted to a white sky, in front of another grey level in each step."""
    origins, directions = torch.zeros(200, 3), normalize(rays(200)[1], dim=-1)
    layers = SphereLayers.around(3, 4, torch.device("cpu"))
    optimizer = background.BackgroundOptimizer(layers, FitBackground(), RenderOptions(), len(levels))
    batch = RayBatch(origins, directions, torch.ones(200, 3), torch.zeros(200, dtype=torch.long), None)
    for index, level in enumerate(levels):
        optimizer.update(index, (optimizer.render(batch, level) - 1) * (2 / 600))
    return (layers.shade(origins, directions, 0.5, 1.0) - layers.shade(origins, directions, 0.5, 0.0)).mean()


def test_a_white_sky_becomes_opaque_only_where_the_level_behind_it_changes():
    before, usual, changing = white_sky([]), white_sky([1.0] * 200), white_sky([0.1, 0.9, 0.3, 0.6] * 50)
    assert usual > 0.5 * before and changing < 0.1 * before


@pytest.mark.parametrize("bits, tolerance", [(32, 1e-7), (16, 4e-3), (8, 4e-2)])
def test_is_kept_in_a_checkpoint(tmp_path, bits, tolerance):
    grid = layered_grid(random_layers())
    grid.save(tmp_path / "scene", bits=bits)
    stored = load_perfception_scene(tmp_path / "scene").background
    assert stored.data.shape == (72, 5, 4) and stored.links.shape == (12, 6)
    loaded = PlenoxelGrid.load(tmp_path / "scene").background.texture
    assert (loaded - grid.background.texture).abs().max() <= tolerance


def test_directions_without_a_row_are_empty(tmp_path):
    sky = random_layers()
    stored = sky.to_stored()
    stored.links[3, 2] = -1
    loaded = SphereLayers.from_stored(stored).texture
    assert (loaded[2, 3] == 0).all()
    loaded[2, 3] = sky.texture[2, 3]
    torch.testing.assert_close(loaded, sky.texture, rtol=2e-7, atol=0)


def test_checkpoints_hold_densities_in_their_own_unit():
    stored = SphereLayers.around(3, 2, torch.device("cpu")).to_stored()
    torch.testing.assert_close(stored.data[5, :, 3], torch.tensor([0.1, 0.1, 20.0]))
