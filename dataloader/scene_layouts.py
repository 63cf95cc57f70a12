"""Opening a recorded scene of any layout."""

from __future__ import annotations

from pathlib import Path

from dataloader.arkitscenes import TRAJECTORY, is_arkitscenes, load_arkitscenes_scene
from dataloader.colmap import load_colmap_scene, model_folders
from dataloader.instant_ngp import SINGLE_FILE, SPLIT_FILES, load_transforms_scene
from dataloader.nsvf import POSE_FOLDERS, load_nsvf_scene
from dataloader.scannet import load_scannet_scene
from dataloader.scannet_places import is_flat
from dataloader.scannetpp import MESH, is_scannetpp, load_scannetpp_scene
from dataloader.scene import Scene
from utils.errors import UserError, reading

_SCENES_OWN = ("color", "images", "rgb", "dslr", "iphone", "lowres_wide", "sparse", SINGLE_FILE)


def load_scene(path: str | Path, background: float = 1.0) -> Scene:
    """Open a scene folder in ScanNet's, ScanNet++'s, ARKitScenes', instant-ngp's, NSVF's or COLMAP's layout; reads no
    pixels.

    A folder with the files of several layouts is taken for the first of these.

    Args:
        path: the folder.
        background: grey level, 0 to 1, that shows through transparent pixels; ScanNet's images have none.

    Raises:
        UserError: the folder is in none of the layouts, or what is in it cannot be used.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; expected a scene's")
    with reading(path, "a scene's folder", "check or replace its files"):
        return _load(path, background)


def _load(path: Path, background: float) -> Scene:
    if (path / "color").is_dir() and ((path / "pose").is_dir() or not model_folders(path)):
        return load_scannet_scene(path)
    if is_flat(path):
        return load_scannet_scene(path)
    if is_scannetpp(path):
        return load_scannetpp_scene(path, background)
    if is_arkitscenes(path):
        return load_arkitscenes_scene(path, background)
    if any((path / name).is_file() for name in (SINGLE_FILE, SPLIT_FILES["train"])):
        return load_transforms_scene(path, background)
    if (path / "pose").is_dir() and any((path / name).exists() for name in ("intrinsic", "intrinsics_color.txt")):
        return load_scannet_scene(path)  # says that there is no color/
    if (path / "intrinsics.txt").exists() or any((path / name).is_dir() for name in POSE_FOLDERS):
        return load_nsvf_scene(path, background)
    if model_folders(path):
        return load_colmap_scene(path, background)
    raise UserError(f"{path} is in no known layout; looked for color/ (ScanNet), frame-N.color.jpg "
                    f"(SensReader, 7-Scenes), dslr/, iphone/ and {MESH} (ScanNet++), "
                    f"{TRAJECTORY} (ARKitScenes), {SINGLE_FILE} and {SPLIT_FILES['train']} (instant-ngp), "
                    "intrinsics.txt and pose/ (NSVF), and cameras.bin or cameras.txt in sparse/, sparse/0/ or the "
                    f"folder itself (COLMAP){_hint(path)}")


def _hint(path: Path) -> str:
    """What is probably to be done with a folder in no known layout."""
    if any(path.glob("*.sens")):
        return "; its stream is unpacked by the 'extract' task, which reads DATA/sens/SCENE/SCENE.sens"
    above = [name for name in (*_SCENES_OWN, *SPLIT_FILES.values()) if (path.parent / name).exists()]
    if above:
        return (f"; {path.parent} has {above[0]} and is probably a scene itself: give the folder that it is in, or "
                "move it into one of its own")
    if (path / "images").is_dir():
        return "; its photographs have no poses yet: COLMAP finds them"
    return ""
