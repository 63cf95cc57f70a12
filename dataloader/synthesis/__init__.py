"""Furnished rooms generated in code and written in ScanNet's layout.

``build_room`` makes the labelled mesh, ``illuminate`` its light, ``camera_path`` a walk through it, and
``write_room`` a scene folder with everything.
"""

from dataloader.synthesis.lighting import illuminate
from dataloader.synthesis.pictures import PictureOptions, take_picture
from dataloader.synthesis.room import Room, RoomOptions, build_room
from dataloader.synthesis.scene_folder import room_name, write_room
from dataloader.synthesis.shading import Shader
from dataloader.synthesis.walk import camera_path

__all__ = [
    "PictureOptions", "Room", "RoomOptions", "Shader", "build_room", "camera_path", "illuminate", "room_name",
    "take_picture", "write_room",
]
