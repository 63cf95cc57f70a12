"""Meshes that viser shows in exactly the given colour.

Viser's page has no switch for three.js' tone curve (the fit of ACES by S. Hill), which shifts every lit colour, class
colours too. A mesh sent as glTF may have an unlit material, and its base colour reaches the shader unchanged; so it is
sent as the colour that the tone curve maps to the given one. Such colours leave 0..1, which glTF
discourages and three.js accepts.
"""

from __future__ import annotations

import json
import struct

import numpy as np

_ACES_INPUT = np.array([[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]])
_ACES_OUTPUT = np.array([[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]])
_ACES_NUMERATOR = (1.0, 0.0245786, -0.000090537)  # of v^2, v, 1
_ACES_DENOMINATOR = (0.983729, 0.4329510, 0.238081)
_ACES_EXPOSURE = 1 / 0.6
_GLTF_FLOAT, _GLTF_UINT = 5126, 5125
_GLTF_VERTICES, _GLTF_INDICES = 34962, 34963


def before_tone_curve(color: np.ndarray) -> np.ndarray:
    """Linear RGB, float64 ``[3]``, that three.js' ACESFilmicToneMapping turns into an sRGB colour 0..255 ``[3]``."""
    srgb = np.asarray(color, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    curved = np.linalg.solve(_ACES_OUTPUT, linear)
    quadratic, straight, constant = (
        above - curved * below for above, below in zip(_ACES_NUMERATOR, _ACES_DENOMINATOR, strict=True)
    )
    uncurved = (-straight + np.sqrt(straight**2 - 4 * quadratic * constant)) / (2 * quadratic)
    return np.linalg.solve(_ACES_INPUT, uncurved) / _ACES_EXPOSURE


def unlit_glb(
    vertices: np.ndarray,  # float32 [Nv, 3]
    faces: np.ndarray,  # [F, 3]
    color: np.ndarray,  # [3], sRGB 0..255
    opacity: float = 1.0,
) -> bytes:
    """A binary glTF of one mesh that shows ``color`` from both sides, whatever the light."""
    vertices, faces = np.ascontiguousarray(vertices, "<f4"), np.ascontiguousarray(faces, "<u4")
    material = {
        "pbrMetallicRoughness": {"baseColorFactor": [*before_tone_curve(color).tolist(), opacity]},
        "extensions": {"KHR_materials_unlit": {}},
        "doubleSided": True,
        "alphaMode": "OPAQUE" if opacity >= 1 else "BLEND",
    }
    document = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [material],
        "accessors": [
            {"bufferView": 0, "componentType": _GLTF_FLOAT, "count": len(vertices), "type": "VEC3",
             "min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()},
            {"bufferView": 1, "componentType": _GLTF_UINT, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": vertices.nbytes, "target": _GLTF_VERTICES},
            {"buffer": 0, "byteOffset": vertices.nbytes, "byteLength": faces.nbytes, "target": _GLTF_INDICES},
        ],
        "buffers": [{"byteLength": vertices.nbytes + faces.nbytes}],
    }  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    content = vertices.tobytes() + faces.tobytes()  # both are multiples of four bytes
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
