#!/usr/bin/env bash
# Measure the training step on a machine whose python3 has torch: sclip/benchmark/measure_step.sh WHEELS OUT [OPTION...]
#
# WHEELS is a folder with wheels of the packages that this Python lacks, such as open_clip_torch, ftfy and wcwidth. The
# script downloads nothing and installs nothing into this Python. It writes step.json, the trace of a step and
# output.txt to OUT, and ends within 8 minutes. OPTION is an option of `python -m sclip.benchmark.step`.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$2
mkdir -p "$out"
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" "$1"/*.whl
export PYTHONPATH="$root:$packages"
shift 2
timeout --kill-after=10 475 python3 -m sclip.benchmark.step \
    --seconds 440 --rounds 3 --json "$out/step.json" --profile "$out" "$@" 2>&1 | tee "$out/output.txt"
