"""What the colours of a mode mean, as HTML for the panel: a bar with numbers, or names with swatches."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

from analysis.viewer.legend import class_swatches, swatches
from analysis.viewer.pictures import (
    ALPHA,
    ANNOTATION,
    COLOR,
    CONFIDENCE,
    DEPTH,
    FUSED,
    PREDICTION,
    QUALITY,
    SH_CHANNEL,
    SH_GRADIENT,
    mode_colormap,
)

_STOPS = 9
_NOTE = '<div style="padding:.2em 1em;font-size:.85em;opacity:.75">{}</div>'
_TEXTS = {
    COLOR: "what the field looks like from here",
    ANNOTATION: "the labelled mesh",
    PREDICTION: "what the network says of this view alone",
    FUSED: "predictions of all views, fused in the field",
}


def mode_legend(mode: str, sh_limit: float, depth_limit: float, classes: Sequence[int]) -> str:
    """HTML; empty for a mode without anything.

    Args:
        mode: one of :data:`analysis.viewer.pictures.MODES`.
        sh_limit: magnitude at the ends of an SH coefficient's colours.
        depth_limit: metres at the far end of the depth's colours.
        classes: that pictures of classes may show.
    """
    note = _NOTE.format(_TEXTS[mode]) if mode in _TEXTS else ""
    if mode in (ANNOTATION, PREDICTION, FUSED):
        return note + class_swatches(classes)
    if mode == SH_CHANNEL:
        return _bar(mode, f"{-sh_limit:.2g}", "0", f"{sh_limit:.2g}")
    if mode == DEPTH:
        return _bar(mode, "0", f"{depth_limit / 2:.1f}", f"{depth_limit:.1f} m or more")
    if mode == ALPHA:
        return _bar(mode, "0, transparent", "", "1, opaque")
    if mode == QUALITY:
        return _bar(mode, "0, unseen", "", "1, seen well")
    if mode == CONFIDENCE:
        return _NOTE.format("how sure the fused labels are") + _bar(mode, "0, nothing fused", "", "1, sure")
    if mode == SH_GRADIENT:
        names = {"brighter towards +y": (255, 128, 128), "brighter towards +z": (128, 255, 128),
                 "brighter towards +x": (128, 128, 255), "alike from everywhere": (128, 128, 128)}  # fmt: skip
        return swatches(names)
    return note


def _bar(mode: str, low: str, middle: str, high: str) -> str:
    """A bar of the mode's colours with numbers at its ends and its middle."""
    stops = ",".join(_css(mode, k / (_STOPS - 1)) for k in range(_STOPS))
    ends = "".join(f"<span>{text}</span>" for text in (low, middle, high))
    return (
        f'<div style="padding:.2em 1em;font-size:.85em"><div style="height:.8em;border-radius:3px;'
        f'border:1px solid rgba(0,0,0,.35);background:linear-gradient(to right,{stops})"></div>'
        f'<div style="display:flex;justify-content:space-between">{ends}</div></div>'
    )


def _css(mode: str, position: float) -> str:
    red, green, blue, _ = matplotlib.colormaps[mode_colormap(mode)](position, bytes=True)
    return f"rgb({red},{green},{blue})"
