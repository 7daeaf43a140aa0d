#!/usr/bin/env bash
# scripts/posix.sh [PATTERN]: pjdfstest, the POSIX file system suite, over a writable mount of ours and over the kernel's overlayfs. Needs root, and cargo the
# first time: the suite is built from crates.io into .cache/ (two minutes). Which cases must fail, and why, is in test/support/pjdfstest.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.2.2
suite=$PWD/.cache/posix/bin/pjdfstest
if [ "$("$suite" --version 2>/dev/null)" != "pjdfstest $version" ]; then
  command -v cargo >/dev/null || { echo 'posix: cargo is needed to build pjdfstest' >&2; exit 1; }
  cargo install --locked --quiet --version "=$version" --root .cache/posix --target-dir .cache/posix/target pjdfstest
fi
node scripts/build.mjs >&2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/nydus-posix-XXXXXX")
daemon=
finish() {
  [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon" || true; }
  umount "$scratch/kernel/mnt" 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT
chmod 755 "$scratch"
mkdir -p "$scratch"/{ours,kernel}/{upper,work,mnt} "$scratch"/{cache,blobs,source/directory}
echo content >"$scratch/source/directory/file"
bin/nydus-image create -l warn -B "$scratch/image" -D "$scratch/blobs" "$scratch/source"
cat >"$scratch/config.json" <<JSON
{ "version": 2, "backend": { "type": "localfs", "localfs": { "dir": "$scratch/blobs" } }, "cache": { "type": "blobcache", "filecache": { "work_dir": "$scratch/cache" } },
  "rafs": { "mode": "direct", "enable_xattr": true }, "overlay": { "upper_dir": "$scratch/ours/upper", "work_dir": "$scratch/ours/work" } }
JSON
bin/nydusd --mountpoint "$scratch/ours/mnt" --config "$scratch/config.json" --bootstrap "$scratch/image" --writable --log-level warn &
daemon=$!
mount -t overlay overlay -o "lowerdir=$scratch/source,upperdir=$scratch/kernel/upper,workdir=$scratch/kernel/work" "$scratch/kernel/mnt"
for _ in $(seq 100); do [ -e "$scratch/ours/mnt/directory" ] && break; sleep 0.1; done
status=0
for mount in kernel ours; do
  echo "== $mount"
  "$suite" -c test/support/pjdfstest.toml -p "$scratch/$mount/mnt" -s "$scratch" "$@" >"$scratch/out" 2>&1 || status=1
  grep -E 'FAILED|^Summary' "$scratch/out" || { tail -n 20 "$scratch/out"; status=1; }
done
exit "$status"
