#!/usr/bin/env bash
# The experiment of docs/experiment.md: generated rooms, fields, views, and every row of configs/exp with several seeds.
#   bash scripts/experiment.sh [--work FOLDER] [--rows "ROW ..."] [--seeds "0 1 2"] [--lanes 4] [--workers 8]
#                              [--rates "1e-3 3e-3 1e-2"] [--minutes N] [--small] [--fused]
# The table goes to FOLDER/table; its baseline is the first of the rows. What is finished is not repeated.
# --minutes starts no new run after that time, waits for those that run, and exits with 4: call it again to go on.
# --lanes: trainings at a time, spread over the machine's GPUs; --workers: rooms at a time. Novel views are made while rows
# before the first that needs them are trained. --small: a few small rooms and epochs, for two CPU cores.
# --rates: each family of networks (enet, segformer, efficientnet) is first trained on its colour row with each of these learning
# rates, with a seed of its own; all its rows then take the one with the best mIoU on the validation rooms.
# --fused: each row's predictions are also scored as fused in the test rooms' fields: further rows of the table.
# Rows self_training* come last: their labels are predicted by the networks of half_of_the_rooms*, which are trained first.

set -euo pipefail
# Ctrl-C reaches what stands in front, but bash lets jobs in the background ignore it.
descendants() {  # of the process $1, by /proc, as not every system has ps
    local status key value pid
    for status in /proc/[0-9]*/status; do
        pid="${status#/proc/}" pid="${pid%/status}"
        { while read -r key value; do
            [ "$key" != PPid: ] || [ "$value" != "$1" ] || { echo "$pid"; descendants "$pid"; }
        done <"$status"; } 2>/dev/null || true
    done
}
interrupted() {
    trap - INT TERM
    kill $(descendants $$) 2>/dev/null || true
    echo "interrupted; run the same command to go on" >&2
    exit 130
}
trap interrupted INT TERM
work=outputs/experiment seeds="0 1 2" lanes=1 workers=0 minutes=100000 small="" fused=False rates=""
rows="rendered_rgb rendered_rgb_geometry rendered_rgb_sh camera_rgb novel_rgb novel_rgb_sh rendered_rgb_sh_geometry \
camera_rgb_blurred camera_rgb_randomised rendered_rgb_geometry_randomised half_of_the_rooms live_rgb_sh live_jittered_rgb_sh live_fresh_rgb_sh \
live_jittered_rgb_geometry novel_rgb_weighted novel_rgb_masked novel_rgb_balanced novel_rgb_annealed novel_rgb_geometry \
novel_rgb_sh_weighted rendered_rgb_sh_gravity rendered_rgb_flat novel_rgb_flat rendered_rgb_sh_concat \
rendered_rgb_sh_conv_concat segformer_rgb segformer_rgb_sh self_training_rgb"
while [ $# -gt 0 ]; do
    case "$1" in
        --work) work="$2"; shift 2 ;;
        --rows) rows="$2"; shift 2 ;;
        --seeds) seeds="$2"; shift 2 ;;
        --lanes) lanes="$2"; shift 2 ;;
        --workers) workers="$2"; shift 2 ;;
        --rates) rates="$2"; shift 2 ;;
        --minutes) minutes="$2"; shift 2 ;;
        --small) small=1; shift ;;
        --fused) fused=True; shift ;;
        *) echo "error: $1 is unknown; see the first lines of scripts/experiment.sh" >&2; exit 2 ;;
    esac
done
for number in "$lanes" "$workers" "$minutes"; do
    [[ "$number" =~ ^(0|[1-9][0-9]*)$ ]] || { echo "error: '$number' is no whole number; see the first lines of scripts/experiment.sh" >&2; exit 2; }
done
command -v flock >/dev/null || { echo "error: flock is absent, which keeps two calls from training the same run; install util-linux" >&2; exit 2; }
[ "$lanes" -gt 0 ] || { echo "error: --lanes 0: at least one training must run at a time" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
case "$work" in /*) ;; *) work="$OLDPWD/$work" ;; esac
deadline=$((SECONDS + minutes * 60))
mkdir -p "$work/lanes" "$work/rates"
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, || true)}"

run() {  # the stage $1, of a network of $family, if any
    local extra=() config
    [ -z "$small" ] || extra=(--ginc configs/benchmark/small.gin)
    for config in "configs/benchmark/${family:-}.gin" "$work/rates/${family:-}.gin"; do
        [ ! -f "$config" ] || extra+=(--ginc "$config")
    done
    "$PYTHON" run.py "$1" --resume "${@:2}" --ginc configs/benchmark/benchmark.gin ${extra[@]+"${extra[@]}"} \
        --ginb "DATA = '$work/data'" --ginb "WORK = '$work'"
}
late() { [ $SECONDS -ge $deadline ]; }
stop() {
    wait
    echo "stopped after $minutes minutes; run the same command to go on"
    exit 4
}
scenes() {
    ! late || stop
    run "$1" "${@:2}" --ginb "SceneWorkers.count = $workers" --ginb "SceneWorkers.cores = 2"
}
# Jobs in the background: what fails is written down, since one that ends between two looks would go unnoticed. Other rows go on.
failed="$work/failed"
rm -f "$failed"
job() { "$@" || echo "$*" >>"$failed"; }
check() {
    [ -s "$failed" ] || return 0
    wait
    echo "error: failed: $(paste -sd ';' "$failed"); the message is above, or in a log of $work" >&2
    exit 1
}
training_jobs() { jobs -rp | grep -vxc "${novel:-none}" || true; }
start() {  # a training and its test in a free lane: ROW SEED [RATE]
    while [ "$(training_jobs)" -ge "$lanes" ]; do wait -n || true; done
    ! late || stop
    if [ -z "${3:-}" ]; then
        job in_a_lane "$@" &
    else
        in_a_lane "$@" &  # a rate that fails is not among those to choose from
    fi
}
all_done() { while [ "$(training_jobs)" -gt 0 ]; do wait -n || true; done; }

in_a_lane() {
    local lane
    exec {own}>"$work/lanes/$1_$2${3:+_$3}"
    flock "$own"  # a call that was interrupted may still train it
    while true; do
        for ((lane = 0; lane < lanes; lane++)); do
            exec {lock}>"$work/lanes/$lane"
            ! flock -n "$lock" || break 2
            exec {lock}>&-
        done
        sleep 1  # trainings of an earlier call still run
    done
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(($(nproc) / lanes > 0 ? $(nproc) / lanes : 1))}"
    [ ${#gpus[@]} -lt 2 ] || export CUDA_VISIBLE_DEVICES="${gpus[lane % ${#gpus[@]}]}"
    train_and_test "$@"
}
train_and_test() {
    local row="$1" seed="$2" rate="${3:-}" name="${1}_$2" stages="train test" more=() log="$work/runs_$1.log" family task
    family=$(family_of "$row")
    if [ -n "$rate" ]; then
        name="rate_${row}_$rate" stages=train
        more=(--ginb "OptimizerOptions.learning_rate = $rate")
    elif [[ "$row" == self_training* ]]; then
        stages="fuse train test"
        more=(--ginb "TEACHER = '$(teacher_of "$row")_$seed'")
    fi
    for task in $stages; do
        run "$task" --ginc "configs/stage/$task.gin" --ginc "configs/exp/$row.gin" --ginb "ROW = '$name'" --ginb "SEED = $seed" \
            --ginb "test.fused = $fused" ${more[@]+"${more[@]}"} >>"$log" 2>&1 ||
            { echo "error: $task of $row with seed $seed failed; see $log" >&2; return 1; }
    done
    echo "$name: done after $SECONDS s"
}
family_of() { case "$1" in segformer* | efficientnet*) echo "${1%%_*}" ;; *) echo enet ;; esac; }
teacher_of() { [ "$1" = self_training_geometry ] && echo half_of_the_rooms_geometry || echo half_of_the_rooms; }
all_of() {
    local row seed
    for row in "$@"; do
        [[ "$row" != *novel* ]] || novel_views_done
        for seed in $seeds; do start "$row" "$seed"; done
    done
}
find_rates() {  # for every family that has a row
    local row rate found families=(rendered_rgb)
    [[ " $rows" != *" segformer"* ]] || families+=(segformer_rgb)
    [[ " $rows" != *" efficientnet"* ]] || families+=(efficientnet_rgb)
    for row in "${families[@]}"; do
        found="$work/rates/$(family_of "$row").gin"
        if [ -f "$found" ]; then
            grep -qx "# among $rates" "$found" ||
                { echo "error: $found is of other rates than '$rates'; give those, or no --rates, or another --work" >&2; exit 2; }
        else
            for rate in $rates; do start "$row" 100 "$rate"; done
        fi
    done
    all_done
    for row in "${families[@]}"; do
        [ -f "$work/rates/$(family_of "$row").gin" ] || choose_rate "$row" "$(family_of "$row")"
    done
}
choose_rate() {
    "$PYTHON" - "$work" "$@" $rates <<'PYTHON'
import json, sys
from pathlib import Path

work, row, family, *rates = sys.argv[1:]
files = {rate: Path(work) / f"runs/rate_{row}_{rate}/training/results.json" for rate in rates}
read = {rate: json.loads(file.read_text()) for rate, file in files.items() if file.is_file()}
if not read:
    sys.exit(f"error: {row} trained with none of the learning rates {' '.join(rates)}; see {work}/runs_{row}.log")
scores = {rate: results["validation"]["mean_iou"] or 0 for rate, results in read.items()}
best = max(scores, key=scores.get)
told = ", ".join(f"{rate}: {100 * score:.1f}" for rate, score in scores.items())
text = f"# among {' '.join(rates)}\n# mIoU of {row} on the validation rooms by learning rate: {told}\n"
text += f"OptimizerOptions.learning_rate = {best}\n"
(Path(work) / f"rates/{family}.gin").write_text(text)
print(f"learning rate of {family}: {best} ({told})")
PYTHON
}
novel_views() {
    local task
    for task in analyze sample filter; do scenes "$task" --ginc "configs/stage/$task.gin" || return; done
    for task in render annotate; do
        scenes "$task" --ginc "configs/stage/$task.gin" --ginc configs/stage/novel_views.gin || return
    done
    scenes rate --ginc configs/stage/rate.gin || return
    touch "$made.novel"
}

novel_views_done() {
    [ -n "$novel" ] || return 0
    wait "$novel" || true
    novel=""
    ! grep -qs novel_views "$failed" || check
}

# Stages that these configs have finished in this folder are not even looked at again: their starts take a minute.
made="$work/made/$(cat configs/base.gin configs/stage/*.gin configs/benchmark/*.gin | sha256sum | cut -c1-16)$small"
mkdir -p "$work/made"
counts=(96 16 24)
[ -z "$small" ] || counts=(8 2 4)
total=$((counts[0] + counts[1] + counts[2]))
rooms_and_views() {
    local first=0 part palette making task
    for part in 0 1 2; do
        palette=second
        [ $part -gt 0 ] || palette=first
        making=(run synthesize --ginc configs/stage/synthesize.gin --ginb "RoomOptions.palette = '$palette'"
            --ginb "synthesize.first = $first" --ginb "synthesize.rooms = ${counts[part]}"
            --ginb "SceneWorkers.count = $(((workers * 2 * counts[part] + total - 1) / total))")
        if [ "$workers" -eq 0 ]; then
            "${making[@]}"
        else  # all three at a time, since each starts its workers
            job "${making[@]}" &
        fi
        first=$((first + counts[part]))
    done
    all_done
    check
    for task in fit render annotate; do
        scenes "$task" --ginc "configs/stage/$task.gin"
    done
}
if [ ! -f "$made.views" ]; then
    rooms_and_views
    touch "$made.views"
fi

labelled=() self_labelled=()
for row in $rows; do
    case "$row" in self_training*) self_labelled+=("$row") ;; *) labelled+=("$row") ;; esac
done
for row in ${self_labelled[@]+"${self_labelled[@]}"}; do
    [[ " ${labelled[*]-} " == *" $(teacher_of "$row") "* ]] || labelled+=("$(teacher_of "$row")")
done
novel=""
if [[ " $rows" == *novel* ]] && [ ! -f "$made.novel" ]; then
    if [ "$lanes" -gt 1 ]; then
        job novel_views >"$work/novel_views.log" 2>&1 &
        novel=$!
    else
        novel_views
    fi
fi
[ -z "$rates" ] || find_rates
all_of ${labelled[@]+"${labelled[@]}"}
all_done
all_of ${self_labelled[@]+"${self_labelled[@]}"}
all_done
check
! late || stop
run compare --ginc configs/stage/compare.gin --ginb "compare.results_dir = '$work/results'" --ginb "compare.rows = [$(
    for row in $rows; do printf "'%s'," "$row"; done)]" --ginb "compare.baseline = '${rows%% *}'"
