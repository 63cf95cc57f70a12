"""Masks: pictures that are white where pixels are of the scene, beside its photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dataloader.file_finder import IMAGE_SUFFIXES
from utils.errors import UserError
from utils.images import read_image
from utils.names import is_system_name

MASKS_FOLDER = "masks"


def find_masks(path: Path, images: dict[str, tuple[str, Path | None]]) -> list[Path | None] | None:
    """The mask of each frame: the one that is listed, or that in ``masks/`` under the image's path or the frame's name.

    Args:
        path: the scene's folder.
        images: of each frame, the image's path as it is listed, and its mask if that is listed.

    Raises:
        UserError: a listed mask does not exist.
    """
    folder = path / MASKS_FOLDER
    found: list[Path | None] = []
    for name, (relative, listed) in images.items():
        if listed is not None and not listed.is_file():
            raise UserError(f"{listed} does not exist; it is listed as the mask of {relative}: bring it, or take it "
                            "off the list")
        image = folder / relative.replace("\\", "/")
        candidates = [] if not folder.is_dir() else [
            image.with_name(f"{image.name}.png"), image.with_suffix(".png"), folder / f"{image.name}.png",
            folder / f"{image.stem}.png", folder / f"{name}.png",
        ]  # fmt: skip
        found.append(listed or next((file for file in candidates if file.is_file()), None))
    return found if any(found) else None


def mask_remark(path: Path, masks: Sequence[Path | None] | None, images: Sequence[Path]) -> tuple[str, ...]:
    """That there are masks, or pictures in ``masks/`` that are none of any frame; empty without either.

    Args:
        path: the scene's folder.
        masks: what :func:`find_masks` found.
        images: of the frames.
    """
    if masks is not None:
        first = next(mask for mask in masks if mask is not None)
        count = sum(mask is not None for mask in masks)
        return (f"{count} of {len(masks)} frames have masks (such as {first.name}): what is black there is neither "
                "fitted nor measured",)  # fmt: skip
    folder = path / MASKS_FOLDER
    pictures = sorted(file for file in folder.rglob("*")
                      if file.suffix.lower() in IMAGE_SUFFIXES and not is_system_name(file.name))  # fmt: skip
    if not pictures:
        return ()
    return (f"none of the {len(pictures)} pictures in {folder} (such as {pictures[0].relative_to(folder)}) is the mask "
            f"of a frame, and no mask is used; expected {images[0].stem}.png there for "
            f"{images[0].name}: rename them",)  # fmt: skip


def read_white(path: Path, turned: bool) -> Tensor:
    """Where a mask is white, bool ``[1, H, W]``.

    Raises:
        UserError: the picture is damaged, or holds 0 and 1 where black and white are expected.
    """
    mask = read_image(path, turned=turned).amax(0, keepdim=True)
    if int(mask.max()) == 1:
        raise UserError(f"{path} holds 0 and 1, which are both black; expected 255 (white) where pixels are of the "
                        "scene: multiply it by 255")
    return mask > 127
