"""A fit says what is odd about its scene, and stops where it is told to."""

import numpy as np
import pytest

from model.task_fit import fit
from tests.dataloader.test_consistency import opengl, write
from utils.errors import UserError


def run(folder, **options):
    import gin
    with gin.unlock_config():
        for name, value in {"FitGrid.resolutions": (8,), "FitOptimization.steps": (2,), "FitPoses.rounds": 0,
                            "FitOptimization.rays_per_step": (50,)}.items():
            gin.bind_parameter(name, value)
    return fit(str(folder / "scans"), str(folder / "fields"), device="cpu", **options)


def test_a_contradiction_is_a_warning_or_refused(tmp_path, caplog):
    write(tmp_path / "scans" / "room", opengl)
    with pytest.raises(UserError, match="OpenGL's axes.*fit.on_contradiction"):
        run(tmp_path, on_contradiction="refuse")
    assert np.isfinite(run(tmp_path)["psnr"])
    assert any("OpenGL's axes" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    with pytest.raises(UserError, match="on_contradiction = 'maybe' is unknown"):
        run(tmp_path, on_contradiction="maybe")


def test_a_sound_scene_is_fitted_without_a_warning(tmp_path, caplog):
    write(tmp_path / "scans" / "room")
    run(tmp_path, on_contradiction="refuse")
    assert not [record for record in caplog.records if "contradict" in record.getMessage()]
