"""Scenes on several workers at a time: processes of this machine, or Ray over a cluster that shares its folders.

A worker gets what a scene's work depends on beside its arguments: the gin config, ``--resume``, the current folder and
the level of the log.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gin

from utils.cores import environment_of, usable_cores
from utils.errors import UserError
from utils.locks import set_patience
from utils.paths import PROJECT
from utils.process_pool import on_processes
from utils.run_state import resume_requested, set_resume

logger = logging.getLogger(__name__)
_SECONDS_TO_DIE = 60.0  # that a worker may live on after its machine was given up
_SECONDS_BETWEEN_LOOKS = 60.0
_CONFIGURED = ("utils", "dataloader", "model", "enet", "analysis")  # packages that have gin-configurables


@gin.configurable
@dataclass(frozen=True)
class SceneWorkers:
    """How many scenes are worked on at a time, and where.

    Attributes:
        count: scenes at a time, each in a process of its own; 0 takes one after the other in this process.
        address: None for processes of this machine, which share its GPUs evenly; or that of a running Ray cluster
            (package ray; 'auto' for the one this machine belongs to), whose machines must see the same folders;
            'local' starts Ray on this machine.
        cores: CPU cores, and so threads (unless OMP_NUM_THREADS is set), of a worker.
        gpus: of a worker on Ray, such as 0.5 to put two on one GPU; None gives it one in
            stages that compute on a GPU, and none in others.
        retries: how often a scene is tried again whose worker, or the worker's machine, died.
    """

    count: int = 0
    address: str | None = None
    cores: int = 1
    gpus: float | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        for name, least in (("count", 0), ("cores", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise UserError(f"SceneWorkers.{name} = {getattr(self, name)}: expected at least {least}")


@dataclass(frozen=True)
class _ProcessState:
    """What :func:`_work` restores in a worker."""

    modules: tuple[str, ...]  # that the project has imported, whose gin-configurables the config may name
    config: str
    resume: bool
    folder: str
    log_level: int

    @classmethod
    def current(cls) -> _ProcessState:
        modules = tuple(name for name in list(sys.modules) if name.split(".")[0] in _CONFIGURED)
        level = logging.getLogger().level
        return cls(modules, gin.config_str(), resume_requested(), os.getcwd(), level)

    def restore(self) -> None:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger().setLevel(self.log_level)
        os.chdir(self.folder)
        set_resume(self.resume)
        for name in self.modules:
            importlib.import_module(name)
        gin.clear_config()
        gin.parse_config(self.config, skip_unknown=True)  # it was read strictly before


def _work(function: Callable[[str], Any], name: str, state: _ProcessState) -> Any | UserError:
    """In a worker: the scene's result, or its :class:`UserError`; other exceptions reach the driver through Ray."""
    state.restore()
    try:
        return function(name)
    except UserError as error:
        return error


def _work_in_ray(function: Callable[[str], Any], name: str, state: _ProcessState) -> Any | UserError:
    """As :func:`_work`; an earlier try may hold the scene's lock until it has noticed the end of its machine."""
    set_patience(_SECONDS_TO_DIE)
    return _work(function, name, state)


def on_workers(
    names: Sequence[str], function: Callable[[str], Any], workers: SceneWorkers, on_gpu: bool = False
) -> Iterator[tuple[str, Any | Exception]]:
    """Yield (name, ``function(name)`` or the error) as scenes are done; what still runs is cancelled when closed.

    Args:
        on_gpu: whether the function computes on a GPU, for workers of Ray whose ``gpus`` are not given.

    Raises:
        UserError: Ray is missing, or what a worker needs is more than there is.
    """
    if workers.address is None:
        yield from on_processes(names, partial(_work, function, state=_ProcessState.current()), workers)
        return
    with _ray(workers, on_gpu) as (ray, gpus):
        # Ray's own retries are off: they are neither counted nor told, and repeat without end what lacks memory.
        remote = ray.remote(_work_in_ray).options(num_cpus=workers.cores, num_gpus=gpus, max_retries=0)
        shared = ray.put(function), ray.put(_ProcessState.current())
        waiting, running = deque(names), {}
        deaths: Counter[str] = Counter()
        try:
            while waiting or running:
                while waiting and len(running) < workers.count:
                    name = waiting.popleft()
                    running[remote.remote(shared[0], name, shared[1])] = name
                finished = _first_finished(ray, list(running))
                name, outcome = running.pop(finished), _outcome(ray, finished)
                if not isinstance(outcome, _Death):
                    yield name, outcome
                    continue
                deaths[name] += 1
                if deaths[name] > workers.retries:
                    yield name, UserError(f"its worker died ({outcome}); give it more memory or cores")
                else:
                    logger.warning("%s: its worker died (%s); it is tried again", name, outcome)
                    waiting.append(name)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


class _Death(Exception):
    """A worker ended without an outcome: it was killed, or lacked memory, or its machine is gone."""


def _first_finished(ray: Any, running: list[Any]) -> Any:
    """The first scene that is done. While nothing is, and no machine is left that could, says so now and then."""
    while True:
        finished, _ = ray.wait(running, timeout=_SECONDS_BETWEEN_LOOKS)
        if finished:
            return finished[0]
        if not ray.cluster_resources().get("CPU"):
            logger.warning("no machine of the cluster is left for %d scenes; waiting for one", len(running))


def _outcome(ray: Any, finished: Any) -> Any | Exception:
    try:
        return ray.get(finished)
    except ray.exceptions.RayTaskError as error:  # a bug; its text holds the worker's traceback
        return error
    except ray.exceptions.RayError as error:
        return _Death(str(error).strip().partition("\n")[0])


def _python_path() -> str:
    """This project's folder before what the driver's own variable names, where Ray itself may lie."""
    return os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def _ray(workers: SceneWorkers, on_gpu: bool) -> Iterator[tuple[Any, float]]:
    """Ray, started or joined, and the GPUs of a worker."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("SceneWorkers.address needs ray; install it: pip install ray") from None
    gpus = float(on_gpu) if workers.gpus is None else workers.gpus
    try:
        ray.init(
            address=workers.address,
            runtime_env={"env_vars": {"PYTHONPATH": _python_path(), **environment_of(workers.cores)}},
            logging_level=logging.WARNING,
            **({"include_dashboard": False, "num_cpus": usable_cores()} if workers.address == "local" else {}),
        )
    except Exception as error:  # a node that does not start is one, without a class of its own
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"Ray cannot be reached with SceneWorkers.address = {workers.address!r} ({reason}); give a running "
            "cluster's, or None for processes of this machine"
        ) from None
    try:
        there = ray.cluster_resources()
        for kind, needed in (("CPU", workers.cores), ("GPU", gpus)):
            if needed > there.get(kind, 0):
                raise UserError(
                    f"a worker needs {needed:g} {kind}s and Ray has {there.get(kind, 0):g}; lower SceneWorkers.cores "
                    "or SceneWorkers.gpus, or give Ray more machines"
                )
        yield ray, gpus
    finally:
        ray.shutdown()
