"""Scenes on several processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import cloudpickle
import torch

from utils.cores import environment_of
from utils.errors import UserError
from utils.interrupts import end_with_this_process, obey_parent


class Workers(Protocol):
    """How many processes, how many threads each has, and how often a scene is tried again whose process died."""

    count: int
    cores: int
    retries: int


def on_processes(
    names: Sequence[str], function: Callable[[str], Any], workers: Workers
) -> Iterator[tuple[str, Any | Exception]]:
    """Yield (name, ``function(name)`` or its exception) as scenes are done; what still runs is ended when closed.

    Each process sees one of the machine's GPUs, in turn. When one dies, all scenes that were worked on are tried
    again one at a time, and only deaths of a process that was alone count: they tell which scene is to blame.
    """
    work = cloudpickle.dumps(function)
    waiting, suspects = deque(names), deque()
    deaths: Counter[str] = Counter()
    while waiting or suspects:
        lost: list[str] = []
        queue, count = (suspects, 1) if suspects else (waiting, workers.count)
        for name, outcome in _one_pool(queue, work, count, workers.cores, lost):
            yield name, outcome
        for name in lost:
            deaths[name] += len(lost) == 1
            if deaths[name] > workers.retries:
                yield name, UserError("its worker died; give it more memory or cores")
            else:
                suspects.append(name)


def _one_pool(
    queue: deque[str], work: bytes, count: int, cores: int, lost: list[str]
) -> Iterator[tuple[str, Any | Exception]]:
    """Work through ``queue`` until a process dies; the scenes worked on then go to ``lost``."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    running: dict[Future, str] = {}
    with _environment({**environment_of(cores), **end_with_this_process()}):
        pool = ProcessPoolExecutor(count, context, _start, (numbers, torch.cuda.device_count()))
        try:
            while queue or running:
                while queue and len(running) < count:
                    name = queue.popleft()
                    running[pool.submit(_call, work, name)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    yield running.pop(future), error if error is not None else future.result()
        except BrokenProcessPool:
            lost += running.values()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started within it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(numbers: Any, gpus: int) -> None:
    """In a new process: it ends with its parent, leaves the terminal's signals to it, and takes its GPU."""
    obey_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[numbers.get() % gpus]


def _call(work: bytes, name: str) -> Any:
    return cloudpickle.loads(work)(name)
