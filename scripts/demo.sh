#!/usr/bin/env bash
# Sets up a fresh machine if need be, generates six furnished rooms, and takes them through the whole pipeline.
#   bash scripts/demo.sh [OUTPUT]        (default: outputs/demo in the current folder; the report is OUTPUT/report/index.html)

set -euo pipefail
output="${1:-outputs/demo}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
configs="$SSIR_ROOT/configs"
"$PYTHON" "$SSIR_ROOT/run.py" synthesize --resume --ginc "$configs/stage/synthesize.gin" --ginc "$configs/smoke/demo.gin" \
    --ginb "DATA = '$output/data'" --ginb "WORK = '$output'"
code=0
bash "$SSIR_ROOT/scripts/pipeline.sh" "$output/data" "$output" "$configs/smoke/demo.gin" || code=$?
[ ! -e "$output/report/index.html" ] || echo "open $output/report/index.html"
exit "$code"
