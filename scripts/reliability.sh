#!/usr/bin/env bash
# Disturbs every stage (kill -9, twins, signals, full disks) and the whole pipeline (kill -9), and looks for inputs that readers do not survive.
#   bash scripts/reliability.sh [--quick] [--parts kill,twins,signals,workers,worker,disk] [--stages fit,train]
# Prints the table of docs/reliability.md. The fuzzer runs where atheris is installed; FUZZ_RUNS inputs for each reader.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
code=0
"$PYTHON" -m tests.reliability.run "$@" || code=$?
case " $* " in
    *" --quick "*) "$PYTHON" -m tests.reliability.pipeline --times 1 || code=1 ;;
    *) "$PYTHON" -m tests.reliability.pipeline || code=1 ;;
esac
if "$PYTHON" -c 'import atheris' 2>/dev/null; then
    "$PYTHON" tests/fuzz/run.py --runs "${FUZZ_RUNS:-2000}" || code=1
else
    echo "no fuzzing: atheris is not installed (pip install atheris)"
fi
echo "$(find tests/fuzz/found -type f | wc -l) inputs that a reader did not survive once are regression tests"
exit "$code"
