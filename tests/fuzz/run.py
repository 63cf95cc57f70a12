"""Look for inputs that a reader does not survive, guided by coverage (needs atheris: ``pip install atheris``).

    python tests/fuzz/run.py TARGET|all [--runs 10000] [--seconds 600] [--work FOLDER]

Inputs start from ``corpus/TARGET``. What ends in anything but a result or a named error is written to
``WORK/found/TARGET``; put it into ``tests/fuzz/found`` once the reader is mended, and ``test_corpus.py`` repeats it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTRUMENTED = ["utils", "dataloader", "model", "zipfile", "PIL", "pickletools", "numpy.lib"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a name in targets.py, or all")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target at most")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fuzz")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    if options.target != "all":
        return _fuzz(options)
    from tests.fuzz.targets import TARGETS

    counts = {}
    for name in TARGETS:
        command = [sys.executable, __file__, name, "--runs", str(options.runs), "--seconds", str(options.seconds),
                   "--work", str(options.work), "--seed", str(options.seed)]  # fmt: skip
        log = options.work / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as file:
            code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
        executed = [line.split()[-1] for line in log.read_text(errors="replace").splitlines()
                    if line.startswith("stat::number_of_executed_units")]  # fmt: skip
        found = len(list((options.work / "found" / name).glob("*.txt")))
        counts[name] = {"inputs": int(executed[-1]) if executed else 0, "kinds found": found, "exit": code}
        print(json.dumps({name: counts[name]}), flush=True)
    print(f"{sum(one['inputs'] for one in counts.values())} inputs, "
          f"{sum(one['kinds found'] for one in counts.values())} kinds of faults")
    return int(any(one["kinds found"] or one["exit"] for one in counts.values()))


def _fuzz(options: argparse.Namespace) -> int:
    import atheris

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import torch

    torch.set_num_threads(1)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.mutators import MUTATIONS

    target = TARGETS[options.target]
    folder = options.work / "folder" / options.target
    found = options.work / "found" / options.target
    corpus = options.work / "corpus" / options.target
    for path in (found, corpus):
        path.mkdir(parents=True, exist_ok=True)
    (corpus / "sound").write_bytes(_unwrapped(target.sound(folder), options.target))
    known: set[str] = set()

    def one_input(data: bytes) -> None:
        try:
            target.run(data, folder)
        except Exception as error:
            place = _place(error)
            if place not in known:
                known.add(place)
                name = hashlib.sha256(place.encode()).hexdigest()[:12]
                (found / name).write_bytes(data)
                (found / f"{name}.txt").write_text("".join(traceback.format_exception(error)))
                print("FOUND", place, flush=True)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            changed = chance.choice(MUTATIONS)(data, chance)
            if changed is not None and len(changed) <= most:
                return changed
        return atheris.Mutate(data, most)

    seeds = [str(HERE / "corpus" / options.target)] if (HERE / "corpus" / options.target).is_dir() else []
    atheris.Setup(
        [sys.argv[0], f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-seed={options.seed}",
         "-timeout=60", "-rss_limit_mb=4000", "-max_len=30000", "-print_final_stats=1", str(corpus), *seeds],
        one_input, custom_mutator=mutate,
    )  # fmt: skip
    atheris.Fuzz()
    return 0


def _unwrapped(sound: bytes, name: str) -> bytes:
    """What the input is that makes the sound file, for targets that put an archive around it."""
    import io
    import zipfile

    members = {"checkpoint_pickle": "data.pkl", "field_pickle": "data.pkl", "field_transform_T": "T.npy",
               "field_capture_gain": "gain.npy"}  # fmt: skip
    if name not in members:
        return sound
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        return next(archive.read(info) for info in archive.infolist() if info.filename.endswith(members[name]))


def _place(error: BaseException) -> str:
    """The kind of the error and the last line of the project's that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{ROOT}/")]
    frames = [frame for frame in frames if "/tests/" not in frame.filename] or frames
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"
    kind = type(error).__name__
    return f"{kind} at {where}" + (f": {str(error)[:60]}" if kind == "Fault" else "")


if __name__ == "__main__":
    sys.exit(main())
