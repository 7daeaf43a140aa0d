#!/usr/bin/env bash
# Runs our programs against upstream's own: scripts/interop.sh --nydus-image PATH --nydusd PATH [--nydusify PATH]
# Images of either side are read by the other; the Go nydusify converts and checks with our nydus-image and nydusd. Needs root.
set -euo pipefail
usage() { sed -n '2,3s/^# //p' "$0"; exit "$1"; }
while [ $# -gt 0 ]; do
  case $1 in
    --nydus-image) export NYDUS_PEER_IMAGE=$(realpath "$2"); shift 2 ;;
    --nydusd) export NYDUS_PEER_NYDUSD=$(realpath "$2"); shift 2 ;;
    --nydusify) export NYDUS_PEER_NYDUSIFY=$(realpath "$2"); shift 2 ;;
    -h|--help) usage 0 ;;
    *) usage 2 >&2 ;;
  esac
done
[ -n "${NYDUS_PEER_IMAGE:-}" ] && [ -n "${NYDUS_PEER_NYDUSD:-}" ] || usage 2 >&2
cd "$(dirname "$0")/.."
bash scripts/setup.sh test
npx vitest run --project peer
