"""Blender scripts and add-on for ScanNet scenes; ``build_extension.py`` packs them for Blender 4.2 or newer."""


def register():
    """Called by Blender when the add-on is switched on."""
    from blender_scripts.addon import register as register_addon

    register_addon()


def unregister():
    """Called by Blender when the add-on is switched off."""
    from blender_scripts.addon import unregister as unregister_addon

    unregister_addon()
