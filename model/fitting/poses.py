"""Refining the training cameras' poses along with the field, by direct image alignment.

Poses of hand-held captures are off by a pixel or more, which blurs the field. A few times during a fit every
photograph is compared with the field's render from its camera, and the pose is updated by one Gauss-Newton step on
the photometric error, with the field's depth (the method of direct visual odometry: Kerl, Sturm and Cremers 2013,
Engel, Koltun and Cremers 2016; the gradient is the mean of both images', after Malis 2004). A prior keeps the poses
near the given ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from lib.plenoxel.options import RenderOptions
from model.fitting.exposure import ExposureEstimate
from model.fitting.frames import Frames, fitted_size
from model.fitting.options import FitPoses
from model.grid import PlenoxelGrid
from model.rendering import render_rays
from utils.cameras import camera_rays, rigid_inverse, scale_intrinsics, seen_pixels
from utils.lenses import Lens
from utils.rotations import axis_angle_to_matrix, matrix_to_axis_angle

_RAYS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 20}
_LEAST_ALPHA = 0.5
_CORRELATED_VALUES = 150.0
"""Residuals of neighbouring pixels and channels are correlated: so many count as one independent observation."""
_LARGEST_STEP = 0.01
"""Radians, and share of the median depth, that a step moves a camera at most: a few pixels."""


class PoseRefinement:
    """The training cameras' poses in the grid's frame, which :meth:`update` refines.

    Args:
        frames: the photographs.
        camera_to_grid: float64 ``[N, 4, 4]``, the given poses.
        options: image size of the comparison, and standard deviations of the given poses.
    """

    def __init__(self, frames: Frames, camera_to_grid: Tensor, options: FitPoses):
        device = frames.images.device
        self.size = fitted_size(frames.size, options.max_image_side)
        self._frames, self._options = frames, options
        self._intrinsics = scale_intrinsics(frames.intrinsics.double().cpu(), frames.size, self.size)
        seen = seen_pixels(self._intrinsics, self.size, frames.lens)
        self._seen = None if seen is None else _inner(seen).to(device)
        self._given = camera_to_grid.double().to(device)
        self.camera_to_grid = self._given.clone()

    def update(self, grid: PlenoxelGrid, exposure: ExposureEstimate, rendering: RenderOptions) -> None:
        """Refine all poses by one step."""
        height, width = self.size
        at_once = max(1, _RAYS_AT_ONCE[grid.device.type] // (height * width))
        for chosen in torch.arange(len(self._frames), device=grid.device).split(at_once):
            photos = self._photos(chosen, exposure)
            step = self._step(chosen, photos, grid, rendering)
            self.camera_to_grid[chosen] = self.camera_to_grid[chosen] @ _rigid_motion(step)

    def movements(self) -> tuple[Tensor, Tensor]:
        """Axis-angle rotations about the cameras' centres, and translations of these, float64 ``[N, 3]`` on the CPU.

        Both from the given to the refined poses, in the grid's axes and units.
        """
        now, given = self.camera_to_grid.cpu(), self._given.cpu()
        turn = matrix_to_axis_angle(now[:, :3, :3] @ given[:, :3, :3].transpose(1, 2))
        return turn, now[:, :3, 3] - given[:, :3, 3]

    def _photos(self, chosen: Tensor, exposure: ExposureEstimate) -> Tensor:
        """Photographs ``[B, 3, h, w]`` at the average exposure."""
        images = self._frames.images[chosen].movedim(-1, 1).float() / 255
        reduced = interpolate(images, self.size, mode="area").movedim(1, -1)
        number, height, width = reduced.shape[:3]
        return exposure.to_field(
            reduced.reshape(-1, 3), chosen.repeat_interleave(height * width)
        ).view(number, height, width, 3).movedim(-1, 1)  # fmt: skip

    def _step(self, chosen: Tensor, photos: Tensor, grid: PlenoxelGrid, rendering: RenderOptions) -> Tensor:
        """Twists ``[B, 6]`` in the cameras' own axes: translation, then axis-angle rotation."""
        pose = self.camera_to_grid[chosen]
        lens = self._frames.lens
        origins, directions = camera_rays(pose, self._intrinsics.to(pose), *self.size, lens)
        out = render_rays(grid, origins, directions, rendering, outputs=("rgb", "depth", "alpha"))
        rendered, alpha = out.rgb.movedim(-1, 1), out.alpha
        distance = out.depth / alpha.clamp(min=_LEAST_ALPHA)
        local = directions @ pose[:, None, :3, :3].float()
        points = local * distance[..., None]
        jacobian = _motion_jacobian((rendered + photos) / 2, points, self._intrinsics, lens)
        residual = photos - rendered
        weights = robust_weights(residual) * (alpha > _LEAST_ALPHA)
        if self._seen is not None:
            weights = weights * self._seen
        if self._frames.valid is not None:
            whole = interpolate(self._frames.valid[chosen][:, None].float(), self.size, mode="area")[:, 0]
            weights = weights * (whole == 1)
        depth = points[..., 2] if lens is None else lens.depth_of(points)
        return self._solve(chosen, jacobian, residual, weights, depth)

    def _solve(self, chosen: Tensor, jacobian: Tensor, residual: Tensor, weights: Tensor, depth: Tensor) -> Tensor:
        """Weighted least squares with the prior; poses without valid pixels stay."""
        number = len(chosen)
        rows = (jacobian * weights[:, None, None]).flatten(2)
        flat = jacobian.flatten(2)
        normal = (rows @ flat.transpose(1, 2)).double()
        right = (rows @ residual.reshape(number, -1, 1))[..., 0].double()
        variance = (weights[:, None] * residual**2).sum((1, 2, 3)) / (3 * weights.sum((1, 2))).clamp(min=1)
        unit = (variance.double() * _CORRELATED_VALUES).clamp(min=1e-9)[:, None]
        scale = depth.flatten(1).median(1).values.double().clamp(min=1e-6)
        sigma = torch.cat((
            (self._options.translation_sigma * scale)[:, None].expand(-1, 3),
            torch.full((number, 3), self._options.rotation_sigma, dtype=torch.float64, device=scale.device),
        ), dim=1)  # fmt: skip
        prior = unit / sigma**2
        moved = rigid_inverse(self._given[chosen]) @ self.camera_to_grid[chosen]
        so_far = torch.cat((moved[:, :3, 3], matrix_to_axis_angle(moved[:, :3, :3])), dim=1)
        step = torch.linalg.solve(normal + torch.diag_embed(prior), right - prior * so_far)
        largest = torch.maximum(step[:, :3].norm(dim=1) / scale, step[:, 3:].norm(dim=1))
        return step * (_LARGEST_STEP / largest.clamp(min=_LARGEST_STEP))[:, None]


def _inner(seen: Tensor) -> Tensor:
    """Pixels of ``[h, w]`` whose neighbours are seen, too, so that the image has a slope there."""
    return max_pool2d((~seen).float()[None], 3, 1, 1)[0] == 0


def _motion_jacobian(image: Tensor, points: Tensor, intrinsics: Tensor, lens: Lens | None = None) -> Tensor:
    """Jacobian ``[B, 6, 3, h, w]`` of an image by its camera's motion: translation along, and rotation about, its axes.

    Args:
        image: ``[B, 3, h, w]``.
        points: ``[B, h, w, 3]``, surface point of each pixel, in the camera's frame.
        intrinsics: ``[3, 3]`` of the image.
        lens: its lens; None for a pinhole.
    """
    along_u, along_v = torch.zeros_like(image), torch.zeros_like(image)
    along_u[..., 1:-1] = (image[..., 2:] - image[..., :-2]) / 2
    along_v[..., 1:-1, :] = (image[..., 2:, :] - image[..., :-2, :]) / 2
    x, y, z = points[:, None].clamp(min=-1e6).unbind(-1)
    (fx, skew, _), (_, fy, _), _ = intrinsics.tolist()
    if lens is None:
        inverse = 1 / z.clamp(min=1e-6)
        u, v = (fx * x + skew * y) * inverse, fy * y * inverse
        q_x = along_u * fx * inverse
        q_y = (along_u * skew + along_v * fy) * inverse
        q_z = -(along_u * u + along_v * v) * inverse
    else:
        slope = _lens_slope(points, lens)[:, None]  # [B, 1, h, w, 2, 3]
        across = torch.stack((along_u * fx, along_u * skew + along_v * fy), dim=-1)
        q_x, q_y, q_z = (across[..., None, :] @ slope)[..., 0, :].unbind(-1)
    return torch.stack((q_x, q_y, q_z, y * q_z - z * q_y, z * q_x - x * q_z, x * q_y - y * q_x), dim=1)


def _lens_slope(points: Tensor, lens: Lens) -> Tensor:
    """Derivatives ``[..., 2, 3]`` of the lens's projection at points ``[..., 3]``; finite where there is none, too."""
    nowhere = lens.depth_of(points) <= 1e-6
    return lens.jacobian(torch.where(nowhere[..., None], points.new_tensor([0.0, 0.0, 1.0]), points))


def robust_weights(residual: Tensor) -> Tensor:
    """Geman-McClure weights ``[B, h, w]`` of residuals ``[B, 3, h, w]``, scaled by each image's median."""
    squared = (residual**2).sum(1)
    scale = 4 * squared.flatten(1).median(1).values.clamp(min=1e-6)[:, None, None]
    return (scale / (scale + squared)) ** 2


def _rigid_motion(twist: Tensor) -> Tensor:
    """Rigid transforms ``[B, 4, 4]`` of a translation and an axis-angle rotation ``[B, 6]``, in the camera's axes."""
    motion = torch.eye(4, dtype=twist.dtype, device=twist.device).repeat(len(twist), 1, 1)
    motion[:, :3, :3], motion[:, :3, 3] = axis_angle_to_matrix(twist[:, 3:]), twist[:, :3]
    return motion
