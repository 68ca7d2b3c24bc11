#!/usr/bin/env bash
# Resolves pyproject.toml into hashed requirements, without addresses of registries, for the CPU and the GPU build, and
# what the tracking server needs beside those.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "fakeface: uv is needed to resolve the requirements; install it with pipx or pip." >&2; exit 1; }
for build in cpu gpu; do
  uv pip compile pyproject.toml --extra "$build" --extra dev --universal --python-version 3.10 --generate-hashes \
    --override requirements/overrides.txt --no-annotate --no-header --no-emit-index-url --quiet -o "requirements/$build.txt"
done
beside=$(mktemp)
trap 'rm -f "$beside"' EXIT
uv pip compile pyproject.toml --extra cpu --extra server --universal --python-version 3.10 --generate-hashes \
  --override requirements/overrides.txt --constraint requirements/cpu.txt --no-annotate --no-header \
  --no-emit-index-url --quiet -o "$beside"
# Both lists name a package at the head of its lines: what the first has, the second does not repeat.
awk -F'==' '/^[^ ]/ {known = FILENAME == ARGV[1] ? (have[$1] = 1) : ($1 in have)} FILENAME == ARGV[2] && !known' \
  requirements/cpu.txt "$beside" > requirements/server.txt
