#!/usr/bin/env bash
# Checks types while the tests run, because the check needs one core only. usage: tools/check_types_and_test.sh [TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."
said=$(mktemp)
trap 'rm -f "$said"' EXIT
mypy > "$said" 2>&1 &
types=$!
tests=0
tools/run_tests.sh "$@" || tests=$?
wait "$types" && typed=0 || typed=$?
cat "$said"
exit $((tests > typed ? tests : typed))
