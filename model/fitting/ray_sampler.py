"""Random training rays, drawn on the photographs' device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from model.fitting.frames import Frames
from utils.cameras import view_directions
from utils.errors import UserError


@dataclass
class RayBatch:
    """Training rays in the grid's frame.

    Attributes:
        origins: float32 ``[B, 3]``.
        directions: float32 ``[B, 3]``, unit length.
        colors: float32 ``[B, 3]``, the photographs' values, 0 to 1.
        frames: int64 ``[B]``, which photograph.
        distances: float32 ``[B]``, measured distance along the ray in the grid's units, 0 where unknown; or None.
        transparency: float32 ``[B]``, 1 - alpha; None where images have no alpha channel.
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor
    frames: Tensor
    distances: Tensor | None
    transparency: Tensor | None = None

    def part(self, chosen: slice) -> RayBatch:
        """Some of the rays."""
        values = [getattr(self, field.name) for field in fields(self)]
        return RayBatch(*(None if value is None else value[chosen] for value in values))

    @staticmethod
    def together(batches: list[RayBatch]) -> RayBatch:
        """The rays of several batches, one after the other."""
        values = [[getattr(batch, field.name) for batch in batches] for field in fields(RayBatch)]
        return RayBatch(*(None if parts[0] is None else torch.cat(parts) for parts in values))


class RaySampler:
    """Draws pixels uniformly from all training photographs, but for masked ones, with replacement.

    Args:
        frames: the photographs, on the device to draw on.
        camera_to_grid: ``[N, 4, 4]``, poses in the grid's frame.
        scene_scale: grid units per metre.
        generator: on the same device; its state is all that a resumed fit needs.
        with_distances: also look up the measured depth.
    """

    def __init__(
        self,
        frames: Frames,
        camera_to_grid: Tensor,
        scene_scale: float,
        generator: torch.Generator,
        with_distances: bool = False,
    ):
        self._frames, self._scene_scale, self.generator = frames, scene_scale, generator
        self._with_distances = with_distances
        self._lens_directions = None
        if frames.lens is not None:  # of depth one, in the camera's frame: [H * W, 3]
            directions = view_directions(frames.intrinsics.cpu(), frames.size, frames.lens)
            self._lens_directions = directions.reshape(-1, 3).float().to(frames.images.device)
        self._whole: dict[int, Tensor] = {}  # of each side, the numbers of the squares without a masked pixel
        self._valid = None if frames.valid is None else frames.valid.flatten().nonzero()[:, 0]
        self.move_cameras(camera_to_grid)

    def move_cameras(self, camera_to_grid: Tensor) -> None:
        """Draw rays from these poses ``[N, 4, 4]`` from now on."""
        device = self._frames.images.device
        self._positions = camera_to_grid[:, :3, 3].float().to(device)
        to_grid = camera_to_grid[:, :3, :3].double()
        if self._lens_directions is None:
            to_grid = to_grid @ torch.linalg.inv(self._frames.intrinsics.double().cpu()).to(camera_to_grid.device)
        self._to_grid = to_grid.float().to(device)  # of pixels (u, v, 1), or with a lens of directions

    def draw(self, count: int) -> RayBatch:
        """``count`` random rays."""
        device = self._frames.images.device
        numbers = torch.randint(self.num_pixels, (count,), generator=self.generator, device=device)
        return self.rays_of(self.pixels(numbers))

    def draw_patches(self, count: int, side: int) -> RayBatch:
        """The rays of ``count`` random squares of pixels, each row by row; none that holds a masked pixel.

        Raises:
            UserError: there is no such square.
        """
        device, (number, height, width) = self._frames.images.device, self._frames.images.shape[:3]
        rows, columns = height - side + 1, width - side + 1
        if self._valid is not None and side not in self._whole:
            self._whole[side] = _whole_squares(self._frames.valid, side)
        squares = number * max(0, rows) * max(0, columns) if self._valid is None else len(self._whole[side])
        if not squares:
            raise UserError(
                f"no photograph of {width}x{height} pixels has a square of {side} that is not masked; lower "
                "FitRegularization.structure_side, or set FitRegularization.structure = 0"
            )
        chosen = torch.randint(squares, (count,), generator=self.generator, device=device)
        if self._valid is not None:
            chosen = self._whole[side][chosen]
        first = (chosen // (rows * columns) * height + chosen // columns % rows) * width + chosen % columns
        offset = torch.arange(side, device=device)
        return self.rays_of((first[:, None] + (offset[:, None] * width + offset).flatten()).flatten())

    def pixels(self, numbers: Tensor) -> Tensor:
        """Flat indices of the pixels with these numbers, int64 below :attr:`num_pixels`."""
        return numbers if self._valid is None else self._valid[numbers]

    def rays_of(self, pixel: Tensor) -> RayBatch:
        """The rays of flat pixel indices ``(frame * H + row) * W + column``, int64 ``[B]``."""
        images, depths = self._frames.images, self._frames.depths
        height, width = images.shape[1:3]
        frame = pixel // (height * width)
        row, column = pixel // width % height, pixel % width
        if self._lens_directions is None:
            local = torch.stack((column + 0.5, row + 0.5, torch.ones_like(row, dtype=torch.float32)), dim=-1)
        else:
            local = self._lens_directions[row * width + column]
        along = (self._to_grid[frame] @ local[..., None])[..., 0]  # of depth one
        length = along.norm(dim=-1, keepdim=True)
        distances = transparency = None
        if self._with_distances:
            # The depth pixel that contains the photograph's pixel centre.
            depth_row = (2 * row + 1) * depths.shape[1] // (2 * height)
            depth_column = (2 * column + 1) * depths.shape[2] // (2 * width)
            depth = depths[frame, depth_row, depth_column].float() / 1000
            distances = depth * length[:, 0] * self._scene_scale
        if self._frames.alphas is not None:
            transparency = 1 - self._frames.alphas.reshape(-1)[pixel].float() / 255
        return RayBatch(
            origins=self._positions[frame],
            directions=along / length,
            colors=images.reshape(-1, 3)[pixel].float() / 255,
            frames=frame,
            distances=distances,
            transparency=transparency,
        )

    @property
    def num_pixels(self) -> int:
        """All pixels of all photographs, but for masked ones."""
        return self._frames.images[..., 0].numel() if self._valid is None else len(self._valid)


def _whole_squares(valid: Tensor, side: int) -> Tensor:
    """Numbers of the squares in ``valid [N, H, W]`` that are valid as a whole, counted by their first pixels."""
    holes = [max_pool2d((~frame).float()[None], side, stride=1).flatten() for frame in valid]
    return (torch.cat(holes) == 0).nonzero()[:, 0]
