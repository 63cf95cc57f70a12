"""The SH basis against the constants of the renderer, and its transforms against their definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.spherical_harmonics import grid_to_frame, mirror_matrix, sh_basis, sh_transform, transform_sh_image


def random_orthogonal(seed: int, reflect: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return matrix * (torch.linalg.det(matrix) * (-1.0 if reflect else 1.0))


def random_directions(seed: int, count: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1)


def test_basis_has_the_constants_of_plenoxels():
    x, y, z = 0.48, 0.6, 0.64
    expected = [
        0.28209479, -0.48860251 * y, 0.48860251 * z, -0.48860251 * x,
        1.09254843 * x * y, -1.09254843 * y * z, 0.31539157 * (2 * z * z - x * x - y * y),
        -1.09254843 * x * z, 0.54627421 * (x * x - y * y),
    ]  # fmt: skip
    found = sh_basis(torch.tensor([x, y, z], dtype=torch.float64))
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_basis_turns_with_the_world(seed, reflect):
    matrix, directions = random_orthogonal(seed, reflect), random_directions(seed + 1)
    transform = sh_transform(matrix)
    assert torch.allclose(sh_basis(directions @ matrix.T), sh_basis(directions) @ transform.T, atol=1e-12)
    assert torch.allclose(transform @ transform.T, torch.eye(9, dtype=torch.float64), atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_transforms_compose(first, second, reflect):
    a, b = random_orthogonal(first, reflect), random_orthogonal(second, not reflect)
    assert torch.allclose(sh_transform(a @ b), sh_transform(a) @ sh_transform(b), atol=1e-12)


def test_mirror_across_x_flips_exactly_the_terms_odd_in_x():
    transform = sh_transform(mirror_matrix(torch.tensor([1.0, 0.0, 0.0])))
    assert torch.allclose(transform, torch.diag(torch.tensor([1.0, 1, 1, -1, -1, 1, 1, -1, 1])), atol=1e-6)


def test_image_transform_gives_the_moved_function():
    matrix = random_orthogonal(3, reflect=True)
    sh = torch.randn(1, 27, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = transform_sh_image(sh, sh_transform(matrix)[None])
    direction = random_directions(5, 1)[0]
    for channel in range(3):
        block = slice(9 * channel, 9 * channel + 9)
        seen_before = torch.einsum("khw,k->hw", sh[0, block], sh_basis(direction))
        seen_after = torch.einsum("khw,k->hw", moved[0, block], sh_basis(matrix @ direction))
        assert torch.allclose(seen_before, seen_after, atol=1e-12)


def test_batch_shapes_and_refusal_of_other_matrices():
    assert sh_transform(torch.eye(3).expand(2, 4, 3, 3)).shape == (2, 4, 9, 9)
    with pytest.raises(ValueError, match="orthogonal"):
        sh_transform(2 * torch.eye(3))


def test_sh_turned_into_a_frame_describe_the_same_function():
    coefficients = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    world_to_grid, pose = (random_orthogonal(k, reflect=False) for k in (2, 3))
    in_camera = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64), dim=0)
    in_grid = world_to_grid @ pose @ in_camera
    value = sh_basis(in_grid) @ coefficients
    for frame, direction in {"grid": in_grid, "gravity": pose @ in_camera, "camera": in_camera}.items():
        turned = sh_transform(grid_to_frame(frame, pose, world_to_grid)) @ coefficients
        torch.testing.assert_close(sh_basis(direction) @ turned, value)
