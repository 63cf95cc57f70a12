#!/usr/bin/env bash
# Tests the networks that come with the project on freshly made test rooms of the benchmark, and compares with their figures.
#   bash scripts/shipped_models.sh [WORK] [ROOMS]
# ROOMS of the 24 test rooms, all by default, which is what the figures are of; two CPU cores need about two minutes a room.

set -euo pipefail
work="${1:-outputs/shipped_models}" rooms="${2:-24}"
[[ "$rooms" =~ ^[0-9]+$ ]] || { echo "error: '$rooms' is no number of rooms; see the first lines of scripts/shipped_models.sh" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
case "$work" in /*) ;; *) work="$OLDPWD/$work" ;; esac
first=112 # of the test rooms

run() {
    "$PYTHON" run.py "$1" --resume "${@:2}" --ginb "DATA = '$work/data'" --ginb "WORK = '$work'"
}
run synthesize --ginc configs/stage/synthesize.gin --ginc configs/benchmark/benchmark.gin \
    --ginb "RoomOptions.palette = 'second'" --ginb "synthesize.first = $first" --ginb "synthesize.rooms = $rooms"
for task in fit render annotate; do
    run "$task" --ginc "configs/stage/$task.gin" --ginc configs/benchmark/benchmark.gin
done
for model in sh_model geometry_model geometry_randomised_model; do
    run test --ginc "analysis/$model/config.gin" --ginb "TEST_SCENES = 'all'"
    "$PYTHON" - "analysis/$model/metrics.json" "$work/runs/$model/test/scores/results.json" <<'PYTHON_END'
import json
import sys

published, found = (json.loads(open(path).read()) for path in sys.argv[1:])
print(f"{sys.argv[1]}: mIoU {100 * published['mean_iou']:.1f} on {published['views']} views, here "
      f"{100 * found['mean_iou']:.1f} on {found['views']}")
PYTHON_END
done
