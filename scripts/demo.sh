#!/usr/bin/env bash
# Sets up a fresh machine if need be, generates six furnished rooms, and takes them through the whole pipeline.
#   bash scripts/demo.sh [OUTPUT]        (default: outputs/demo; the report is OUTPUT/report/index.html)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output="${1:-outputs/demo}"
source scripts/setup.sh
"$PYTHON" run.py synthesize --resume --ginc configs/stage/synthesize.gin --ginc configs/smoke/demo.gin \
    --ginb "DATA = '$output/data'" --ginb "WORK = '$output'"
bash scripts/pipeline.sh "$output/data" "$output" configs/smoke/demo.gin
echo "open $output/report/index.html"
