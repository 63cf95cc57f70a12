"""Hyper-parameter search: every trial is a training run in a process of its own."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import check_binding
from utils.cores import environment_of_each
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.paths import PROJECT

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)
_RUN = PROJECT / "run.py"
_AGAIN = "again"  # attribute of a trial: number of the killed one that it repeats
_KINDS = ("uniform", "log", "int", "choice")


class TrialFailed(Exception):
    """A trial's training ended with an error; the study goes on."""


@dataclass(frozen=True)
class Search:
    """A study's folder, what is searched, and how; fields as in the search task.

    ``config`` is the gin text every trial starts from.
    """

    folder: Path
    config: str
    space: Mapping[str, Sequence[Any]]
    trials: int
    jobs: int
    seed: int

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("search.space is empty; name at least one binding to search")
        for binding, spec in self.space.items():
            if not spec or spec[0] not in _KINDS or (spec[0] != "choice" and len(spec) != 3) or len(spec) < 2:
                raise UserError(
                    f"search.space[{binding!r}] = {spec!r}; use ('uniform', low, high), ('log', low, high), "
                    "('int', low, high) or ('choice', value, value, ...)"
                )
            try:
                check_binding(binding, [int(spec[1]), int(spec[2])] if spec[0] == "int" else spec[1:])
            except UserError as error:
                raise UserError(f"search.space: {error}") from None
        if self.trials < 1 or self.jobs < 1:
            raise UserError(f"search.trials = {self.trials} and jobs = {self.jobs}: expected at least 1")


def require_optuna() -> None:
    """Raise :class:`UserError` where the package is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the search task needs optuna; install it: pip install optuna")


def run_search(search: Search) -> dict[str, Any]:
    """Run the trials that are still missing; the best bindings go to ``best.gin``.

    Trials whose training failed count; trials that were killed are run again.

    Raises:
        UserError: Optuna is missing, or no trial succeeded.
    """
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search.folder.mkdir(parents=True, exist_ok=True)
    write_text(search.folder / "trial.gin", search.config)
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{search.folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    _requeue_killed(study)
    done = _count_done(study)
    study.sampler = optuna.samplers.TPESampler(seed=search.seed + done)
    if done < search.trials:
        missing = search.trials - done
        study.optimize(lambda trial: _train(search, trial), missing, n_jobs=search.jobs, catch=(TrialFailed,))
    return _results(search, study)


def _requeue_killed(study: optuna.Study) -> None:
    """Trials that an interrupted search left running are tried again with their parameters."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})


def _count_done(study: optuna.Study) -> int:
    """Trials that ended by themselves, well or badly."""
    from optuna.trial import TrialState

    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))
    killed = {trial.user_attrs[_AGAIN] for trial in study.get_trials() if _AGAIN in trial.user_attrs}
    return sum(trial.number not in killed for trial in ended)


def _train(search: Search, trial: optuna.Trial) -> float:
    """Train with the trial's bindings in another process; the validation mIoU."""
    bindings = [f"{name} = {_suggest(trial, name, spec)!r}" for name, spec in search.space.items()]
    name = f"trial_{trial.number:04d}"
    runs = search.folder / "trials"
    bindings += [f"train.runs_dir = {str(runs)!r}", f"train.name = {name!r}"]
    command = [sys.executable, str(_RUN), "train", "--ginc", str(search.folder / "trial.gin")]
    for binding in bindings:
        command += ["--ginb", binding]
    environment = {**os.environ, **environment_of_each(search.jobs)}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode:
        reason = finished.stderr.strip().splitlines()[-1:] or ["no message"]
        logger.error("%s failed: %s", name, reason[0])
        raise TrialFailed(reason[0])
    score = read_json(runs / name / "metrics.json")["validation"]["mean_iou"]
    logger.info("%s: %.4f with %s", name, score or 0.0, "; ".join(bindings[: len(search.space)]))
    return score or 0.0


def _suggest(trial: optuna.Trial, name: str, spec: Sequence[Any]) -> Any:
    kind, *values = spec
    if kind == "choice":
        return trial.suggest_categorical(name, values)
    if kind == "int":
        return trial.suggest_int(name, *values)
    return trial.suggest_float(name, *values, log=kind == "log")


def _results(search: Search, study: optuna.Study) -> dict[str, Any]:
    from optuna.trial import TrialState

    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise UserError(f"no trial of {search.folder} succeeded; the log above has the reasons")
    best = study.best_trial
    lines = [f"# Trial {best.number} of {search.folder}: validation mIoU {best.value:.4f}."]
    lines += [f"{name} = {value!r}" for name, value in best.params.items()]
    write_text(search.folder / "best.gin", "\n".join(lines) + "\n")
    return {
        "best_trial": best.number,
        "best_mean_iou": best.value,
        "best": best.params,
        "trials": [{"number": trial.number, "mean_iou": trial.value, **trial.params} for trial in complete],
        "failed": _count_done(study) - len(complete),
    }
