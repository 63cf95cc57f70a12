"""Small view stores whose labels can be learned: vertical stripes of a class-dependent colour, with noise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataloader import CameraList, ViewStoreWriter
from utils.cameras import look_at
from utils.labels import label_set

SIZE = (24, 27)
CLASSES = (0, 1, 2, 5, 9)


def make_cameras(scene: str, count: int, size: tuple[int, int], generator: torch.Generator) -> CameraList:
    eye = torch.rand(count, 3, generator=generator, dtype=torch.float64) + 1
    poses = look_at(eye, torch.zeros(count, 3, dtype=torch.float64))
    intrinsics = torch.tensor([[size[1], 0, size[1] / 2], [0, size[1], size[0] / 2], [0, 0, 1]]).double()
    names = [str(10 * index) for index in range(count)]
    return CameraList(scene, names, poses, intrinsics.expand(count, 3, 3), size)


def make_values(count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
    stripes = torch.randint(len(CLASSES), (count, 4), generator=generator)
    place = torch.arange(size[1]) * 4 // size[1]
    label = torch.tensor(CLASSES, dtype=torch.uint8)[stripes[:, place]][:, None].expand(-1, size[0], -1).contiguous()
    color = torch.from_numpy(label_set().colors)[label.long()].movedim(-1, 1)
    noise = torch.randint(-20, 20, color.shape, generator=generator)
    rgb = (color + noise).clamp(0, 255).to(torch.uint8)
    sh = 0.3 * torch.rand(count, 27, *size, generator=generator) - 0.15
    sh[:, ::9] += rgb.float() / 255
    quality = torch.randint(256, (count, *size), generator=generator).to(torch.uint8)
    return {"rgb": rgb, "photo": 255 - rgb, "sh": sh, "label": label, "quality": quality}


def geometry_values(count: int, size=SIZE, seed: int = 0) -> dict[str, torch.Tensor]:
    """A store's depth (millimetres, times opacity) and opacity."""
    generator = torch.Generator().manual_seed(seed)
    alpha = 0.2 + 0.8 * torch.rand(count, *size, generator=generator)
    alpha = (alpha * 255).round() / 255
    return {"depth": alpha * (1 + 3 * torch.rand(count, *size, generator=generator)), "alpha": alpha}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and threads that wait for each other crawl on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """``make_store(scene, folder="views", count=4, seed=0, leave_out=(), **changes)`` writes a store; its path."""

    def make(
        scene, folder="views", count=4, seed=0, size=SIZE, leave_out=(), sh_dtype="uint8", names=None, held_out=None,
        dtypes=(), **changes,
    ) -> Path:  # fmt: skip
        generator = torch.Generator().manual_seed(seed + sum(map(ord, scene + folder)))
        cameras = make_cameras(scene, count, size, generator)
        cameras = cameras if names is None else replace(cameras, names=names)
        values = {name: value for name, value in make_values(count, size, generator).items() if name not in leave_out}
        values.update(changes)
        dtypes = {"sh": sh_dtype, **dict(dtypes)}
        channels = {name: (dtypes.get(name, "uint8"), tuple(value.shape[1:])) for name, value in values.items()}
        path = tmp_path / folder / scene
        sh_range = torch.tensor([[-0.6, 1.6]]).expand(27, 2)
        turned = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
        transform = torch.eye(4, dtype=torch.float64)
        transform[:3, :3] = turned * torch.linalg.det(turned)
        writer = ViewStoreWriter.create(
            path, cameras, channels, {"seed": seed}, sh_range=sh_range if "sh" in values else None,
            attributes={"T": transform.tolist(), **({} if held_out is None else {"held_out": held_out})},
        )  # fmt: skip
        writer.write(range(count), values)
        writer.finish()
        return path

    return make


@pytest.fixture
def make_deep_store(make_store):
    """As ``make_store``, with depth and opacity."""
    return lambda scene, count=4, **others: make_store(
        scene, count=count, dtypes={"depth": "uint16"}, **geometry_values(count, others.get("size", SIZE)), **others
    )


@pytest.fixture
def views(make_store) -> Path:
    """A folder with four rooms of eight views each."""
    return [make_store(f"scene{room:04d}_00", count=8, seed=room) for room in range(4)][0].parent
