"""Materials: a procedural pattern in one or two colours, gloss and emission.

Gloss is what makes materials differ in their spherical-harmonic coefficients: porcelain, metal and glass have
strong, narrow highlights, varnished wood and leather faintly, cloth and plaster not at all.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """Appearance of a surface. Colours are display (gamma-encoded) values in 0..1."""

    pattern: str  # a key of textures.PATTERNS
    color: Color
    color2: Color
    scale: float = 1.0  # size of the pattern's element in metres
    gloss: float = 0.0  # strength of highlights and reflections, 0..1
    shininess: float = 1.0  # Blinn-Phong exponent
    emission: float = 0.0  # emitted light, relative to a white surface in normal light
    phase: float = 0.0  # shifts and seeds the pattern, so that two objects differ

    def shifted(self, rng: np.random.Generator) -> Material:
        """The same material with the pattern at another place."""
        return replace(self, phase=float(rng.uniform(0, 64)))


@dataclass(frozen=True)
class MaterialTable:
    """Materials as arrays, one row each, for evaluation at many points at once."""

    pattern: tuple[str, ...]
    color: np.ndarray  # [M, 3] float32
    color2: np.ndarray  # [M, 3] float32
    scale: np.ndarray  # [M] float32
    gloss: np.ndarray  # [M] float32
    shininess: np.ndarray  # [M] float32
    emission: np.ndarray  # [M] float32
    phase: np.ndarray  # [M] float32

    @classmethod
    def of(cls, materials: list[Material]) -> MaterialTable:
        def column(name: str) -> np.ndarray:
            return np.array([getattr(material, name) for material in materials], dtype=np.float32)

        names = ("color", "color2", "scale", "gloss", "shininess", "emission", "phase")
        return cls(tuple(material.pattern for material in materials), *(column(name) for name in names))


@dataclass(frozen=True)
class Palette:
    """Patterns, and bands of hues in 0..1, that :func:`repainted` draws from."""

    patterns: tuple[str, ...]
    hues: tuple[tuple[float, float], ...]


_FIRST = Palette(("plain", "weave", "stripes", "wood"), ((0.0, 0.16), (0.33, 0.49), (0.66, 0.82)))
_SECOND = Palette(("marble", "dots", "checks", "brushed"), ((0.17, 0.32), (0.5, 0.65), (0.83, 0.99)))
PALETTES = {
    "all": Palette(_FIRST.patterns + _SECOND.patterns, _FIRST.hues + _SECOND.hues),
    "first": _FIRST,
    "second": _SECOND,
}
_PICTURES = ("landscape", "blocks", "outdoors", "screen")  # patterns that show something


def repainted(material: Material, palette: Palette, rng: np.random.Generator) -> Material:
    """Other colours and another pattern, the same gloss. What glows or shows a picture stays as it is."""
    hues = [float(rng.uniform(*palette.hues[rng.integers(len(palette.hues))])) for _ in range(2)]
    color, color2 = (hsv(hue, rng.uniform(0.05, 0.7), rng.uniform(0.25, 0.95)) for hue in hues)
    pattern, scale = str(rng.choice(palette.patterns)), float(rng.uniform(0.06, 0.3))
    if material.emission > 0 or material.pattern in _PICTURES:
        return material
    return replace(material, pattern=pattern, color=color, color2=color2, scale=scale, phase=float(rng.uniform(0, 64)))


def hsv(hue: float, saturation: float, value: float) -> Color:
    """A colour from hue, saturation and value in 0..1."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def tinted(color: Color, factor: float) -> Color:
    """The colour made darker (factor < 1) or lighter."""
    return tuple(float(np.clip(channel * factor, 0, 1)) for channel in color)


def wood(rng: np.random.Generator) -> Material:
    """Oiled wood: from birch to walnut."""
    value = rng.uniform(0.38, 0.85)
    color = hsv(rng.uniform(0.055, 0.1), rng.uniform(0.35, 0.65), value)
    return Material("wood", color, tinted(color, 0.68), 0.05, 0.12, 18.0, phase=rng.uniform(0, 64))


def lacquer(rng: np.random.Generator) -> Material:
    """Painted furniture: white, grey or a muted colour."""
    saturation = 0.04 if rng.random() < 0.6 else rng.uniform(0.2, 0.5)
    color = hsv(rng.random(), saturation, rng.uniform(0.6, 0.95))
    return Material("plain", color, tinted(color, 0.92), 0.4, 0.18, 24.0, phase=rng.uniform(0, 64))


def fabric(rng: np.random.Generator) -> Material:
    """Cloth: woven, striped, checked or dotted; never shiny."""
    pattern = str(rng.choice(["weave", "weave", "stripes", "checks", "dots"]))
    color = hsv(rng.random(), rng.uniform(0.15, 0.7), rng.uniform(0.35, 0.9))
    other = hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.5, 0.95))
    other = tinted(color, 0.8) if pattern == "weave" else other
    return Material(pattern, color, other, rng.uniform(0.06, 0.14), phase=rng.uniform(0, 64))


def leather(rng: np.random.Generator) -> Material:
    """Leather: dark, with a soft wide sheen."""
    color = hsv(rng.uniform(0.02, 0.09), rng.uniform(0.1, 0.6), rng.uniform(0.18, 0.5))
    return Material("weave", color, tinted(color, 0.85), 0.1, 0.22, 10.0, phase=rng.uniform(0, 64))


def plaster(rng: np.random.Generator) -> Material:
    """A painted or papered wall."""
    color = hsv(rng.random(), rng.uniform(0.03, 0.22), rng.uniform(0.78, 0.95))
    pattern = str(rng.choice(["plain", "plain", "stripes", "dots"]))
    return Material(pattern, color, tinted(color, 0.93), rng.uniform(0.15, 0.3), phase=rng.uniform(0, 64))


def tiles(rng: np.random.Generator, size: float, gloss: float = 0.35) -> Material:
    """Glazed tiles with grout."""
    color = hsv(rng.random(), rng.uniform(0.02, 0.25), rng.uniform(0.65, 0.92))
    return Material("tiles", color, tinted(color, 0.6), size, gloss, 40.0, phase=rng.uniform(0, 64))


def checkered(rng: np.random.Generator) -> Material:
    """Two-coloured floor tiles."""
    light = hsv(rng.random(), rng.uniform(0.02, 0.2), rng.uniform(0.75, 0.92))
    dark = hsv(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.25, 0.5))
    return Material("checks", light, dark, rng.uniform(0.25, 0.4), 0.3, 35.0)


def planks(rng: np.random.Generator) -> Material:
    """A wooden floor."""
    return replace(wood(rng), pattern="planks", scale=rng.uniform(0.1, 0.18), gloss=0.16, shininess=22.0)


def carpet(rng: np.random.Generator) -> Material:
    """A floor carpet."""
    color = hsv(rng.random(), rng.uniform(0.08, 0.4), rng.uniform(0.35, 0.7))
    return Material("weave", color, tinted(color, 0.75), 0.3, phase=rng.uniform(0, 64))


def stone(rng: np.random.Generator) -> Material:
    """A polished counter top."""
    color = hsv(rng.uniform(0.05, 0.7), rng.uniform(0.02, 0.15), rng.choice([0.25, 0.55, 0.85]))
    return Material("marble", color, tinted(color, rng.choice([0.6, 1.35])), 0.3, 0.45, 45.0,
                    phase=rng.uniform(0, 64))


def porcelain(rng: np.random.Generator) -> Material:
    """Sanitary ware."""
    color = hsv(0.12, rng.uniform(0.0, 0.08), rng.uniform(0.9, 0.97))
    return Material("plain", color, tinted(color, 0.97), 0.5, 0.7, 40.0)


def metal(rng: np.random.Generator) -> Material:
    """Brushed steel or chrome."""
    color = hsv(0.6, rng.uniform(0.0, 0.06), rng.uniform(0.45, 0.7))
    return Material("brushed", color, tinted(color, 0.85), 0.1, 0.85, 50.0, phase=rng.uniform(0, 64))


def solid(color: Color, gloss: float = 0.0, shininess: float = 1.0, emission: float = 0.0) -> Material:
    """One colour, nearly even."""
    return Material("plain", color, tinted(color, 0.95), 0.5, gloss, shininess, emission)


BLACK_PLASTIC = solid((0.09, 0.09, 0.1), 0.3, 25.0)
WHITE_PLASTIC = solid((0.9, 0.9, 0.88), 0.25, 25.0)
LAMP_GLOW = solid((1.0, 0.96, 0.88), emission=2.5)
LEAVES = Material("weave", (0.2, 0.45, 0.18), (0.1, 0.3, 0.1), 0.08, 0.08, 12.0)
CLAY = Material("plain", (0.66, 0.38, 0.26), (0.55, 0.3, 0.2), 0.2)
MIRROR = Material("plain", (0.62, 0.68, 0.7), (0.55, 0.62, 0.65), 0.6, 1.0, 70.0)
