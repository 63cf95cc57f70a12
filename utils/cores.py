"""A process's share of a machine that others use too: how its threads wait, and how many there are.

OpenMP's threads, PyTorch's and those of :mod:`lib`, spin where they wait for each other. Where another process has the
core that the awaited one needs, they spin through whole time slices. The OpenMP library reads its settings from the
environment once, when PyTorch is loaded. So this package sets them as it is imported, and every room imports it first.
What the user has set stays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_THREADS = "OMP_NUM_THREADS"
_CHOSEN = "SSIR_OMP_NUM_THREADS"  # what this project has set _THREADS to: not the user's setting, if equal
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
_USERS_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by any of these a user has decided


def share_machine(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads sleep where they wait, and start no more than the cores that a control group grants."""
    if not any(name in environment for name in _USERS_WAITING):
        environment.update(_WAITING)
    cores = usable_cores()
    if _THREADS not in environment and cores < len(os.sched_getaffinity(0)):  # which is what OpenMP counts
        environment.update(environment_of(cores, environment))


def environment_of_each(processes: int) -> dict[str, str]:
    """Environment variables to set for each of ``processes`` processes that share the cores."""
    return {} if processes == 1 else environment_of(max(1, usable_cores() // processes))


def environment_of(threads: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables to set for a process of ``threads`` threads: these, or as many as the user wants, and how
    they wait, for processes that do not inherit it."""
    waiting = {name: environment[name] for name in _USERS_WAITING if name in environment}
    users = environment.get(_THREADS)
    if users is not None and users != environment.get(_CHOSEN):
        return {**waiting, _THREADS: users}
    return {**waiting, _THREADS: str(threads), _CHOSEN: str(threads)}


def usable_cores() -> int:
    """CPU cores that this process may keep busy, at least 1: those of its affinity, and its control group's quota."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), control_group_quota())))


def control_group_quota(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that this process's control groups grant it, of either version; infinity without a limit.

    Args:
        groups: as the kernel lists them: ``0::/path``, or ``1:cpu,cpuacct:/path``.
        mounted: where their folders are. In a container that of the process itself may be the top one.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / "cpu" if controllers else mounted
        folder = top / path.lstrip("/")
        quotas += [_quota(group) for group in (folder, *folder.parents) if group.is_relative_to(top)]
    return min(quotas)


def _quota(group: Path) -> float:
    """Of one control group: ``cpu.max`` in version 2, ``cpu.cfs_*`` in version 1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # there is none, or it is "max"
        return math.inf
