"""Meshes and cameras as Blender objects. Blender 4.2 LTS to 5.x."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from blender_scripts.camera_geometry import (
    CameraSettings,
    from_blender,
    intrinsics_from_settings,
    settings_from_intrinsics,
    to_blender,
)
from utils.label_table import default_table, read_table

COLOR_ATTRIBUTE = "ClassColor"


def import_mesh(path: str | Path) -> bpy.types.Object:
    """Import a ScanNet mesh, Z up as it is; a labelled one is coloured by class.

    The colour is emitted, not lit, so a render with the Standard view transform shows the exact class colours.
    """
    if "FINISHED" not in bpy.ops.wm.ply_import(filepath=str(path), forward_axis="Y", up_axis="Z"):
        raise ValueError(f"{path} cannot be imported; expected a PLY mesh")
    mesh_object = bpy.context.object
    mesh = mesh_object.data
    labels = mesh.attributes.get("label")
    attribute = "Col"
    if labels is not None:
        ids = np.empty(len(mesh.vertices), dtype=np.float32)
        labels.data.foreach_get("value", ids)
        _set_colors(mesh, _class_colors(ids.round().astype(np.int64)))
        attribute = COLOR_ATTRIBUTE
    mesh.materials.clear()
    mesh.materials.append(_emission_material(attribute))
    return mesh_object


def _class_colors(nyu40_ids: np.ndarray) -> np.ndarray:
    table = np.zeros((65536, 4), dtype=np.float32)
    table[:, 3] = 1.0
    for row in read_table(default_table())[1]:
        if row.trained_as == row.name:
            table[row.id, :3] = np.array(row.color) / 255.0
    return table[nyu40_ids]


def _set_colors(mesh: bpy.types.Mesh, colors: np.ndarray) -> None:
    layer = mesh.color_attributes.new(COLOR_ATTRIBUTE, "FLOAT_COLOR", "POINT")
    srgb = colors[:, :3]
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    layer.data.foreach_set("color", np.concatenate((linear, colors[:, 3:]), axis=1).astype(np.float32).ravel())
    mesh.color_attributes.active_color = layer


def _emission_material(attribute: str) -> bpy.types.Material:
    material = bpy.data.materials.new(attribute)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    color = nodes.new("ShaderNodeAttribute")
    color.attribute_name = attribute
    emission = nodes.new("ShaderNodeEmission")
    output = nodes.new("ShaderNodeOutputMaterial")
    links.new(color.outputs["Color"], emission.inputs["Color"])
    links.new(emission.outputs["Emission"], output.inputs["Surface"])
    return material


def apply_image_settings(height: int, width: int, settings: CameraSettings) -> None:
    """Set the scene's resolution and pixel aspect, which Blender keeps apart from the camera."""
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    render.pixel_aspect_x, render.pixel_aspect_y = settings.pixel_aspect_x, settings.pixel_aspect_y


def add_camera(
    name: str, camera_to_world: np.ndarray, intrinsics: np.ndarray, height: int, width: int,
    collection: bpy.types.Collection | None = None,
) -> bpy.types.Object:
    """Add a camera with true intrinsics; also sets the scene's resolution and pixel aspect to match."""
    settings = settings_from_intrinsics(intrinsics, height, width)
    data = bpy.data.cameras.new(name)
    data.sensor_fit, data.sensor_width, data.lens = "HORIZONTAL", settings.sensor_width, settings.lens
    data.shift_x, data.shift_y = settings.shift_x, settings.shift_y
    data.display_size, data.clip_start = 0.15, 0.01
    camera = bpy.data.objects.new(name, data)
    camera.matrix_world = Matrix(to_blender(camera_to_world).tolist())
    (collection or bpy.context.scene.collection).objects.link(camera)
    apply_image_settings(height, width, settings)
    return camera


def add_cameras(
    name: str, poses: dict[str, np.ndarray], intrinsics: np.ndarray, height: int, width: int
) -> bpy.types.Collection:
    """Add a collection of cameras, one per pose."""
    collection = bpy.data.collections.new(name)
    bpy.context.scene.collection.children.link(collection)
    for frame, pose in poses.items():
        add_camera(f"{name} {frame}", pose, intrinsics, height, width, collection)
    return collection


def camera_pose(camera: bpy.types.Object) -> np.ndarray:
    """OpenCV camera-to-world pose ``[4, 4]`` of a Blender camera."""
    return from_blender(np.array(camera.matrix_world))


def camera_intrinsics(camera: bpy.types.Object) -> np.ndarray:
    """Intrinsics ``[3, 3]`` of a Blender camera at the scene's resolution."""
    data, render = camera.data, bpy.context.scene.render
    if data.sensor_fit != "HORIZONTAL":
        raise ValueError(f"camera {camera.name!r} has sensor fit {data.sensor_fit}; set it to Horizontal")
    settings = CameraSettings(
        data.lens, data.sensor_width, data.shift_x, data.shift_y, render.pixel_aspect_x, render.pixel_aspect_y
    )
    return intrinsics_from_settings(settings, render.resolution_y, render.resolution_x)
