"""An ordered list of cameras of one scene, rendered or to be rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.cameras import scale_intrinsics
from utils.errors import reading, short
from utils.files import read_json, write_json
from utils.lenses import Lens
from utils.limits import LARGEST_SIDE
from utils.names import plain_name

_EXPECTED = ("expected scene, image_size and cameras with name, camera_to_world (4x4) and intrinsics (3x3): write it "
             "again with the stage that made it")  # fmt: skip


@dataclass
class CameraList:
    """Cameras that share one image size and one lens.

    Attributes:
        scene: name of the scene.
        names: one name per camera; frame numbers for a recorded trajectory.
        camera_to_world: float64 ``[N, 4, 4]``.
        intrinsics: float64 ``[N, 3, 3]`` in pixels of ``image_size``.
        image_size: (height, width).
        info: one JSON-able dict of further facts per camera (target class, accepted, ...).
        lens: of all cameras; None for pinholes.
    """

    scene: str
    names: list[str]
    camera_to_world: Tensor
    intrinsics: Tensor
    image_size: tuple[int, int]
    info: list[dict[str, Any]] = field(default_factory=list)
    lens: Lens | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        self.camera_to_world = torch.as_tensor(self.camera_to_world, dtype=torch.float64).reshape(-1, 4, 4)
        self.intrinsics = torch.as_tensor(self.intrinsics, dtype=torch.float64)
        if self.intrinsics.ndim == 2:
            self.intrinsics = self.intrinsics.expand(count, 3, 3).clone()
        self.intrinsics = self.intrinsics.reshape(-1, 3, 3)
        self.image_size = (int(self.image_size[0]), int(self.image_size[1]))
        self.info = self.info or [{} for _ in range(count)]
        lengths = (len(self.camera_to_world), len(self.intrinsics), len(self.info))
        if lengths != (count, count, count):
            raise ValueError(f"{count} names but {lengths} poses, intrinsics and info entries")

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Sequence[int] | Tensor) -> CameraList:
        """The cameras at ``indices`` (integers), or those where a boolean mask ``[N]`` holds, in that order."""
        chosen = torch.as_tensor(indices)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero()[:, 0]
        chosen = chosen.long()
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            camera_to_world=self.camera_to_world[chosen],
            intrinsics=self.intrinsics[chosen],
            info=[dict(self.info[i]) for i in chosen],
        )

    def resized(self, size: tuple[int, int]) -> CameraList:
        """The same views at another image size (height, width)."""
        return replace(
            self, intrinsics=scale_intrinsics(self.intrinsics, self.image_size, size), image_size=tuple(size)
        )

    def accepted(self) -> Tensor:
        """Bool ``[N]``: cameras that no filter rejected (``info["accepted"]`` is absent or true)."""
        return torch.tensor([bool(entry.get("accepted", True)) for entry in self.info], dtype=torch.bool)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; numbers in full precision."""
        return {
            "scene": self.scene,
            "image_size": list(self.image_size),
            **({} if self.lens is None else {"lens": self.lens.to_json()}),
            "cameras": [
                {"name": name, "camera_to_world": pose, "intrinsics": intrinsics, "info": info}
                for name, pose, intrinsics, info in zip(
                    self.names, self.camera_to_world.tolist(), self.intrinsics.tolist(), self.info, strict=True
                )
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> CameraList:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is absent, not JSON, or not a camera list.
        """
        content = read_json(path)
        with reading(path, "a camera list", _EXPECTED):
            cameras = content["cameras"]
            if not isinstance(cameras, list):
                raise TypeError(f"cameras is {short(cameras)}")
            return cls(
                scene=plain_name(content["scene"], path, "scene's name"),
                names=[plain_name(camera["name"], path, "camera's name") for camera in cameras],
                camera_to_world=_matrices(cameras, "camera_to_world", 4),
                intrinsics=_matrices(cameras, "intrinsics", 3),
                image_size=_image_size(content["image_size"]),
                info=[dict(camera.get("info", {})) for camera in cameras],
                lens=Lens.from_json(content["lens"]) if "lens" in content else None,
            )


def _matrices(cameras: list[dict[str, Any]], name: str, side: int) -> Tensor:
    """float64 ``[N, side, side]``."""
    values = torch.tensor([camera[name] for camera in cameras], dtype=torch.float64).reshape(-1, side, side)
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(f"{name} of camera {int((~finite).nonzero()[0])} holds NaN or infinity")
    if side == 3 and not (values.diagonal(dim1=-2, dim2=-1) > 0).all():
        raise ValueError(f"{name} with a focal length that is not positive")
    return values


def _image_size(size: Any) -> tuple[int, int]:
    height, width = size
    if not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in size):
        raise ValueError(f"image_size {short(size)}")
    return height, width
