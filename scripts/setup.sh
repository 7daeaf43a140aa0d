#!/usr/bin/env bash
# Sets up a checkout and builds it: scripts/setup.sh run|test|vm. Sourced by nobody, called by quickstart.sh and test.sh; quick when nothing is missing.
#   run   what the programs need: compiler, codec libraries, npm packages, dist/
#   vm    also QEMU and a kernel for it
#   test  also the independent judges and peers that the full test suite runs (a real registry, umoci, erofs-utils ...)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v node >/dev/null || fail 'Node.js >= 20.19 is needed and not on PATH (Debian: apt-get install nodejs npm, or https://nodejs.org)'
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' \
  || fail "Node.js >= 20.19 is needed, this is $(node --version)"
command -v npm >/dev/null || fail 'npm is needed and not on PATH'

# package → a path that proves it is there: dpkg is not asked on machines that have the files from elsewhere.
build_packages='gcc:/usr/bin/cc libc6-dev:/usr/include/stdio.h liblz4-dev:/usr/include/lz4.h libzstd-dev:/usr/include/zstd.h zlib1g-dev:/usr/include/zlib.h'
test_packages='python3:/usr/bin/python3 attr:/usr/bin/setfattr acl:/usr/bin/setfacl erofs-utils:/usr/bin/fsck.erofs umoci:/usr/bin/umoci
  skopeo:/usr/bin/skopeo docker-registry:/usr/bin/docker-registry apache2-utils:/usr/bin/htpasswd openssl:/usr/bin/openssl binutils:/usr/bin/readelf
  xz-utils:/usr/bin/xz file:/usr/bin/file runc:/usr/sbin/runc systemd:/usr/bin/systemd-analyze zstd:/usr/bin/zstd procps:/usr/bin/pgrep util-linux:/usr/bin/unshare mount:/usr/bin/mount cryptsetup-bin:/usr/sbin/veritysetup libcap2-bin:/usr/sbin/setcap fdisk:/usr/sbin/sfdisk'
# what boots a virtual machine: QEMU, and an initramfs around busybox (scripts/guest.mjs)
machine_packages='qemu-system-x86:/usr/bin/qemu-system-x86_64 busybox-static:/bin/busybox cpio:/usr/bin/cpio dmsetup:/usr/sbin/dmsetup xz-utils:/usr/bin/xz zstd:/usr/bin/zstd'
wanted=$build_packages
case "${1:-run}" in
  test) wanted="$wanted $test_packages $machine_packages" ;;
  vm) wanted="$wanted $machine_packages" ;;
esac
missing=()
for pair in $wanted; do [ -e "${pair#*:}" ] || missing+=("${pair%%:*}"); done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "these packages are missing and there is no apt-get to install them: ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail "these packages are missing; run as root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  { apt-get install -y --no-install-recommends "${missing[@]}" || { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; }; } </dev/null >"$log" 2>&1 \
    || { tail -n 20 "$log" >&2; fail "apt-get could not install ${missing[*]}"; }
  rm -f "$log"
fi

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'npm ci'
  npm ci --no-audit --no-fund --loglevel=error </dev/null >&2 || fail 'npm ci failed; is a package registry reachable?'
  touch node_modules/.package-lock.json
fi

say 'building'
node scripts/build.mjs >&2

case "${1:-run}" in test|vm)
  [ -e .cache/guest/complete ] || say 'fetching a kernel for virtual machines'
  node scripts/guest.mjs >&2 || fail 'no kernel for virtual machines: is the Debian package registry reachable?' ;;
esac
