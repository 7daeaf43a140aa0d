#!/usr/bin/env bash
# One command from a fresh clone to a lazily mounted image: scripts/quickstart.sh [IMAGE]
# Sets up, converts an OCI image to Nydus through the embedded registry, mounts it lazily, runs a program in it, reports what was fetched.
# Without IMAGE it makes one from this machine (shell, Node, npm) and needs no network beyond the package registries.
set -euo pipefail
case "${1:-}" in -h|--help)
  cat <<'TEXT'
usage: scripts/quickstart.sh [IMAGE] [-- COMMAND...]

Converts IMAGE (a registry reference, oci:DIR, oci-archive:FILE or docker-archive:FILE) to a Nydus image, mounts it
lazily, runs COMMAND in a chroot of it and prints sizes, requests, bytes fetched and times.
Without IMAGE: an image made from this machine, running its node.
Needs root (FUSE mount, chroot). Everything it makes is in one temporary directory, removed at the end, also on Ctrl-C.
TEXT
  exit 0 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo 'quickstart: needs root, for the FUSE mount and the chroot (sudo scripts/quickstart.sh)' >&2; exit 1; }
[ -e /dev/fuse ] || { echo 'quickstart: /dev/fuse is missing; load the fuse module (modprobe fuse) or pass the device into the container' >&2; exit 1; }
bash "$here/setup.sh" run
exec node "$here/quickstart.mjs" "$@"
