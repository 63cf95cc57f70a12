#!/usr/bin/env bash
# The tests of native code under sanitizers; fails where a test or a sanitizer does. Arguments go to pytest.
#   bash scripts/sanitize.sh            C++ under AddressSanitizer and UndefinedBehaviorSanitizer (in build/sanitized)
#   bash scripts/sanitize.sh --cuda     CUDA under compute-sanitizer; needs a GPU, and the extensions built for it

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$SSIR_ROOT"
folder="$PWD/build/sanitized"
mkdir -p "$folder"
rm -f "$folder"/report*

if [ "${1:-}" = "--cuda" ]; then
    shift
    # Without PyTorch's cache of memory each tensor is an allocation of its own, whose borders are watched.
    # Left out: a kernel that is to end with an error, and what takes hours here (four million rays, compiling).
    status=0
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --target-processes all --error-exitcode 1 \
        --log-file "$folder/report.%p" "$PYTHON" -m pytest -q -p no:cacheprovider -n "${SANITIZE_WORKERS:-4}" \
        -k "cuda and not ends_the_kernel and not four_million and not inductor and not elements" \
        tests/lib tests/model "$@" || status=$?
    bad="$(grep -L 'ERROR SUMMARY: 0 errors' "$folder"/report.* || true)"
    [ -z "$bad" ] || { tail -n 40 $bad; exit 1; }
    exit "$status"
fi

echo "building with sanitizers (log: build/sanitized/log.txt)"
SSIR_SANITIZE=1 SSIR_CUDA=0 "$PYTHON" setup.py build_ext --build-lib "$folder" --build-temp "$folder/objects" \
    >"$folder/log.txt" 2>&1 || { tail -n 40 "$folder/log.txt"; exit 1; }
runtime="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$folder/report"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$folder/report"
status=0
LD_PRELOAD="$runtime" SSIR_LIBRARIES="$folder" "$PYTHON" -m pytest -q -p no:cacheprovider \
    -n "${SANITIZE_WORKERS:-2}" tests/lib tests/model/test_rendering.py tests/model/test_sphere_layers.py \
    tests/model/test_grid.py tests/model/test_annotation.py tests/model/test_features.py \
    tests/model/test_fitting_parts.py "$@" || status=$?
if compgen -G "$folder/report*" >/dev/null; then
    cat "$folder"/report*
    echo "the sanitizers found the above" >&2
    exit 1
fi
exit "$status"
