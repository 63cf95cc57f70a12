"""The temperature of a network's predictions, taken from a test of it on other, labelled rooms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from enet.splits import refuse_overlap
from model.fusion import FusionOptions
from utils.errors import UserError, reading
from utils.files import read_json
from utils.identity import file_identity
from utils.outputs import finished_settings

_WHAT = "scores of predictions fused in fields"
_ADVICE = "run 'test' on labelled validation rooms with test.fused = True, and name its folder fused"


def calibrated_options(folder: str | Path, checkpoint: str | Path, scenes: Sequence[str]) -> FusionOptions:
    """:class:`FusionOptions`, with the temperature that fits the rooms of a test.

    Args:
        folder: ``fused`` of the test; "" takes the options as they are.
        checkpoint: the network whose predictions are fused, the one that was tested.
        scenes: those that are fused, whose labels must not have chosen the temperature.

    Raises:
        UserError: the folder holds no such scores, or those of another network or of one of these rooms; or
            FusionOptions.temperature is set too.
    """
    options = FusionOptions()
    if not str(folder):
        return options
    if options.temperature != FusionOptions.temperature:
        raise UserError(f"FusionOptions.temperature = {options.temperature} and a calibration, '{folder}', are both "
                        "set; choose one")
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected {_WHAT}: {_ADVICE}")
    results = read_json(path, kind=dict)
    with reading(path, _WHAT, _ADVICE):
        temperature, tested = results["calibration"]["temperature"], list(results["by_scene"])
        if temperature is None:
            raise UserError(f"{path} has no temperature, as none of its rooms is labelled; {_ADVICE}")
        if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
            raise ValueError(f"its temperature is {temperature!r}")
    if finished_settings(folder).get("checkpoint") != file_identity(checkpoint):
        raise UserError(f"{folder} holds scores of another network than {checkpoint}; a temperature belongs to one "
                        f"network: {_ADVICE}")
    refuse_overlap({"the calibration": tested, "what is fused": scenes})
    return replace(options, temperature=float(temperature))
