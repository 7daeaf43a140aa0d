#!/usr/bin/env bash
# The whole fault matrix: every fault for a moment (test/mount/faults.test.ts does that much in the test suite) and for longer than a read waits, several
# times over. scripts/faults.sh [ROUNDS] (default 3). Needs root on Linux with FUSE; NYDUS_FAULT='a long body' runs one case.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test
export NYDUS_FAULTS=whole NYDUS_FAULTS_VERBOSE=1
for round in $(seq "${1:-3}"); do
  echo "round $round"
  npx vitest run test/mount/faults.test.ts ${NYDUS_FAULT:+-t "$NYDUS_FAULT"}
done
