#!/usr/bin/env bash
# Checks types while the tests run, because the check needs one core only. usage: tools/check_types_and_test.sh [TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."
said=$(mktemp)
trap 'rm -f "$said"' EXIT
mypy > "$said" 2>&1 &
types=$!
tests=0
# One thread a process, and a file stays on one core, so that what its tests share is made once
OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || tests=$?
wait "$types" && typed=0 || typed=$?
cat "$said"
exit $((tests > typed ? tests : typed))
