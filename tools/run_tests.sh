#!/usr/bin/env bash
# Runs tests on two cores. usage: tools/run_tests.sh [OPTION…] [TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."
# One thread a process, and a file stays on one core, so that what its tests share is made once
export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1
exec pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
