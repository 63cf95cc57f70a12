"""The gin group ``data``: whether training views are read from stores or rendered live, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gin

from enet.fresh_poses import FreshPoses
from model.annotation import LABEL_RULES
from utils.errors import UserError, check_choice

SOURCES = ("stored", "live")


@dataclass(frozen=True)
class DataOptions:
    """Fields are the parameters of :func:`data`."""

    source: str
    fields_dir: Path
    scans_dir: Path
    size: tuple[int, int]
    every: int
    label_rule: str
    near: float
    poses: FreshPoses | None
    validation: str
    resident: float
    statistics_views: int
    on_missing: str

    @property
    def is_live(self) -> bool:
        """Whether training views are rendered live."""
        return self.source == "live"

    @property
    def resident_bytes(self) -> float:
        """Bytes that scenes may take on each device."""
        return self.resident * 1e9 if self.resident else float("inf")


@gin.configurable
def data(
    source: str = "stored",
    fields_dir: str = "",
    scans_dir: str = "",
    size: Sequence[int] = (124, 124),
    every: int = 1,
    label_rule: str = "majority",
    near: float = 0.01,
    poses: FreshPoses | None = None,
    validation: str = "live",
    resident: float = 0.0,
    statistics_views: int = 20_000,
    on_missing: str = "refuse",
) -> DataOptions:
    """Where training views come from. With "live", fields and labelled meshes are on the device, and each step renders
    and annotates its own views; all other parameters are for that.

    Args:
        source: "stored": the stores of train.views; "live": rendered and annotated as they are needed.
        fields_dir: folder of fitted or downloaded fields, plenoxel_scannet_SCENE.
        scans_dir: folder of scenes in any layout that 'fit' reads, for their poses and labelled meshes.
        size: (height, width) of the views; as render.size, the recorded view is squeezed to it.
        every: every n-th recorded pose only, as render.every.
        label_rule: as annotate.label_rule.
        near: as annotate.near.
        poses: None: the recorded ones; @JitteredPoses() or @DomePoses(): new ones in every epoch.
        validation: "live": the validation scenes' recorded poses, rendered live; "stored": the stores of the first
            folder of train.views.
        resident: GB of each device's memory that scenes may take, those of the validation included; 0 is no limit.
            Where training scenes need more, they are visited in groups that fit, and each of several processes has
            scenes of its own.
        statistics_views: most views that class frequencies and normalisation are computed from, evenly spread; 0 takes
            all.
        on_missing: "refuse" stops at a scene without field, mesh or poses; "skip" leaves it out and says so.

    Raises:
        UserError: a value is out of range, or a folder is not given.
    """
    check_choice("data.source", source, SOURCES)
    check_choice("data.label_rule", label_rule, LABEL_RULES)
    check_choice("data.validation", validation, SOURCES)
    check_choice("data.on_missing", on_missing, ("refuse", "skip"))
    if every < 1:
        raise UserError(f"data.every = {every}: expected 1 or more")
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"data.size = {tuple(size)}: expected a (height, width) of at least 1")
    if not near > 0:
        raise UserError(f"data.near = {near} must be a positive number of metres")
    if resident < 0 or statistics_views < 0:
        raise UserError(f"data.resident = {resident} and data.statistics_views = {statistics_views}: expected 0 (no "
                        "limit) or more")
    folders = {"data.fields_dir": fields_dir, "data.scans_dir": scans_dir}
    for name, folder in folders.items() if source == "live" else ():
        if not folder or not Path(folder).is_dir():
            raise UserError(f"{name} = {folder!r} is no folder, and data.source = 'live' needs it; give that of the "
                            + ("fields ('fit' makes them)" if "fields" in name else "scans"))
    return DataOptions(
        source, Path(fields_dir), Path(scans_dir), tuple(size), every, label_rule, near, poses, validation, resident,
        statistics_views, on_missing,
    )  # fmt: skip
