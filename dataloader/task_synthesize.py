"""Task ``synthesize``: furnished rooms in ScanNet's layout."""

from __future__ import annotations

from pathlib import Path

import gin

from dataloader.synthesis.pictures import PictureOptions
from dataloader.synthesis.room import RoomOptions
from dataloader.synthesis.scene_folder import room_inputs, room_name, write_room
from utils.errors import UserError
from utils.plans import Item, Plan, plan_output, plan_scenes
from utils.scene_workers import SceneWorkers
from utils.scenes import for_each_scene
from utils.tasks import task


@task(
    summary="make furnished demo rooms in ScanNet's layout",
    records="{scans_dir}/run",
    configures=(RoomOptions, PictureOptions, SceneWorkers),
)
def synthesize(
    scans_dir: str = gin.REQUIRED,
    rooms: int = 6,
    first: int = 0,
    seed: int = 0,
    overwrite: bool = False,
) -> Plan:
    """Write generated rooms as ``{scans_dir}/scene9000_00``, ``scene9001_00`` and so on.

    Rooms that are there with the same settings are left alone. The same seed gives the same bytes. A room is made by
    one core; ``SceneWorkers.count`` is how many are made at a time.

    Args:
        scans_dir: folder that receives one folder a room.
        rooms: how many rooms.
        first: number of the first room; room k is the same whatever else is made.
        seed: another seed gives other rooms.
        overwrite: make rooms again that were made with other settings.
    """
    if rooms < 1 or first < 0:
        raise UserError(f"synthesize.rooms = {rooms} and first = {first}: expected at least one room from 0 on")
    room_options, picture_options = RoomOptions(), PictureOptions()
    numbers = {room_name(index): index for index in range(first, first + rooms)}

    def plan_one(name: str, opened: bool) -> Item:
        inputs = room_inputs(seed, numbers[name], room_options, picture_options)
        height, width = picture_options.size
        detail = f"{picture_options.frames} frames of {width}x{height}"
        return plan_output(name, Path(scans_dir) / name, inputs, overwrite, detail)

    def make(name: str) -> bool:
        return write_room(Path(scans_dir) / name, seed, numbers[name], room_options, picture_options, overwrite)

    def work() -> dict[str, int]:
        written = for_each_scene(list(numbers), make, "rooms")
        return {"rooms": rooms, "written": sum(written.values())}

    return Plan(work, plan_scenes(list(numbers), plan_one))
