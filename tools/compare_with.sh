#!/usr/bin/env bash
# Runs the pipeline on another commit and on the files as they are, and prints the two results as a Markdown table.
# What both have in common is made once: they share DVC's cache. usage: tools/compare_with.sh COMMIT > table.md
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "fakeface: say which commit to compare with, for example tools/compare_with.sh origin/main." >&2; exit 1; }
commit=$(git rev-parse --quiet --verify "$1^{commit}") || { echo "fakeface: git knows no commit '$1' here; fetch it first." >&2; exit 1; }
here=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone --quiet --no-checkout . "$folder/base"
(
  cd "$folder/base"
  git checkout --quiet --detach "$commit"
  dvc cache dir --quiet --local "$here/.dvc/cache"
  dvc repro
  git add --force dvc.lock data.dvc # by which `dvc metrics diff` finds the numbers
  git -c user.name=fakeface -c user.email=fakeface@localhost commit --quiet --allow-empty --message "Result of $commit"
) >&2
dvc repro >&2
git fetch --quiet "$folder/base" HEAD
note=$(python -c 'import json; print(json.load(open("reports/metrics.json")).get("note") or "")')
echo "Result on the held-out images${note:+ ($note)}: $(git rev-parse --short "$commit") against the present files"
echo
dvc metrics diff --md --all --precision 3 FETCH_HEAD | sed '1s/FETCH_HEAD/before    /; 1s/workspace/after    /' | awk '
  NR <= 2 { print; next }
  !/ reports\/metrics\.json / { next } # the others are of validation images
  / (generalization|macro)\.(accuracy|balanced_accuracy|roc_auc|loss|ece) / ||
  / sources\.[^ .]+\.accuracy / ||
  / pairs\.[^ .]+\.(balanced_accuracy|roc_auc) /'
