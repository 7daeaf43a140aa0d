#!/usr/bin/env bash
# A virtual machine whose root file system is an image that has not arrived yet: scripts/demo-vm.sh [IMAGE] [-- COMMAND...]
# As scripts/quickstart.sh, but the program runs in a real machine (QEMU, Debian's kernel) over virtiofs.
set -euo pipefail
case "${1:-}" in -h|--help)
  cat <<'TEXT'
usage: scripts/demo-vm.sh [IMAGE] [-- COMMAND...]

Converts IMAGE (a registry reference, oci:DIR, oci-archive:FILE or docker-archive:FILE) to a Nydus image, boots a virtual
machine that mounts it over virtiofs with a writable overlay on top, runs COMMAND (default: what the image says) in it
and prints sizes, requests, bytes fetched and times. Without IMAGE: an image made from this machine, running its node.
Needs root. Everything it makes is in one temporary directory, removed at the end, also on Ctrl-C.
TEXT
  exit 0 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo 'demo-vm: needs root, for the image of this machine (sudo scripts/demo-vm.sh)' >&2; exit 1; }
bash "$here/setup.sh" vm
exec node "$here/quickstart.mjs" --vm "$@"
