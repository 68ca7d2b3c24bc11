#!/usr/bin/env bash
# Resolves pyproject.toml into hashed requirements, without addresses of registries, for the CPU and the GPU build.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "fakeface: uv is needed to resolve the requirements; install it with pipx or pip." >&2; exit 1; }
for build in cpu gpu; do
  uv pip compile pyproject.toml --extra "$build" --extra dev --universal --python-version 3.10 --generate-hashes \
    --override requirements/overrides.txt --no-annotate --no-header --no-emit-index-url --quiet -o "requirements/$build.txt"
done
