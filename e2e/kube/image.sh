#!/bin/bash
# image.sh BINARY [NAME:TAG]: builds the image of a static `basalt` without a daemon. Imports it
# into every running node of the lab, and puts it next to the lab's own images for nodes that start
# later. The name that pods use is completed as Docker does it (docker.io/library/).
set -euo pipefail
T=$(dirname "$(readlink -f "$0")")
W=${BASALT_LAB:-$HOME/.cache/basalt-lab}/kube
binary=$1
name=${2:-basalt:0.1.0}
case $(file -b "$binary" 2>/dev/null || echo unknown) in
*dynamically*) echo "$binary is not static: an image from scratch cannot run it" >&2; exit 1 ;;
esac
mkdir -p "$W/images"
archive=$W/images/${name//[:\/]/-}.tar
python3 "$T/mkimage.py" "docker.io/library/$name" "$archive" /basalt "$binary=/basalt"
for pid in "$W"/run/n[0-9]*.pid; do
  [ -e "$pid" ] || continue
  init=$(pgrep -P "$(cat "$pid")" | head -n 1) || continue
  nsenter --target "$init" --mount --net ctr -n k8s.io images import "$archive" >/dev/null
done
ls -l "$archive"
