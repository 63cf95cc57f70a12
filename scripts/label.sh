#!/usr/bin/env bash
# Labels a capture without any labels of its own: fits its field, adapts a network to its renders, fuses what it predicts.
#   bash scripts/label.sh DIR OUT [CHECKPOINT]
# DIR is a capture in any layout that 'fit' reads. CHECKPOINT is a network of this project; without one it is
# analysis/geometry_randomised_model, which has learned from generated rooms alone and needs lengths in metres.
# Results: OUT/fused/NAME (classes of all views, of the field, of the mesh if there is one), OUT/report/index.html.

set -euo pipefail
if [ $# -lt 2 ] || [ $# -gt 3 ] || [ ! -d "$1" ] || [ ! -f "${3:-$0}" ]; then
    echo "error: expected the folder of a capture, an output folder, and perhaps a checkpoint: bash scripts/label.sh DIR OUT [CHECKPOINT]" >&2
    exit 2
fi
capture="$(cd "$1" && pwd)" work="$2" checkpoint="${3:+$(realpath "$3")}"
name="$(basename "$capture")"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
case "$work" in /*) ;; *) work="$PWD/$work" ;; esac
cd "$SSIR_ROOT"
: "${checkpoint:=analysis/geometry_randomised_model/best.ckpt}"
mkdir -p "$work/data/scans"
ln -sfn "$capture" "$work/data/scans/$name"

stage() {
    echo "== $*"
    "$PYTHON" run.py "$1" --resume --ginc "configs/stage/$1.gin" --ginc configs/smoke/capture.gin "${@:2}" \
        --ginb "DATA = '$work/data'" --ginb "WORK = '$work'"
}
stage fit --ginb "SCENES = ['$name']"
stage render --ginb "SCENES = ['$name']"
stage adapt --ginb "TEST_SCENES = ['$name']" --ginb "adapt.checkpoint = '$checkpoint'" --ginb "adapt.other_size = True" \
    --ginb "adapt.output_dir = '$work/adapted'"
stage fuse --ginb "SCENES = ['$name']" --ginb "fuse.checkpoint = '$work/adapted/network/best.ckpt'" \
    --ginb "fuse.other_size = True" --ginb "fuse.scans_dir = %SCANS"
stage report
echo "open $work/report/index.html, or walk through: python run.py view --ginb \"DATA = '$work/data'\" --ginb \"WORK = '$work'\"" \
    "--ginb \"view.scene = '$name'\" --ginb \"view.checkpoint = '$work/adapted/network/best.ckpt'\""
