#!/usr/bin/env bash
# From posed photographs to a report: fit, render, annotate, analyze, sample, filter, novel views, train, test, report.
#   bash scripts/pipeline.sh [--dry-run] DATA WORK CONFIG [ROW ...]
# DATA/scans holds scenes with labelled meshes; everything made goes to WORK. CONFIG is a gin file read after each stage's
# own; ROWs are the experiments of configs/exp to train (default: the paper's five). What is finished is not repeated. A row
# that is refused, such as one of novel views where no camera was accepted, is left out and named at the end.
# --dry-run prints the plan of every stage, as far as the stages before it are done, and estimates of time and disk.
# Relative paths are those of the current folder. Exit code 3: scenes or rows are missing, and the rest is done.

set -euo pipefail
how=--resume
case "${1:-}" in
    --dry-run) how=--dry-run; shift ;;
esac
if [ $# -lt 3 ]; then
    echo "error: expected data and output folders and a config: bash scripts/pipeline.sh [--dry-run] DATA WORK CONFIG [ROW ...]" >&2
    exit 2
fi
data="$1" work="$2" config="$3"
shift 3
rows=("${@:-}")
[ -n "${rows[0]}" ] || rows=(camera_rgb rendered_rgb rendered_rgb_sh novel_rgb novel_rgb_sh)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
configs="$SSIR_ROOT/configs"

failed=0 refused=""
stage() {
    local task="$1" code=0
    shift
    echo "== $task $*"
    "$PYTHON" "$SSIR_ROOT/run.py" "$task" "$how" --ginc "$configs/stage/$task.gin" "$@" \
        --ginb "DATA = '$data'" --ginb "WORK = '$work'" || code=$?
    if [ "$how" = --dry-run ]; then
        [ "$code" != 2 ] || echo "   (above: what is missing; a stage before makes it, or it must be corrected)"
        [ "$code" = 0 ] || [ "$code" = 2 ] || exit "$code"
        return
    fi
    [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
    [ "$code" = 0 ] || failed=3
}

stage fit --ginc "$config"
stage render --ginc "$config"
stage annotate --ginc "$config"
stage analyze --ginc "$config"
stage sample --ginc "$config"
stage filter --ginc "$config"
stage render --ginc "$configs/stage/novel_views.gin" --ginc "$config"
stage annotate --ginc "$configs/stage/novel_views.gin" --ginc "$config"
for row in "${rows[@]}"; do
    code=0
    (stage train --ginc "$configs/exp/$row.gin" --ginc "$config"
     stage test --ginc "$configs/exp/$row.gin" --ginc "$config"
     exit "$failed") || code=$?
    case "$code" in
        0) ;;
        2) refused="$refused $row" failed=3 ;;
        3) failed=3 ;;
        *) exit "$code" ;;
    esac
done
stage report --ginc "$config"
[ "$how" != --dry-run ] || stage estimate --ginc "$config"
[ -z "$refused" ] || echo "error: refused, and not in the report (the reasons are above):$refused" >&2
exit "$failed"
