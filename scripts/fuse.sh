#!/usr/bin/env bash
# Fuses predictions of scenes' views in their fields; fits, renders and annotates first what is not there yet.
#   bash scripts/fuse.sh DATA WORK SOURCE [CONFIG ...]
# DATA/scans holds scenes. SOURCE is a network's checkpoint, or a folder of predicted probabilities, SCENE.npy.
# CONFIGs are gin files read after each stage's own. Results: WORK/fused, scores in WORK/fused/run/metrics.json.

set -euo pipefail
if [ $# -lt 3 ] || { [ ! -d "$3" ] && [ ! -f "$3" ]; }; then
    echo "error: expected data and output folders, and a checkpoint or a folder of predictions:" \
        "bash scripts/fuse.sh DATA WORK SOURCE [CONFIG ...]" >&2
    exit 2
fi
data="$1" work="$2" source="$3" kind="checkpoint"
[ ! -d "$source" ] || kind="predictions"
shift 3
configs=()
for config in "$@"; do configs+=(--ginc "$config"); done
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Exit code 3: some scenes failed, and the config says to continue without them.
failed=0
stage() {
    local task="$1" code=0
    shift
    echo "== $task $*"
    "$PYTHON" "$SSIR_ROOT/run.py" "$task" --resume --ginc "$SSIR_ROOT/configs/stage/$task.gin" \
        ${configs[@]+"${configs[@]}"} --ginb "DATA = '$data'" --ginb "WORK = '$work'" "$@" || code=$?
    [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
    [ "$code" = 0 ] || failed=3
}

stage fit
stage render
stage annotate
stage fuse --ginb "fuse.$kind = '$source'" --ginb "fuse.scans_dir = %SCANS"
exit "$failed"
