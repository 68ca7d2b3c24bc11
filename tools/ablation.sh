#!/usr/bin/env bash
# Queues the default recipe and, each alone, what was taken out of it or put into it, as DVC experiments named
# ablation-WHAT-SEED, and runs them. No held-out source is looked at: the profile `left_out` of params.yaml keeps one of the
# training sources unseen in its place; the test part of FFHQ is in both. usage: tools/ablation.sh FOLDER [SEED…]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ] || [ ! -d "$1" ]; then
  echo "fakeface: say the folder of images (README, \"Your own images\"): make ablation DATA=FOLDER" >&2
  exit 2
fi
folder=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- 20
fakeface check

in_all_stages() { # a step of the augmentation, as the same override of each stage
  for stage in stage1 stage2 stage3; do printf '%s\n' "recipes.default.augmentation.$stage.$1"; done
}

queue() { # a name, then the overrides
  local name=$1 overrides=()
  shift
  for override in "$@"; do overrides+=(-S "$override"); done
  for seed in "${seeds[@]}"; do
    dvc exp run --queue --name "ablation-$name-$seed" -S recipe=default -S data.profile=left_out \
      -S "data.root='$folder'" -S "seed=$seed" "${overrides[@]}" | grep '^Queued'
  done
}

seeds=("$@")
mapfile -t no_blur < <(in_all_stages blur.probability=0)
mapfile -t no_resample < <(in_all_stages resample.probability=0)
mapfile -t no_jpeg < <(in_all_stages jpeg.probability=0)
mapfile -t random_zoom < <(in_all_stages random_zoom.probability=0.5)
queue default
queue no-replay recipes.default.replay=false
queue no-balance recipes.default.balance=none
queue one-view recipes.default.flip_tta=false
queue no-blur-no-jpeg "${no_blur[@]}" "${no_resample[@]}" "${no_jpeg[@]}"
queue random-zoom "${random_zoom[@]}"
queue wider 'recipes.default.channels=[16,32,96,192,256]'
dvc queue start --jobs "${JOBS:-1}" > /dev/null 2>&1 # its workers keep what they are given, so that a pipe would wait for them
echo "Running: \`dvc queue status\` says how far it is, \`dvc exp show --only-changed\` and \`make ui\` compare the results."
