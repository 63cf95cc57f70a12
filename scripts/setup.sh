#!/usr/bin/env bash
# Sets up all that the project needs: packages and the native extensions. Does nothing when that is done.
#   bash scripts/setup.sh            or, in other scripts:   source scripts/setup.sh
# The active virtual environment is used; without one, .venv is made here with ${PYTHON3:-python3}.
# REQUIREMENTS=requirements.txt installs by floors instead of the locked versions (another Python, a CUDA PyTorch).

set -euo pipefail
SSIR_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${VIRTUAL_ENV:-$SSIR_ROOT/.venv}/bin/python"

(  # the caller stays where it is
cd "$SSIR_ROOT"
[ -n "${VIRTUAL_ENV:-}" ] || [ -x "$PYTHON" ] || "${PYTHON3:-python3}" -m venv .venv
REQUIREMENTS="${REQUIREMENTS:-requirements.lock}"

packages_stamp="$("$PYTHON" -c 'import sys; print(sys.prefix)')/.ssir-$(sha256sum "$REQUIREMENTS" | cut -c1-16)"
if [ ! -e "$packages_stamp" ]; then
    echo "setting up: packages of $REQUIREMENTS"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$REQUIREMENTS"
    touch "$packages_stamp"
fi

# The extensions belong to these sources, this interpreter and this PyTorch.
build_key="$(
    { cat setup.py; find lib -path '*/csrc/*' -type f | sort | xargs cat
      "$PYTHON" -c 'import sys, torch; print(sys.version, torch.__version__)'; } | sha256sum | cut -c1-16
)"
if [ "$(cat build/.built 2>/dev/null)" != "$build_key" ] || ! ls lib/plenoxel/_C*.so lib/raster/_C*.so >/dev/null 2>&1; then
    echo "setting up: native extensions (log: build/log.txt)"
    mkdir -p build
    "$PYTHON" setup.py build_ext --inplace >build/log.txt 2>&1 || { tail -n 40 build/log.txt; exit 1; }
    grep '^native extensions' build/log.txt || true
    echo "$build_key" >build/.built
fi
)
export PYTHON SSIR_ROOT
