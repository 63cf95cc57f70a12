"""What is wrong between files of a scene that are each sound by themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contradiction:
    """What does not fit; ``remedy`` is what would make it fit, or None where nothing tried does."""

    text: str
    remedy: str | None

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy or 'nothing that was tried makes them agree'}"
