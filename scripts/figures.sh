#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures the figures of README.md and docs/ anew, all of one version on one machine: `make figures [DATA=DIR] [OUT=DIR]
# [ONLY="demo seed"] [LONG=1]`. Nothing else should run meanwhile; without DATA and LONG it takes about ten minutes.
#
#   DATA  folder of the sets that training reads (docs/training.md): scores on what is held out there
#   OUT   gets a text and mostly a JSON for each measurement, and what they were measured on; default figures_out
#   ONLY  names of measurements; default all
#   LONG  1: memory over 10,000 images and the soak of an hour, too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${OUT:-figures_out} data=${DATA:-} only=${ONLY:-} status=0
mkdir -p "$out"

{
  date -u +'%F %H:%M UTC'
  git describe --always --dirty 2>/dev/null || true
  uname -srm
  grep -m1 'model name' /proc/cpuinfo || true
  echo "$(nproc) cores; 8-bit dot products: $(grep -qm1 vnni /proc/cpuinfo && echo yes || echo no)"
  python -c 'import cv2, numpy, onnxruntime as o, sys; print(f"Python {sys.version.split()[0]}, NumPy {numpy.__version__}, OpenCV {cv2.__version__}, onnxruntime {o.__version__}")'
} > "$out/machine.txt"
cat "$out/machine.txt"

# measure NAME COMMAND...: one that fails is said, and the others go on
measure() {
  local name=$1
  shift
  [[ -z $only || " $only " == *" $name "* ]] || return 0
  echo "== $name: $*"
  if "$@" > "$out/$name.txt" 2> "$out/$name.log"; then
    tail -n 12 "$out/$name.txt"
  else
    echo "$name failed, see $out/$name.log" >&2
    status=1
  fi
}

bench=(maskrnn benchmark --skip-runs --size 854x480)
held_out=bmx-bumps,breakdance-flare,dog-agility,kite-walk,scooter-gray

measure objects maskrnn benchmark --objects 1,4,16 --size 854x480 --json "$out/objects.json"
measure calls "${bench[@]}" --objects 1,4,16 --calls --json "$out/calls.json"
measure sizes maskrnn benchmark --objects 4 --size 1280x720,1920x1080 --json "$out/sizes.json"
measure ros "${bench[@]}" --objects 4 --ros --seconds 20 --json "$out/ros.json"
measure cameras "${bench[@]}" --objects 4 --cameras 2 --seconds 20 --json "$out/cameras.json"
measure seed "${bench[@]}" --objects 1 --beside --json "$out/seed.json"
measure services "${bench[@]}" --objects 1 --services --json "$out/services.json"
measure persist "${bench[@]}" --objects 4 --persist --seconds 30 --json "$out/persist.json"
measure clicks "${bench[@]}" --objects 4 --clicks --seconds 30 --json "$out/clicks.json"
measure demo maskrnn demo --out "$out/demo" --json "$out/demo.json"
measure lockstep maskrnn demo --lockstep --out "$out/lockstep" --json "$out/lockstep.json"
if [[ ${LONG:-} = 1 ]]; then
  measure memory "${bench[@]}" --objects 4 --memory 10000 --cycles 200 --json "$out/memory.json"
  measure soak "${bench[@]}" --objects 4 --soak 60 --json "$out/soak.json" --plot "$out/soak.png"
fi
if [[ -n $data ]]; then
  clips=(--root "$data/davis2016_train_288p" --sequences "$held_out" --force)
  measure davis maskrnn evaluate "${clips[@]}" --out "$out/davis"
  measure streaming maskrnn evaluate "${clips[@]}" --streaming --out "$out/streaming"
  measure rendered maskrnn evaluate --root "$data/rendered" --sequences held_000,held_001,held_002,held_003 --force --out "$out/rendered"
  measure prompts python tools/measure_prompts.py --data "$data" --images 60 --clicks 3 --backend grabcut \
    --learned maskrnn_ros/weights/prompts.safetensors --json "$out/prompts.json"
  measure marked python tools/measure_prompts.py --data "$data" --track --json "$out/marked.json"
fi
exit "$status"
