"""Blender add-on and scripts for ScanNet scenes. To install as an add-on, link this folder and ``utils`` into
Blender's ``scripts/addons/modules``, or open ``open_scene.py`` in the scripting tab and run it.
"""

bl_info = {
    "name": "ScanNet scenes",
    "blender": (4, 2, 0),
    "category": "Import-Export",
    "location": "3D view, sidebar, ScanNet",
    "description": "Meshes with class colours, cameras with true intrinsics, domes, pose export",
}


def register():
    """Called by Blender when the add-on is switched on."""
    from blender_scripts.addon import register as register_addon

    register_addon()


def unregister():
    """Called by Blender when the add-on is switched off."""
    from blender_scripts.addon import unregister as unregister_addon

    unregister_addon()
