#!/usr/bin/env bash
# scripts/storm-erofs.sh [KILLS]: kills the server of a kernel EROFS mount that fanotify fills, 1,000 times unless told otherwise (CI: 6). Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
EROFS_KILLS=${1:-1000} npx vitest run test/mount/erofs-storm.test.ts --reporter=verbose
