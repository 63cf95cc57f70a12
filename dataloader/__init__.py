"""Everything read from or generated onto disk: recorded scenes, PeRFception scenes, view stores, datasets."""

from dataloader.camera_list import CameraList
from dataloader.mesh import Mesh, load_mesh
from dataloader.scannet import Scene, load_scannet_scene
from dataloader.scene_transform import SceneTransform

__all__ = [
    "CameraList",
    "Mesh",
    "Scene",
    "SceneTransform",
    "load_mesh",
    "load_scannet_scene",
]
