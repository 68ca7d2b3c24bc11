#!/usr/bin/env bash
# Takes the pictures of the README: the result page, and MLflow's comparison of three experiments. Both show the synthetic
# sample alone. Needs Chromium. usage: tools/take_pictures.sh (in a checkout whose `make repro` has run)
set -euo pipefail
cd "$(dirname "$0")/.."
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$chromium" ] || { echo "fakeface: Chromium is needed to take pictures of pages; install it (Debian: chromium)." >&2; exit 1; }
grep -q '^  root: data ' params.yaml || { echo "fakeface: data.root in params.yaml is not the synthetic sample; set it to data." >&2; exit 1; }
port=${PORT:-5055}
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
take() { # address, target, width, height, seconds for a page that draws itself, pixels to cut off on the right
  "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking \
    --user-data-dir="$folder/profile" --window-size="$3,$4" --timeout="$((1000 * $5))" \
    --virtual-time-budget="$((1000 * $5))" --screenshot="$folder/picture.png" "$1" 2>/dev/null
  python - "$folder/picture.png" "$2" "$6" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

with Image.open(sys.argv[1]) as picture:  # 256 colours: a third of the bytes, and no difference to be seen
    shown = picture.convert("RGB").crop((0, 0, picture.width - int(sys.argv[3]), picture.height))
    shown.thumbnail((1400, 1400))
    shown.quantize(256).save(sys.argv[2], optimize=True)
size = Path(sys.argv[2]).stat().st_size
print(f"{sys.argv[2]}: {size / 1000:.0f} kB")
sys.exit(size > 300_000)
PYTHON
}
mkdir -p docs/images
fakeface report
take "file://$PWD/reports/report.html" docs/images/report.png 1000 1250 5 0
dvc exp run --queue -S epochs=2 -S 'lr=0.003,0.001,0.0003'
dvc queue start --jobs "${JOBS:-1}" > /dev/null 2>&1
while status=$(dvc queue status) && [[ $status =~ Queued|Running ]]; do sleep 5; done
fakeface ui --port "$port" > "$folder/said" 2>&1 &
server=$!
until grep -q 'startup complete' "$folder/said"; do sleep 1; kill -0 "$server"; done
take "$(sed -n 's/^The experiments compared: //p' "$folder/said")" docs/images/compare.png 2000 1150 40 515 # the panel of MLflow's assistant
