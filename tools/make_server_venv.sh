#!/usr/bin/env bash
# Makes .venv-server: what requirements/server.txt adds, over all that .venv has; every file checked against its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "Making .venv-server (about 45 MB to fetch, once) …"
rm -rf .venv-server
.venv/bin/python -m venv --without-pip .venv-server
packages=$(.venv-server/bin/python -c 'import site; print(site.getsitepackages()[0])')
.venv/bin/python -m pip --python .venv-server/bin/python install --quiet --disable-pip-version-check --no-deps \
  --require-hashes -r requirements/server.txt
echo "../../../../.venv/${packages#*/.venv-server/}" > "$packages/of_the_pipeline.pth"
touch .venv-server/.installed
