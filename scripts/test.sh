#!/usr/bin/env bash
# The whole test suite, nothing skipped: installs what is missing, builds, lints, runs every unit and system test. Needs root on Linux with FUSE and EROFS.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo 'test.sh: needs root (FUSE and EROFS mounts); npm test runs what an ordinary user can' >&2; exit 1; }
bash scripts/setup.sh test
export NYDUS_TEST_NO_SKIP=1
npm run --silent check
npx vitest run "$@"
