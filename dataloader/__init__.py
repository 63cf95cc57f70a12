"""Everything read from or generated onto disk: recorded scenes, PeRFception scenes, view stores, datasets."""

import utils  # noqa: F401  (before PyTorch: see utils/cores.py)
from dataloader.added_channels import add_channel
from dataloader.camera_list import CameraList
from dataloader.mesh import Mesh, load_mesh
from dataloader.perfception import (
    PerfceptionBackground,
    PerfceptionScene,
    load_perfception_scene,
    save_perfception_scene,
)
from dataloader.scannet import load_scannet_scene
from dataloader.scene import Scene, SparsePoints
from dataloader.scene_layouts import load_scene
from dataloader.scene_transform import SceneTransform
from dataloader.view_dataset import StoreViews, ViewDataset
from dataloader.view_store import ViewStore
from dataloader.view_writer import ViewStoreWriter

__all__ = [
    "CameraList",
    "Mesh",
    "PerfceptionBackground",
    "PerfceptionScene",
    "Scene",
    "SceneTransform",
    "SparsePoints",
    "StoreViews",
    "ViewDataset",
    "ViewStore",
    "ViewStoreWriter",
    "add_channel",
    "load_mesh",
    "load_perfception_scene",
    "load_scannet_scene",
    "load_scene",
    "save_perfception_scene",
]
