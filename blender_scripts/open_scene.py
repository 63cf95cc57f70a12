"""Opens a ScanNet scene folder in Blender: its mesh with class colours and its cameras.

Headless:             blender -b -P blender_scripts/open_scene.py -- --scene DIR [--save FILE.blend]
With a picture:       ... -- --scene DIR --frame 12 --render OUT.png
With more cameras:    ... -- --scene DIR --cameras SCENE.json
With other classes:   ... -- --scene DIR --labels nyu40.tsv        (a table of configs/labels, or one's own)
In the scripting tab: open this file and run it; it adds the panel "ScanNet" to the 3D view's sidebar (key N).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import bpy

if __name__ == "__main__":  # Blender starts this file by its path, outside any package
    text = getattr(getattr(bpy.context, "space_data", None), "text", None)
    sys.path.insert(0, str(Path(text.filepath if text else __file__).resolve().parent.parent))

from blender_scripts.camera_file import Cameras, read_cameras, write_cameras
from blender_scripts.scene_folder import image_size, read_matrix, read_poses
from blender_scripts.scene_objects import add_camera, add_cameras, camera_intrinsics, camera_pose, import_scan
from utils.label_table import DEFAULT_TABLE

_OPTIONS = ("--scene", "--every", "--frame", "--render", "--cameras", "--save", "--labels")


def open_scene(scene: str | Path, every: int = 1, labels: str | Path = DEFAULT_TABLE) -> list[str]:
    """Import a scene folder's mesh in the colours of a table of labels, and every n-th camera.

    Returns:
        The names of frames without a pose.
    """
    scene = Path(scene)
    import_scan(scene, labels)
    poses, lost = read_poses(scene / "pose")
    intrinsics = read_matrix(scene / "intrinsic" / "intrinsic_color.txt")
    chosen = {name: pose for index, (name, pose) in enumerate(poses.items()) if index % every == 0}
    cameras = add_cameras("camera", chosen, intrinsics, *image_size(scene / "color"))
    bpy.context.scene.camera = next(iter(cameras.objects))
    return lost


def open_cameras(path: str | Path) -> int:
    """Add the cameras of a list, ``SCENE.json``; returns how many.

    Raises:
        OSError, ValueError: it cannot be read, or its pixels have different shapes, of which Blender has one a scene.
    """
    cameras = read_cameras(path)
    aspects = {round(matrix[0, 0] / matrix[1, 1], 5) for matrix in cameras.intrinsics.values()}
    if len(aspects) > 1:
        raise ValueError(f"{path} holds cameras whose pixels have {len(aspects)} different shapes; open those of one")
    collection = bpy.data.collections.new(f"cameras {cameras.scene}")
    bpy.context.scene.collection.children.link(collection)
    for name, pose in cameras.poses.items():
        add_camera(name, pose, cameras.intrinsics[name], cameras.height, cameras.width, collection)
    bpy.context.scene.camera = bpy.context.scene.camera or collection.objects[0]
    return len(cameras.poses)


def export_cameras(path: str | Path, selected: bool = False) -> int:
    """Write the scene's cameras, or those that are selected, as ``SCENE.json``; returns how many.

    Raises:
        OSError: it cannot be written.
        ValueError: there is no such camera, or one that no pinhole describes.
    """
    bpy.context.view_layer.update()
    cameras = [each for each in bpy.context.scene.objects if each.type == "CAMERA"]
    found = [camera for camera in cameras if not selected or camera.select_get()]
    if not found:
        raise ValueError("no camera is selected" if cameras else "there is no camera; open a scene or build a dome")
    render = bpy.context.scene.render
    write_cameras(path, Cameras(
        Path(path).stem, render.resolution_y, render.resolution_x,
        {camera.name: camera_pose(camera) for camera in found},
        {camera.name: camera_intrinsics(camera) for camera in found},
    ))  # fmt: skip
    return len(found)


def render_frame(frame: str, path: str | Path) -> None:
    """Render the camera of one frame to a PNG in the exact class colours."""
    scene = bpy.context.scene
    camera = bpy.data.objects.get(f"camera {frame}")
    if camera is None:
        raise ValueError(f"there is no camera for frame {frame}; its pose is lost or it was left out by --every")
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BOX", 0.01
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(Path(path).resolve())
    bpy.ops.render.render(write_still=True)


def main(arguments: list[str]) -> int:
    """Command line after Blender's ``--``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="open_scene.py", description=__doc__.splitlines()[0])
    parser.add_argument("--scene", required=True, help="ScanNet scene folder")
    parser.add_argument("--every", type=int, default=1, help="import every n-th camera")
    parser.add_argument("--frame", help="frame to render")
    parser.add_argument("--render", help="PNG to write")
    parser.add_argument("--cameras", help="camera list, SCENE.json, to add")
    parser.add_argument("--labels", default=DEFAULT_TABLE, help="table of labels whose colours the mesh gets")
    parser.add_argument("--save", help=".blend file to write")
    options = parser.parse_args(arguments)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        lost = open_scene(options.scene, options.every, options.labels)
        if lost:
            print(f"{len(lost)} frames have no pose and were skipped: {', '.join(lost[:10])}")
        if options.cameras:
            print(f"{open_cameras(options.cameras)} cameras of {options.cameras}")
        if options.render:
            render_frame(options.frame or bpy.context.scene.camera.name.split()[-1], options.render)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.save:
        bpy.ops.wm.save_as_mainfile(filepath=str(Path(options.save).resolve()))
    return 0


def own_arguments(argv: list[str], background: bool) -> list[str] | None:
    """What stands after ``--``; None where Blender's scripting tab runs this file without arguments.

    Raises:
        ValueError: options stand before ``--``, where Blender would take them for its own, or there are none.
    """
    if "--" in argv:
        return argv[argv.index("--") + 1 :]
    options = [word for word in argv[1:] if word.split("=")[0] in _OPTIONS]
    if options or background:
        before = f" before {options[0]}" if options else " --scene DIR"
        raise ValueError(f"put --{before}: blender -b -P blender_scripts/open_scene.py -- --scene DIR")
    return None


if __name__ == "__main__":
    try:
        given = own_arguments(sys.argv, bpy.app.background)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if given is not None:
        sys.exit(main(given))
    from blender_scripts.addon import register

    register()
