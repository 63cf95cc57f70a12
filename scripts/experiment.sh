#!/usr/bin/env bash
# The experiment of docs/experiment.md: generated rooms, fields, views, and every row of configs/exp with several seeds.
#   bash scripts/experiment.sh [--work FOLDER] [--rows "ROW ..."] [--seeds "0 1 2"] [--lanes 4] [--workers 8]
#                              [--minutes N] [--small] [--fused]
# The table goes to FOLDER/table; its baseline is the first of the rows. What is finished is not repeated.
# --minutes starts no new run after that time, waits for those that run, and exits with 4: call it again to go on.
# --lanes: trainings at a time; --workers: rooms at a time. --small: a few small rooms and epochs, for two CPU cores.
# --fused: each row's predictions are also scored as fused in the test rooms' fields: further rows of the table.
# Rows self_training* come last: their labels are predicted by the networks of half_of_the_rooms*, which are trained first.

set -euo pipefail
work=outputs/experiment seeds="0 1 2" lanes=1 workers=0 minutes=100000 small="" fused=False
rows="rendered_rgb camera_rgb rendered_rgb_sh novel_rgb novel_rgb_sh rendered_rgb_geometry rendered_rgb_sh_geometry \
camera_rgb_blurred camera_rgb_randomised half_of_the_rooms novel_rgb_weighted novel_rgb_masked novel_rgb_balanced \
novel_rgb_sh_weighted rendered_rgb_sh_gravity rendered_rgb_flat novel_rgb_flat rendered_rgb_sh_concat rendered_rgb_sh_conv_concat segformer_rgb segformer_rgb_sh \
self_training_rgb"
while [ $# -gt 0 ]; do
    case "$1" in
        --work) work="$2"; shift 2 ;;
        --rows) rows="$2"; shift 2 ;;
        --seeds) seeds="$2"; shift 2 ;;
        --lanes) lanes="$2"; shift 2 ;;
        --workers) workers="$2"; shift 2 ;;
        --minutes) minutes="$2"; shift 2 ;;
        --small) small=1; shift ;;
        --fused) fused=True; shift ;;
        *) echo "error: $1 is unknown; see the first lines of scripts/experiment.sh" >&2; exit 2 ;;
    esac
done
for number in "$lanes" "$workers" "$minutes"; do
    [[ "$number" =~ ^[0-9]+$ ]] || { echo "error: '$number' is no whole number; see the first lines of scripts/experiment.sh" >&2; exit 2; }
done
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
case "$work" in /*) ;; *) work="$OLDPWD/$work" ;; esac
deadline=$((SECONDS + minutes * 60))
export PYTHON work small fused

run() {
    local extra=()
    [ -z "$small" ] || extra=(--ginc configs/benchmark/small.gin)
    [ ! -f "${family:-}" ] || extra+=(--ginc "$family")
    "$PYTHON" run.py "$1" --resume "${@:2}" --ginc configs/benchmark/benchmark.gin "${extra[@]}" \
        --ginb "DATA = '$work/data'" --ginb "WORK = '$work'"
}
export -f run
in_time() {
    [ $SECONDS -lt $deadline ] || { wait; echo "stopped after $minutes minutes; run the same command to go on"; exit 4; }
}
scenes() { run "$1" "${@:2}" --ginb "SceneWorkers.count = $workers" --ginb "SceneWorkers.cores = 2"; }

counts=(96 16 24)
[ -z "$small" ] || counts=(8 2 4)
first=0
for part in 0 1 2; do
    palette=second
    [ $part -gt 0 ] || palette=first
    run synthesize --ginc configs/stage/synthesize.gin --ginb "RoomOptions.palette = '$palette'" \
        --ginb "synthesize.first = $first" --ginb "synthesize.rooms = ${counts[$part]}" \
        --ginb "SceneWorkers.count = $((workers * 2))"
    first=$((first + counts[part]))
done
for task in fit render annotate; do
    in_time
    scenes "$task" --ginc "configs/stage/$task.gin"
done
if [[ " $rows" == *" novel"* ]]; then
    for task in analyze sample filter; do
        in_time
        scenes "$task" --ginc "configs/stage/$task.gin"
    done
    for task in render annotate; do
        in_time
        scenes "$task" --ginc "configs/stage/$task.gin" --ginc configs/stage/novel_views.gin
    done
    in_time
    scenes rate --ginc configs/stage/rate.gin
fi

train_and_test() {
    local row="$1" seed="$2" family="configs/benchmark/${1%%_*}.gin" stages="train test" more=()
    if [[ "$row" == self_training* ]]; then
        stages="fuse train test"
        more=(--ginb "TEACHER = '$(teacher_of "$row")_$seed'")
    fi
    for task in $stages; do
        run "$task" --ginc "configs/stage/$task.gin" --ginc "configs/exp/$row.gin" --ginb "ROW = '${row}_$seed'" \
            --ginb "SEED = $seed" --ginb "test.fused = $fused" ${more[@]+"${more[@]}"} \
            >>"$work/runs_$row.log" 2>&1 || { echo "error: $task of $row with seed $seed failed; see $work/runs_$row.log"; return 1; }
    done
    echo "$row, seed $seed: done after $SECONDS s"
}
teacher_of() { [ "$1" = self_training_geometry ] && echo half_of_the_rooms_geometry || echo half_of_the_rooms; }
all_of() {
    local seed row
    for seed in $seeds; do
        for row in "$@"; do
            in_time
            while [ "$(jobs -rp | wc -l)" -ge "$lanes" ]; do wait -n || exit 1; done
            train_and_test "$row" "$seed" &
        done
    done
    while [ -n "$(jobs -rp)" ]; do wait -n || exit 1; done
}
labelled=() self_labelled=()
for row in $rows; do
    case "$row" in self_training*) self_labelled+=("$row") ;; *) labelled+=("$row") ;; esac
done
for row in ${self_labelled[@]+"${self_labelled[@]}"}; do
    [[ " ${labelled[*]-} " == *" $(teacher_of "$row") "* ]] || labelled+=("$(teacher_of "$row")")
done
export -f train_and_test teacher_of
all_of "${labelled[@]}"
all_of ${self_labelled[@]+"${self_labelled[@]}"}
in_time
run compare --ginc configs/stage/compare.gin --ginb "compare.results_dir = '$work/results'" --ginb "compare.rows = [$(
    for row in $rows; do printf "'%s'," "$row"; done)]" --ginb "compare.baseline = '${rows%% *}'"
