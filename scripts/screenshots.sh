#!/usr/bin/env bash
# Takes the pictures of viewer, report and TensorBoard that the README shows, from what scripts/demo.sh wrote.
#   bash scripts/screenshots.sh [WORK] [OUTPUT]        (default: outputs/demo docs/images)
# Needs Chromium (Debian: apt-get install chromium) and the package viser.

set -euo pipefail
work="$(realpath -m "${1:-outputs/demo}")" output="${2:+$(realpath -m "$2")}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$PYTHON" "$SSIR_ROOT/docs/screenshots.py" "$work" "${output:-$SSIR_ROOT/docs/images}"
