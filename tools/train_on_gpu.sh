#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains the trunk, then the decoder and the trunk with it, on a GPU within a time, from the tar of
# pack_training_data.py. No ROS, no network.
#
#     tools/train_on_gpu.sh PACK.tar OUT [TRUNK_MINUTES] [DECODER_MINUTES]
#
# With 0 minutes for the trunk, the one that ships goes on; INIT=FILE or INIT=shipped is what the decoder begins with.
# DEVICE=cpu and EXTRA='--batch 2' make a trial of it. Weights, checkpoints
# and logs are written every two minutes: what is ended early loses little. Run again with RESUME=1 it goes on from there.
set -euo pipefail
pack=$(realpath "$1") out=$2 trunk_minutes=${3:-4} decoder_minutes=${4:-4}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
device=${DEVICE:-cuda} python=${PYTHON:-python3}
# one core feeds the GPU, the others draw
processes=${PROCESSES:-$(($(nproc) > 2 ? $(nproc) - 2 : 1))}
resume=${RESUME:+--resume}

"$python" - <<'END'
import importlib.util, sys
wanted = ("torch", "torchvision", "cv2", "numpy", "PIL", "safetensors", "yaml", "tqdm", "matplotlib")
missing = [name for name in wanted if importlib.util.find_spec(name) is None]
sys.exit(f"train_on_gpu: missing {', '.join(missing)}: see docs/training.md" if missing else 0)
END
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
"$python" tools/unpack_training_data.py "$pack" "$data"
mkdir -p "$out/trunk" "$out/decoder"
trunk=shipped
if [ "$trunk_minutes" != 0 ]; then
  "$python" -m maskrnn_ros train trunk --data "$data" --out "$out/trunk" --minutes "$trunk_minutes" \
    --device "$device" --processes "$processes" --batch "${TRUNK_BATCH:-32}" --rate "${TRUNK_RATE:-4e-4}" \
    $resume ${EXTRA:-}
  trunk=$out/trunk/trunk.safetensors
fi
if [ "$decoder_minutes" != 0 ]; then
  "$python" -m maskrnn_ros train decoder --data "$data" --out "$out/decoder" --minutes "$decoder_minutes" \
    --trunk "$trunk" --trunk-rate "${TRUNK_RATE_THEN:-2e-4}" ${INIT:+--init "$INIT"} --device "$device" \
    --processes "$processes" --batch "${DECODER_BATCH:-32}" --rate "${DECODER_RATE:-1.2e-3}" \
    --lengths 0.35:4,0.75:6,1:9 --threads 1 $resume ${EXTRA:-}
fi
ls -l "$out"/*
