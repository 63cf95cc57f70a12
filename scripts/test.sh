#!/usr/bin/env bash
# Sets up a fresh machine if need be, then lints and tests. Arguments go to pytest:
#   bash scripts/test.sh
#   bash scripts/test.sh tests/lib -k golden

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$PYTHON" -m ruff check .
"$PYTHON" -m pytest -q -n 2 "$@"
