"""Hyper-parameter search: every trial is a training run in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import check_binding
from utils.cores import environment_of_each
from utils.disk import says_disk_refusal
from utils.errors import UserError, reading, short
from utils.files import read_json, write_json, write_text
from utils.interrupts import STOPPED_CODES, end_with_this_process
from utils.locks import check_unlocked, locked
from utils.outputs import SETTINGS_FILE, first_difference
from utils.paths import PROJECT
from utils.run_state import imports_allowed
from utils.seeding import derive_seed

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)
_STUDY = "study.db"
_KINDS = ("uniform", "log", "int", "choice")


class TrialFailed(Exception):
    """A trial's training ended with an error; the study continues."""


@dataclass(frozen=True)
class Search:
    """A study's folder, what is searched, and how; fields as in the search task.

    ``config`` is the gin text every trial starts from, ``training`` the values of the train task and its groups.
    """

    folder: Path
    config: str
    space: Mapping[str, Sequence[Any]]
    trials: int
    jobs: int
    seed: int
    training: Mapping[str, Any] = field(default_factory=dict)

    def check_space(self) -> None:
        """Raise :class:`UserError` unless all that is searched are parameters that can take the values."""
        for binding, (kind, *values) in self.space.items():
            try:
                check_binding(binding, [int(value) for value in values] if kind == "int" else values)
            except (UserError, ValueError) as error:
                raise UserError(f"search.space: {error}") from None

    def check_folder(self) -> None:
        """Raise :class:`UserError` when the folder holds a study of something else, or another process writes it."""
        check_unlocked(self.folder)
        path = self.folder / SETTINGS_FILE
        difference = first_difference(read_json(path), self._settings()) if path.exists() else None
        if difference is not None:
            raise UserError(f"{self.folder} holds a search with other settings ({difference}); choose another "
                            "search.study_dir")

    def start_folder(self) -> None:
        """Make the folder, which must have been checked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "trial.gin", self.config)
        write_json(self.folder / SETTINGS_FILE, self._settings())

    def _settings(self) -> dict[str, Any]:
        values = {"space": dict(self.space), "seed": self.seed, "training": dict(self.training)}
        return json.loads(json.dumps(values, default=repr))

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("search.space is empty; name at least one binding to search")
        for binding, spec in self.space.items():
            if not spec or spec[0] not in _KINDS or (spec[0] != "choice" and len(spec) != 3) or len(spec) < 2:
                raise UserError(
                    f"search.space[{binding!r}] = {spec!r}; use ('uniform', low, high), ('log', low, high), "
                    "('int', low, high) or ('choice', value, value, ...)"
                )
        if self.trials < 1 or self.jobs < 1:
            raise UserError(f"search.trials = {self.trials} and jobs = {self.jobs}: expected at least 1")


def require_optuna() -> None:
    """Raise :class:`UserError` where the package is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the search task needs optuna; install it: pip install optuna")


def run_search(search: Search) -> dict[str, Any]:
    """Run the trials that are still missing; the best bindings go to ``best.gin``.

    With one job, the parameters of trial k depend on the seed, on k and on the scores of the trials before it. So a
    search that was stopped and started again has the same result: the trial that was running continues with its
    parameters, from its last checkpoint. Trials whose training failed count, unless the disk refused.

    Raises:
        UserError: Optuna is missing, the study is damaged or another search's, no trial succeeded, or the disk is full.
    """
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search.check_folder()
    with locked(search.folder):
        search.start_folder()
        with _named_errors(search.folder / _STUDY):
            study = optuna.create_study(
                study_name="search",
                storage=f"sqlite:///{search.folder / _STUDY}",
                direction="maximize",
                load_if_exists=True,
            )
            with reading(search.folder / _STUDY, "the study of a search", "delete it to start a new search"):
                _check_study(search, study)
            with _Trainings(search, study) as trainings:
                trainings.run_all()
            return _results(search, study)


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of the study's database as a :class:`UserError`."""
    import sqlalchemy
    from optuna.exceptions import OptunaError

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, sqlite3.Error) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be used ({reason}); it is damaged, or another program holds it: delete it to "
                        "start a new search") from None


def _check_study(search: Search, study: optuna.Study) -> None:
    """Raise ``ValueError`` where the study is not this search's: its parameters become lines of ``best.gin``."""
    import optuna

    if study.direction != optuna.study.StudyDirection.MAXIMIZE:
        raise ValueError(f"it is to {study.direction.name.lower()} something")
    for trial in study.get_trials():
        if not set(trial.params) <= set(search.space):
            raise ValueError(f"trial {trial.number} has the parameters {short(list(trial.params))}")
        if trial.value is not None and not math.isfinite(trial.value):
            raise ValueError(f"trial {trial.number} has the score {trial.value}")


class _Trainings:
    """The study's trials, each a process of its own; they end with this one."""

    def __init__(self, search: Search, study: optuna.Study):
        self._search, self._study = search, study
        self._asking = threading.Lock()  # what is tried next depends on what is known: one at a time
        self._processes: set[subprocess.Popen] = set()

    def __enter__(self) -> _Trainings:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in list(self._processes):
            process.terminate()
        for process in list(self._processes):
            process.wait()

    def run_all(self) -> None:
        """Train what is missing, ``jobs`` at a time."""
        interrupted = [trial.number for trial in self._study.get_trials() if not trial.state.is_finished()]
        missing = [*interrupted, *range(len(self._study.get_trials()), self._search.trials)]
        with ThreadPoolExecutor(self._search.jobs) as pool:
            waiting = [pool.submit(self._run, number) for number in missing]
            try:
                for future in as_completed(waiting):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.__exit__()
                raise

    def _run(self, number: int) -> None:
        from optuna.trial import TrialState

        with self._asking:
            trial, bindings = self._ask(number)
        try:
            score = self._train(trial.number, bindings)
        except TrialFailed:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    def _ask(self, number: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Trial ``number``, started or resumed, and its bindings."""
        import optuna

        self._study.sampler = optuna.samplers.TPESampler(seed=derive_seed(self._search.seed, "trial", number) % 2**32)
        known = self._study.get_trials(deepcopy=False)
        trial = optuna.Trial(self._study, known[number]._trial_id) if number < len(known) else self._study.ask()
        return trial, {name: _suggest(trial, name, spec) for name, spec in self._search.space.items()}

    def _train(self, number: int, values: Mapping[str, Any]) -> float:
        """Train with a trial's bindings in another process; the validation mIoU."""
        search, name = self._search, f"trial_{number:04d}"
        runs = search.folder / "trials"
        bindings = [f"{binding} = {value!r}" for binding, value in values.items()]
        config = str(search.folder / "trial.gin")
        command = [sys.executable, str(PROJECT / "run.py"), "train", "--resume", "--ginc", config]
        command += ["--allow-imports"] * imports_allowed()
        for binding in (*bindings, f"train.runs_dir = {str(runs)!r}", f"train.name = {name!r}"):
            command += ["--ginb", binding]
        code, errors = self._call(command)
        if code:
            reason = (errors.strip().splitlines() or ["no message"])[-1]
            # Neither says anything about the bindings: the trial goes on where it stopped.
            if says_disk_refusal(reason):
                raise UserError(f"{name}: {reason.removeprefix('error: ')}")
            if code in STOPPED_CODES:
                raise UserError(f"{name} was {reason}")
            logger.error("%s failed: %s", name, reason)
            raise TrialFailed(reason)
        metrics = runs / name / "metrics.json"
        content = read_json(metrics)
        with reading(metrics, "the metrics of a training", "delete the trial's folder"):
            score = content["validation"]["mean_iou"]
        logger.info("%s: %.4f with %s", name, score or 0.0, "; ".join(bindings))
        return score or 0.0

    def _call(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit code of a process that shares the cores with the other jobs', and what it wrote to stderr."""
        environment = {**os.environ, **environment_of_each(self._search.jobs), **end_with_this_process()}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._processes.add(process)
        try:
            errors = process.communicate()[1]
            return process.returncode, errors
        finally:
            self._processes.discard(process)


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
        "failed_trials": len(study.get_trials(states=(TrialState.FAIL,))),
    }
