"""Look for inputs that a reader does not survive, guided by coverage (needs atheris: ``pip install atheris``).

    nice -n 19 python tests/fuzz/run.py [TARGET ...] [--runs 10000] [--seconds 600] [--work FOLDER]

Targets are named in ``targets.py``; without one, all take their turn. Inputs start from what is sound, and grow in
``WORK/corpus/TARGET``. Whatever ends in anything but a result or a named error is written to ``WORK/found/TARGET``: put
it into ``tests/fuzz/found/TARGET`` with the reader's correction, and ``test_corpus.py`` repeats it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
INSTRUMENTED = ["utils", "dataloader", "model", "enet", "PIL", "pickletools"]
_EXECUTED = "stat::number_of_executed_units:"
_FOUND = "FOUND"  # begins a line of this run's log; the folder also keeps what earlier runs found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="names in targets.py; all when none is given")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target at most")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fuzz", help="best in memory")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    targets = _instrumented_targets()
    total, faults = 0, 0
    for name in options.targets or targets:
        inputs, found, code = _in_a_child(name, targets[name], options)
        total, faults = total + inputs, faults + found + bool(code)
        print(json.dumps({"target": name, "inputs": inputs, "kinds of faults": found, "exit": code}), flush=True)
    print(f"{total} inputs, {faults} kinds of faults", flush=True)
    return int(bool(faults))


def _instrumented_targets() -> dict[str, Any]:
    """The readers, imported once with counters of what is executed; a child is forked for each."""
    import atheris
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    return TARGETS


def _in_a_child(name: str, target: Any, options: argparse.Namespace) -> tuple[int, int, int]:
    """Inputs tried, kinds of faults found, and the exit code of one target's process."""
    options.work.mkdir(parents=True, exist_ok=True)
    log = options.work / f"{name}.log"
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        _fuzz(name, target, options)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = log.read_text(errors="replace").splitlines()
    counts = [line.split()[-1] for line in lines if line.startswith(_EXECUTED)]
    return int(counts[-1]) if counts else 0, sum(line.startswith(_FOUND) for line in lines), code


def _fuzz(name: str, target: Any, options: argparse.Namespace) -> None:
    import atheris

    from tests.fuzz.mutators import MUTATIONS

    folder, found, corpus = (options.work / kind / name for kind in ("folder", "found", "corpus"))
    for path in (found, corpus):
        path.mkdir(parents=True, exist_ok=True)
    (corpus / "sound").write_bytes(target.sound(folder))
    known: set[str] = set()

    def one_input(data: bytes) -> None:
        try:
            target.run(data, folder)
        except Exception as error:
            place = _place(error)
            if place not in known:
                known.add(place)
                key = hashlib.sha256(place.encode()).hexdigest()[:12]
                (found / key).write_bytes(data)
                (found / f"{key}.txt").write_text("".join(traceback.format_exception(error)))
                print(_FOUND, place, flush=True)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            changed = chance.choice(MUTATIONS)(data, chance)
            if changed is not None and len(changed) <= most:
                return changed
        return atheris.Mutate(data, most)

    atheris.Setup(
        [sys.argv[0], f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-seed={options.seed}",
         "-timeout=120", "-rss_limit_mb=4000", "-max_len=30000", "-print_final_stats=1", str(corpus)],
        one_input, custom_mutator=mutate,
    )  # fmt: skip
    atheris.Fuzz()


def _place(error: BaseException) -> str:
    """The kind of the error and the last line of the project's that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{ROOT}/")]
    frames = [frame for frame in frames if "/tests/" not in frame.filename] or frames
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"
    kind = type(error).__name__
    return f"{kind} at {where}" + (f": {str(error)[:60]}" if kind == "Fault" else "")


if __name__ == "__main__":
    sys.exit(main())
