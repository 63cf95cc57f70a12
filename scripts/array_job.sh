#!/usr/bin/env bash
# One job of an array of a batch system: a stage on this job's share of the scenes, each n-th of them. Without Ray.
#   bash scripts/setup.sh            once, before the jobs start
#   sbatch --array=0-15 --signal=B:TERM@120 --wrap "exec bash scripts/array_job.sh fit DATA WORK configs/data/scannet.gin"
#   bash scripts/array_job.sh STAGE DATA WORK CONFIG [further arguments of run.py]
# STAGE is fit, render or annotate. The job's number and how many there are come from SLURM_ARRAY_TASK_ID (with _MIN, _STEP
# and _COUNT) or from JOB_NUMBER (from 0) and JOB_COUNT. Scenes are those of SCENES_FILE, one name a line, or all of
# DATA/scans. What is finished is not made again: submit the same array again after a time limit or for scenes that failed.
# Exit codes are those of run.py: 3 where scenes failed, 143 after SIGTERM.

set -euo pipefail
if [ $# -lt 4 ]; then
    echo "error: expected a stage, data and output folders and a config: bash scripts/array_job.sh STAGE DATA WORK CONFIG" >&2
    exit 2
fi
stage="$1" data="$2" work="$3" config="$4"
shift 4
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    JOB_COUNT="${SLURM_ARRAY_TASK_COUNT:?}"
    JOB_NUMBER=$(( (SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1} ))
fi
number="${JOB_NUMBER:-}" count="${JOB_COUNT:-}"
if ! [[ "$number" =~ ^[0-9]+$ && "$count" =~ ^[0-9]+$ ]] || [ "$number" -ge "$count" ]; then
    echo "error: which job is this? SLURM_ARRAY_TASK_ID is not set, and JOB_NUMBER='$number' of JOB_COUNT='$count' is no job; a number counts from 0" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

list="$work/jobs/$stage.$number.of.$count.txt"
mkdir -p "$work/jobs"
if [ -n "${SCENES_FILE:-}" ]; then
    scenes=$(sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' "$SCENES_FILE")
else
    scenes=$(find -L "$data/scans" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort)
fi
if [ -z "$scenes" ]; then
    echo "error: no scene in ${SCENES_FILE:-$data/scans}: expected one name a line, or one folder a scene" >&2
    exit 2
fi
awk -v number="$number" -v count="$count" '(NR - 1) % count == number' <<<"$scenes" >"$list"
if [ ! -s "$list" ]; then
    echo "job $number of $count: fewer scenes than jobs, nothing to do"
    exit 0
fi
exec "$PYTHON" "$SSIR_ROOT/run.py" "$stage" --resume --ginc "$SSIR_ROOT/configs/stage/$stage.gin" --ginc "$config" \
    --ginb "DATA = '$data'" --ginb "WORK = '$work'" --ginb "SCENES = '$list'" "$@"
