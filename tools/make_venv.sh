#!/usr/bin/env bash
# Makes .venv with Python 3.10 or 3.11 from requirements/<cpu|gpu>.txt, every file checked against its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
python=
for candidate in ${PYTHON:-} python3.11 python3.10 python3; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "fakeface: Python 3.10 or 3.11 is needed and neither is on the PATH; install one, or name it: make PYTHON=/path/to/python3.11 …" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "fakeface: $python lacks the venv module; install it (Debian and Ubuntu: the package python3-venv) and run make again." >&2
  exit 1
fi
echo "Making .venv with $("$python" --version) and the $build build of TensorFlow (about 1 GB to fetch, once) …"
rm -rf .venv
"$python" -m venv .venv
# --no-deps: the list is complete already, and holds opencv-python-headless where imgaug asks for opencv-python
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "requirements/$build.txt"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
touch ".venv/.installed-$build"
