"""Task ``search``: hyper-parameters of the train task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from utils.config import resolved_parameters
from utils.outputs import MAKE
from utils.plans import Item, Plan
from utils.tasks import get_task, task

_OF_EACH_TRIAL = ("train.runs_dir", "train.name", "train.overwrite", "train.device")


@task(
    summary="search hyper-parameters of the train task (Optuna)",
    records="{study_dir}",
)
def search(
    study_dir: str = gin.REQUIRED,
    space: Mapping[str, Sequence[Any]] = gin.REQUIRED,
    trials: int = 50,
    jobs: int = 1,
    seed: int = 0,
) -> Plan:
    """Maximise the validation mIoU over gin bindings; the best go to ``study_dir/best.gin``, ready for --ginc.

    Every trial is a training run of this config with other bindings, in ``study_dir/trials``. The study is in
    ``study_dir/study.db``: started again, a search continues until it has tried ``trials`` times; other settings need
    another folder. Needs the package optuna.

    Args:
        study_dir: folder of the study.
        space: what to search: binding to ('log', low, high), ('uniform', low, high), ('int', low, high) or
            ('choice', value, ...), such as {'OptimizerOptions.learning_rate': ('log', 1e-4, 1e-2)}.
        trials: how often to train.
        jobs: trials that run at the same time, each in its own process.
        seed: of the sampler; with several jobs the order of the results also counts.
    """
    from enet.search import Search, require_optuna, run_search
    from enet.task_train import train

    require_optuna()
    groups = (train.plan, *get_task("train").configures)
    settings = {f"{group.__name__}.{name}": value for group in groups
                for name, value in resolved_parameters(group).items()}  # fmt: skip
    kept = {name: value for name, value in settings.items() if name not in _OF_EACH_TRIAL}
    study = Search(Path(study_dir), gin.config_str(), dict(space), trials, jobs, seed, kept)
    study.check_space()
    study.check_folder()
    # Refused here, since every trial would fail.
    training = train.plan(runs_dir=str(study.folder / "trials"), name="each trial")
    detail = f"{trials} trials of {training.items[0].detail}"
    return Plan(lambda: run_search(study), [Item("study", study.folder, MAKE, detail)])
