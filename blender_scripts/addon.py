"""The panel "ScanNet" in the 3D view's sidebar: open a scene or cameras, build a dome, export cameras."""

from __future__ import annotations

import bpy
import numpy as np
from bpy.props import BoolProperty, FloatProperty, IntProperty, StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from blender_scripts.camera_geometry import dome_poses
from blender_scripts.open_scene import export_cameras, open_cameras, open_scene
from blender_scripts.scene_folder import write_pose
from blender_scripts.scene_objects import add_cameras, camera_intrinsics, camera_pose
from utils.label_table import DEFAULT_TABLE


class OpenScene(bpy.types.Operator):
    """Import the mesh with class colours, and the cameras, of a ScanNet scene folder"""

    bl_idname = "scannet.open_scene"
    bl_label = "Open scene folder"
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(subtype="DIR_PATH")
    every: IntProperty(name="Every n-th camera", default=10, min=1)
    labels: StringProperty(name="Labels", default=DEFAULT_TABLE, description="Table of labels whose colours the mesh "
                           "gets: scannet20.tsv, nyu40.tsv, scannet200.tsv, scannetpp100.tsv, or the path of one")

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        try:
            lost = open_scene(self.directory, self.every, self.labels)
        except (OSError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if lost:
            self.report({"WARNING"}, f"{len(lost)} frames have no pose and were skipped")
        return {"FINISHED"}


class BuildDome(bpy.types.Operator):
    """Cameras on a dome around the 3D cursor, with the intrinsics of the scene's camera"""

    bl_idname = "scannet.build_dome"
    bl_label = "Dome around the cursor"
    bl_options = {"REGISTER", "UNDO"}

    radius: FloatProperty(name="Radius", default=1.5, min=0.1, unit="LENGTH")
    azimuths: IntProperty(name="Directions", default=8, min=1)

    def execute(self, context):
        camera = context.scene.camera
        if camera is None:
            self.report({"ERROR"}, "the scene has no camera to take the intrinsics from; open a scene folder first")
            return {"CANCELLED"}
        poses = dome_poses(np.array(context.scene.cursor.location), self.radius, self.azimuths)
        render = context.scene.render
        add_cameras(
            "dome", {str(index): pose for index, pose in enumerate(poses)}, camera_intrinsics(camera),
            render.resolution_y, render.resolution_x,
        )
        return {"FINISHED"}


class OpenCameras(bpy.types.Operator, ImportHelper):
    """Add the cameras of a list, SCENE.json, such as 'sample' and 'filter' write"""

    bl_idname = "scannet.open_cameras"
    bl_label = "Open camera list"
    bl_options = {"REGISTER", "UNDO"}
    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})

    def execute(self, context):
        try:
            count = open_cameras(self.filepath)
        except (OSError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{count} cameras")
        return {"FINISHED"}


class ExportCameras(bpy.types.Operator, ExportHelper):
    """Write cameras as a list, SCENE.json, from which render.cameras renders views"""

    bl_idname = "scannet.export_cameras"
    bl_label = "Export camera list"
    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})
    selected: BoolProperty(name="Selected cameras only", default=False)

    def execute(self, context):
        try:
            count = export_cameras(self.filepath, self.selected)
        except (OSError, ValueError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{count} cameras written to {self.filepath}")
        return {"FINISHED"}


class ExportPose(bpy.types.Operator, ExportHelper):
    """Write the active camera as a ScanNet pose file"""

    bl_idname = "scannet.export_pose"
    bl_label = "Export camera pose"
    filename_ext = ".txt"

    def execute(self, context):
        camera = context.object
        if camera is None or camera.type != "CAMERA":
            self.report({"ERROR"}, "the active object is no camera; select the camera to export")
            return {"CANCELLED"}
        write_pose(self.filepath, camera_pose(camera))
        return {"FINISHED"}


class ScanNetPanel(bpy.types.Panel):
    """Buttons for the operators"""

    bl_idname = "VIEW3D_PT_scannet"
    bl_label = "ScanNet"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "ScanNet"

    def draw(self, context):
        for operator in (OpenScene, OpenCameras, BuildDome, ExportCameras, ExportPose):
            self.layout.operator(operator.bl_idname)


_CLASSES = (OpenScene, OpenCameras, BuildDome, ExportCameras, ExportPose, ScanNetPanel)


def register() -> None:
    """Called by Blender when the add-on is switched on."""
    for cls in _CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    """Called by Blender when the add-on is switched off."""
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
