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
from blender_scripts.class_colors import NYU40, class_colors, find_table, load_table, object_ids
from blender_scripts.scene_folder import find_mesh

COLOR_ATTRIBUTE = "ClassColor"
_FILE_COLOR = "Col"  # as Blender calls the colours of a PLY


def import_scan(scene: Path, labels: str | Path) -> bpy.types.Object:
    """Import a ScanNet scene folder's mesh, Z up as it is, in the colours of a table of labels as far as it has labels.

    Colours are emitted, not lit, so a render with the Standard view transform shows the exact class colours.

    Raises:
        OSError, ValueError: a file is absent, or none.
    """
    system, rows = load_table(find_table(labels))
    mesh_object = _import_ply(find_mesh(scene, labelled=system == NYU40))
    mesh, ids = mesh_object.data, None
    if system != NYU40:
        ids = object_ids(scene, system, rows, len(mesh.vertices))
    elif (stored := mesh.attributes.get("label")) is not None:
        values = np.empty(len(mesh.vertices), dtype=np.float32)
        stored.data.foreach_get("value", values)
        ids = values.round().astype(np.int64)
    if ids is not None:
        _set_colors(mesh, class_colors(rows, ids))
    mesh.materials.clear()
    mesh.materials.append(_emission_material(_FILE_COLOR if ids is None else COLOR_ATTRIBUTE))
    return mesh_object


def _import_ply(path: Path) -> bpy.types.Object:
    if "FINISHED" not in bpy.ops.wm.ply_import(filepath=str(path), forward_axis="Y", up_axis="Z"):
        raise ValueError(f"{path} cannot be imported; expected a PLY mesh")
    return bpy.context.object


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
