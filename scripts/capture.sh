#!/usr/bin/env bash
# Takes one capture in ScanNet's layout (color, depth, pose, intrinsic, labelled mesh) through the whole pipeline.
#   bash scripts/capture.sh DIR OUT      (the report is OUT/report/index.html)

set -euo pipefail
if [ $# -ne 2 ] || [ ! -d "$1" ]; then
    echo "error: expected the folder of a capture and an output folder: bash scripts/capture.sh DIR OUT" >&2
    exit 2
fi
capture="$(cd "$1" && pwd)" output="$2"
scripts="$(dirname "${BASH_SOURCE[0]}")"
mkdir -p "$output/data/scans"
ln -sfn "$capture" "$output/data/scans/$(basename "$capture")"
code=0
bash "$scripts/pipeline.sh" "$output/data" "$output" "$(realpath "$scripts/../configs/smoke/capture.gin")" \
    rendered_rgb rendered_rgb_sh novel_rgb_sh || code=$?
[ ! -e "$output/report/index.html" ] || echo "open $output/report/index.html"
exit "$code"
