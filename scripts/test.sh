#!/usr/bin/env bash
# Sets up a fresh machine if need be, then lints and tests. Arguments go to pytest:
#   bash scripts/test.sh
#   bash scripts/test.sh tests/lib -k golden
#   bash scripts/test.sh --blender         also those against Blender (installs its package bpy into .venv-blender)
#   bash scripts/test.sh --ray             also those on clusters (installs ray)

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
if [ "${1:-}" = "--blender" ]; then
    shift
    [ -x .venv-blender/bin/python ] || "$PYTHON" -m venv .venv-blender
    .venv-blender/bin/python -m pip install --quiet --disable-pip-version-check 'bpy>=4.2'
    export SSIR_BLENDER_PYTHON="$PWD/.venv-blender/bin/python"
fi
if [ "${1:-}" = "--ray" ]; then
    shift
    "$PYTHON" -c 'import ray' 2>/dev/null || "$PYTHON" -m pip install --quiet --disable-pip-version-check 'ray>=2.40'
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m pytest -q -n 2 "$@"
