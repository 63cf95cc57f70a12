"""Opens a ScanNet scene folder in Blender: its mesh with class colours and its cameras.

Headless:             blender -b -P blender_scripts/open_scene.py -- --scene DIR [--save FILE.blend]
With a picture:       ... -- --scene DIR --frame 12 --render OUT.png
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

from blender_scripts.scene_folder import find_mesh, image_size, read_matrix, read_poses
from blender_scripts.scene_objects import add_cameras, import_mesh


def open_scene(scene: str | Path, every: int = 1) -> list[str]:
    """Import a scene folder's mesh and every n-th camera; returns the names of frames without a pose."""
    scene = Path(scene)
    import_mesh(find_mesh(scene))
    poses, lost = read_poses(scene / "pose")
    intrinsics = read_matrix(scene / "intrinsic" / "intrinsic_color.txt")
    chosen = {name: pose for index, (name, pose) in enumerate(poses.items()) if index % every == 0}
    cameras = add_cameras("camera", chosen, intrinsics, *image_size(scene / "color"))
    bpy.context.scene.camera = next(iter(cameras.objects))
    return lost


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
    parser.add_argument("--save", help=".blend file to write")
    options = parser.parse_args(arguments)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        lost = open_scene(options.scene, options.every)
        if lost:
            print(f"{len(lost)} frames have no pose and were skipped: {', '.join(lost[:10])}")
        if options.render:
            render_frame(options.frame or bpy.context.scene.camera.name.split()[-1], options.render)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.save:
        bpy.ops.wm.save_as_mainfile(filepath=str(Path(options.save).resolve()))
    return 0


if __name__ == "__main__":
    if "--" in sys.argv:
        sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
    from blender_scripts.addon import register

    register()
