"""``render_rays`` as the design states it: shapes, backends, options, outputs, gradients, refusals."""

import inspect

import pytest
import torch

import model
from model import PlenoxelGrid, RenderOptions, render_rays
from model.resampling import resample_grid
from model.sphere_layers import SphereLayers
from tests.model.grid_fixture import dense, filled
from tests.model.test_grid import random_grid


def rays(*shape, seed=5):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(*shape, 3, generator=generator)
    targets = torch.rand(*shape, 3, generator=generator) - 0.5
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def test_signatures_are_those_of_the_design():
    assert {"PlenoxelGrid", "RenderOptions", "render_rays"} <= set(model.__all__)
    parameters = inspect.signature(render_rays).parameters
    assert list(parameters) == ["grid", "origins", "directions", "options", "outputs", "backend"]
    assert parameters["outputs"].default == ("rgb", "sh", "depth", "alpha")
    assert parameters["backend"].default == "auto"
    from_sparse = inspect.signature(PlenoxelGrid.from_sparse).parameters
    assert list(from_sparse) == ["resolution", "links_idx", "density", "sh", "center", "radius"]
    options = RenderOptions(step_size=0.5, sigma_thresh=1e-10, stop_thresh=1e-7, near_clip=0.0,
                            background_brightness=1.0)  # fmt: skip
    assert options == RenderOptions()


@pytest.mark.parametrize("shape", [(7,), (2, 3), (1, 2, 4), ()])
def test_leading_dimensions(shape):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=200)
    origins, directions = rays(*shape)
    out = render_rays(grid, origins, directions)
    assert out.rgb.shape == (*shape, 3) and out.sh.shape == (*shape, 27)
    assert out.depth.shape == shape and out.alpha.shape == shape
    flat = render_rays(grid, origins.reshape(-1, 3), directions.reshape(-1, 3))
    assert torch.equal(out.sh.reshape(-1, 27), flat.sh)


@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(),
        RenderOptions(step_size=0.21, near_clip=0.4, background_brightness=0.3, stop_thresh=0.02),
        RenderOptions(sh_background=True, background_brightness=0.7),
    ],
)
def test_backends_agree(options):
    grid, *_ = random_grid(resolution=(8, 6, 10), voxels=300)
    origins, directions = rays(200)
    compiled = render_rays(grid, origins, directions, options, backend="cpu")
    plain = render_rays(grid, origins, directions, options, backend="reference")
    automatic = render_rays(grid, origins, directions, options)
    for name, values in compiled._asdict().items():
        assert torch.allclose(values, getattr(plain, name), atol=2e-5), name
        assert torch.equal(values, getattr(automatic, name)), name


def test_unrequested_outputs_are_none():
    grid, *_ = random_grid()
    out = render_rays(grid, *rays(5), outputs=("depth",))
    assert out.rgb is None and out.sh is None and out.alpha is None and out.depth.shape == (5,)


def test_depth_is_distance_to_a_wall_in_world_units():
    # A wall of one opaque layer of voxels at i = 12 of 16, seen head-on and at a slant.
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    occupied[12] = True
    grid = filled(occupied, density=1e4)
    wall = (12 + 0.5) * 2 / 16 - 1
    slant = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, -0.2]), dim=0)
    directions = torch.stack((torch.tensor([1.0, 0.0, 0.0]), slant))
    origins = torch.tensor([-0.5, 0.03, 0.02]).expand(2, 3).contiguous()
    out = render_rays(grid, origins, directions, RenderOptions(step_size=0.05))
    expected = (wall + 0.5) / directions[:, 0]
    assert torch.allclose(out.alpha, torch.ones(2), atol=1e-5)
    # The trilinear wall begins one voxel (2/16) before its centre, where its density is 0.
    assert ((out.depth > expected - 2 / 16 / directions[:, 0]) & (out.depth < expected)).all()


def test_gradients_reach_density_and_sh_through_every_output():
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=300)
    grid.density.requires_grad_(True)
    grid.sh.requires_grad_(True)
    origins, directions = rays(40)
    for name in ("rgb", "sh", "depth", "alpha"):
        results = []
        for backend in ("cpu", "reference"):
            out = getattr(render_rays(grid, origins, directions, outputs=(name,), backend=backend), name)
            weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(1))
            gradients = torch.autograd.grad((out * weights).sum(), (grid.density, grid.sh), allow_unused=True)
            results.append([torch.zeros(1) if g is None else g for g in gradients])
        for compiled, plain in zip(*results, strict=True):
            assert torch.allclose(compiled, plain, atol=1e-4 * max(1.0, float(plain.abs().max())))
        assert results[0][0].abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "opengl"}, "backend"),
        ({"backend": "cuda"}, "cuda"),
        ({"outputs": ("rgb", "normals")}, "outputs"),
        ({"outputs": ()}, "outputs"),
        ({"origins": torch.zeros(4, 3, dtype=torch.float64)}, "float32"),
        ({"origins": torch.zeros(4, 2)}, "float32"),
        ({"origins": torch.zeros(5, 3)}, "differ"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    grid, *_ = random_grid()
    origins, directions = rays(4)
    with pytest.raises(ValueError, match=message):
        render_rays(**{"grid": grid, "origins": origins, "directions": directions, **change})


@pytest.mark.parametrize("bad", [{"step_size": 0.0}, {"near_clip": -1.0}, {"stop_thresh": 1.0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RenderOptions(**bad)


def test_an_empty_grid_shows_the_background():
    grid = filled(torch.zeros(4, 4, 4, dtype=torch.bool))
    out = render_rays(grid, *rays(6), RenderOptions(background_brightness=0.25))
    assert torch.equal(out.rgb, torch.full((6, 3), 0.25)) and out.alpha.abs().max() == 0


def test_resampling_to_the_same_resolution_changes_nothing():
    grid, *_ = random_grid(resolution=(6, 6, 6), voxels=50)
    same = resample_grid(grid, (6, 6, 6))
    for actual, expected in zip(dense(same), dense(grid), strict=True):
        assert torch.allclose(actual, expected, atol=1e-5)


def test_resampling_interpolates_density_and_keeps_colour_at_the_rim():
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, 1, 1] = True
    grid = filled(occupied, density=8.0)
    grid.sh[:] = torch.arange(27.0)
    finer = resample_grid(grid, (8, 8, 8))
    # The voxel's 8 children sit a quarter of a voxel off its centre along each axis.
    assert finer.num_voxels == 8
    assert torch.allclose(finer.density, torch.full((8,), 8 * 0.75**3))
    assert torch.allclose(finer.sh, torch.arange(27.0).expand(8, 27), atol=1e-4)




def test_compiled_as_a_whole_graph_with_layers_and_gradients():
    """From options that gin configures, with values of the function's own."""
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=60)
    texture = torch.rand(4, 8, 3, 4, generator=torch.Generator().manual_seed(1))
    origins, directions = rays(5, 6)

    def loss_of(density, texture):
        changed = grid.replace(density=density * 2, background=SphereLayers(texture))
        out = render_rays(changed, origins, directions)
        return out.rgb.square().sum() + out.depth.sum() + out.sh.mean()

    torch._dynamo.reset()
    results = []
    for function in (loss_of, torch.compile(loss_of, fullgraph=True, backend="aot_eager")):
        leaves = grid.density.clone().requires_grad_(), texture.clone().requires_grad_()
        loss = function(*leaves)
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
        assert expected.any()


def test_loaded_and_rendered_in_inference_mode_then_used_with_gradients(tmp_path):
    grid, *_ = random_grid(resolution=(8, 8, 8), voxels=60)
    grid.background = SphereLayers(torch.rand(4, 8, 3, 4, generator=torch.Generator().manual_seed(1)))
    grid.save(tmp_path / "scene", bits=32)
    with torch.inference_mode():
        loaded = PlenoxelGrid.load(tmp_path / "scene")
        shown = render_rays(loaded, *rays(20))
    gradients = []
    for one in (loaded, PlenoxelGrid.load(tmp_path / "scene")):
        leaves = [tensor.requires_grad_() for tensor in (one.density, one.sh, one.background.texture)]
        out = render_rays(one, *rays(20))
        assert torch.equal(out.rgb, shown.rgb)
        gradients.append(torch.autograd.grad(out.rgb.square().sum(), leaves))
    for actual, expected in zip(*gradients, strict=True):
        assert torch.equal(actual, expected) and actual.any()
