"""A small generated room, photographed through a fisheye lens or by a pinhole from the same poses."""

from pathlib import Path

from dataloader.synthesis import PictureOptions, RoomOptions, write_room

ROOM = RoomOptions(types=("bathroom",), edge=0.15)
SIZE = (48, 64)


def write_fisheye_room(folder: Path, frames: int = 12, field_of_view: float = 160.0) -> Path:
    write_room(folder, 3, 0, ROOM, PictureOptions(SIZE, frames, field_of_view, noise=0.0, lens="fisheye"))
    return folder


def write_pinhole_twin(folder: Path, frames: int = 12) -> Path:
    write_room(folder, 3, 0, ROOM, PictureOptions(SIZE, frames, 80.0, noise=0.0))
    return folder
