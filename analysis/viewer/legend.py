"""Texts of the panel: legends with colour swatches, and facts about a camera."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from analysis.filtering import REASONS
from utils.labels import label_set

_SWATCH = (
    '<span style="display:inline-block;width:.85em;height:.85em;margin-right:.45em;border-radius:2px;'
    'border:1px solid rgba(0,0,0,.35);vertical-align:-.1em;background:rgb({})"></span>'
)

_IN_VERDICT = ("accepted", "reason", "target_class", "target_class_index")


def swatches(colors: Mapping[str, Iterable[int]], columns: int = 2) -> str:
    """HTML of names, each beside its colour (0..255)."""
    entries = "".join(
        f"<div>{_SWATCH.format(','.join(str(int(value)) for value in color))}{escape(name)}</div>"
        for name, color in colors.items()
    )
    return (
        f'<div style="display:grid;grid-template-columns:repeat({columns},1fr);gap:.15em .6em;padding:.2em 1em;'
        f'font-size:.85em">{entries}</div>'
    )


def class_swatches(classes: Iterable[int]) -> str:
    """HTML legend of the classes with those indices, in the label set's colours."""
    return swatches({label_set().names[index]: label_set().colors[index] for index in classes})


def short_reason(info: Mapping[str, Any]) -> str:
    """Why a camera was rejected in two or three words; empty where it was not."""
    return info.get("reason", "").replace("_", " ")


def camera_sign(name: str, kind: str, info: Mapping[str, Any]) -> str:
    """A line about one camera: its name, its target's class, whether it was rejected and for which reason."""
    reason = short_reason(info)
    verdict = f"{kind}: {reason}" if reason else kind
    return ", ".join(part for part in (name, info.get("target_class"), verdict) if part)


def camera_verdict(name: str, kind: str, info: Mapping[str, Any]) -> str:
    """Markdown about one camera: its name, its target's class, and whether and why it was rejected."""
    reason = info.get("reason", "")
    target = f" ({info['target_class']})" if "target_class" in info else ""
    verdict = f"{kind}: {REASONS.get(reason, reason)} (`{reason}`)" if reason else kind
    return f"**{name}**{target}, {verdict}"


def camera_facts(info: Mapping[str, Any]) -> str:
    """Other facts about a camera, on one line of Markdown."""
    facts = (
        f"{key.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
        for key, value in info.items()
        if key not in _IN_VERDICT and isinstance(value, (int, float, str))
    )
    return ", ".join(facts)
