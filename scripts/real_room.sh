#!/usr/bin/env bash
# Learns in one half of a labelled real room and tests on the other, with networks that begin at random or with those that come
# with the project, and with labels that the first half's networks predict for the other half.
#   bash scripts/real_room.sh ROOM OUT ["SEED ..."] ["FOLD ..."] [across|along]
# ROOM is a scene in ScanNet's layout with a labelled mesh, which a plane along or across its longer side divides. A fold "ab"
# trains on half a and tests on half b; "ba" the reverse.
# One seed and fold take about half an hour on two CPU cores. Results: OUT/runs/RUN/test; what is finished is not repeated.

set -euo pipefail
if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    echo "error: expected a scene's folder and an output folder: bash scripts/real_room.sh ROOM OUT [\"SEED ...\"] [\"FOLD ...\"] [across|along]" >&2
    exit 2
fi
room="$(cd "$1" && pwd)" work="$2" seeds="${3:-0}" folds="${4:-ab}" plane="${5:-along}"
name="$(basename "$room")"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
case "$work" in /*) ;; *) work="$PWD/$work" ;; esac
cd "$SSIR_ROOT"

run() {
    echo "== $*"
    "$PYTHON" run.py "$1" --resume "${@:2}" --ginb "DATA = '$work/data'" --ginb "WORK = '$work'"
}

# One field of all photographs, none of the labels; both halves are rendered from it.
mkdir -p "$work/data/scans" "$work/fields"
ln -sfn "$room" "$work/data/scans/$name"
run divide --ginc configs/stage/divide.gin --ginb "divide.scan = '$room'" --ginb "divide.plane = '$plane'"
run fit --ginc configs/stage/fit.gin --ginc configs/smoke/capture.gin --ginb "SCENES = ['$name']"
for half in a b; do ln -sfn "plenoxel_scannet_$name" "$work/fields/plenoxel_scannet_${name}_$half"; done
for task in render annotate; do
    run "$task" --ginc "configs/stage/$task.gin" --ginc configs/smoke/capture.gin \
        --ginb "SCENES = ['${name}_a', '${name}_b']"
done
# As they come, and with their normalisation adapted to the views of the half, without labels.
for model in sh_model geometry_model geometry_randomised_model; do
    for half in a b; do
        run adapt --ginc configs/stage/adapt.gin --ginb "TEST_SCENES = ['${name}_$half']" --ginb "adapt.other_size = True" \
            --ginb "adapt.checkpoint = 'analysis/$model/best.ckpt'" --ginb "adapt.output_dir = '$work/adapted/${model}_$half'"
        for kind in shipped adapted; do
            checkpoint="analysis/$model/best.ckpt"
            [ $kind = shipped ] || checkpoint="$work/adapted/${model}_$half/network/best.ckpt"
            run test --ginc "analysis/$model/config.gin" --ginb "TEST_SCENES = ['${name}_$half']" \
                --ginb "test.checkpoint = '$checkpoint'" --ginb "test.other_size = True" --ginb "test.fused = True" \
                --ginb "test.output_dir = '$work/runs/${model}_${kind}_${half}_0/test'"
        done
    done
done

# row RUN CONFIG HALF OTHER SEED [BINDING ...]: trains and tests.
row() {
    local label="$1" config="$2" half="$3" other="$4" seed="$5" bindings=()
    shift 5
    for binding in "$@"; do bindings+=(--ginb "$binding"); done
    local settings=(--ginc "$config" --ginc configs/smoke/capture.gin --ginc configs/benchmark/real_room.gin
        --ginb "HALF = '${name}_$half'" --ginb "OTHER_HALF = '${name}_$other'"
        --ginb "ROW = '$label'" --ginb "SEED = $seed" ${bindings[@]+"${bindings[@]}"})
    run train "${settings[@]}"
    run test "${settings[@]}"
}

for fold in $folds; do
    half="${fold:0:1}" other="${fold:1:1}"
    for input in rendered_rgb rendered_rgb_sh rendered_rgb_geometry; do
        case "$input" in *geometry) model=geometry_randomised_model ;; *) model=sh_model ;; esac
        for seed in $seeds; do
            row "${input}_${fold}_$seed" "configs/exp/$input.gin" "$half" "$other" "$seed"
            tuned="${input}_tuned_${fold}_$seed"
            row "$tuned" "configs/exp/$input.gin" "$half" "$other" "$seed" "train.start = 'analysis/$model/best.ckpt'"
            run fuse --ginc configs/stage/fuse.gin --ginb "SCENES = ['${name}_$other']" \
                --ginb "fuse.checkpoint = '$work/runs/$tuned/training/best.ckpt'" --ginb "FUSED = '$work/labels/$tuned'"
            row "${input}_self_${fold}_$seed" "configs/exp/$input.gin" "$half" "$other" "$seed" \
                "train.start = 'analysis/$model/best.ckpt'" "SelfTrainingOptions.scenes = ['${name}_$other']" \
                "SelfTrainingOptions.fused_dir = '$work/labels/$tuned'" "LossOptions.quality = True" \
                "LossOptions.min_quality = 0.6"
        done
    done
done
"$PYTHON" - "$work/runs" <<'PYTHON_END'
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import torch

from enet.metrics import class_iou, pixel_accuracy


def scores(path):
    """mIoU of the classes that are there, and pixel accuracy, in per cent."""
    confusion = torch.tensor(json.loads(path.read_text())["confusion"])
    present = confusion.sum(1) > 0
    present[0] = False
    return 100 * float(class_iou(confusion)[present].mean()), 100 * float(pixel_accuracy(confusion))


rows = defaultdict(list)
for run in sorted(Path(sys.argv[1]).iterdir()):
    name = re.fullmatch(r"(.*)_([ab]{1,2})_\d+", run.name)
    if name and (run / "test/fused").is_dir():
        rows[name.groups()].append([*scores(run / "test/scores/results.json"), *scores(run / "test/fused/results.json")])
print("| network | halves | seeds | single views: mIoU, accuracy | fused: mIoU, accuracy |\n| --- | --- | --- | --- | --- |")
for (row, fold), found in rows.items():
    values = torch.tensor(found, dtype=torch.float64)
    cells = [f"{mean:.1f}" for mean in values.mean(0)]
    if len(values) > 1:
        cells = [f"{cell} ± {spread:.1f}" for cell, spread in zip(cells, values.std(0), strict=True)]
    print(f"| `{row}` | {fold} | {len(values)} | {cells[0]}, {cells[1]} | {cells[2]}, {cells[3]} |")
PYTHON_END
