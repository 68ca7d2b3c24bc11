#!/usr/bin/env bash
# Runs the pipeline and shows the result: as it stands, or as an experiment with DATA, RECIPE and SET in place of the
# values in params.yaml. An experiment of `make` always says its recipe, so that it never inherits the last one's.
set -euo pipefail
cd "$(dirname "$0")/.."
fakeface check
if [ -z "$DATA$RECIPE$SET" ]; then
  before=$(sha256sum dvc.lock 2>/dev/null || true)
  dvc repro
  if [ "$before" = "$(sha256sum dvc.lock)" ]; then echo "Nothing has changed since the last time; this is its result:"; fi
else
  overrides=(-S "recipe=${RECIPE:-default}")
  if [ -n "$DATA" ]; then
    if [ ! -e "$DATA" ]; then
      echo "fakeface: DATA=$DATA is not there; name an existing folder, zip or tar." >&2
      exit 1
    fi
    overrides+=(-S "data.root='$(realpath "$DATA")'") # quoted for the grammar of -S, which gives ( and , a meaning
  fi
  for pair in $SET; do overrides+=(-S "$pair"); done
  dvc exp run "${overrides[@]}"
fi
fakeface summary
