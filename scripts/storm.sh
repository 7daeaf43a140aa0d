#!/usr/bin/env bash
# scripts/storm.sh [ROUNDS]: the storms of failover, hot upgrade and self-healing, 100 rounds each unless told otherwise (CI runs 10). Fails for gaps that are
# longer than a machine that does nothing else may show (STORM_LIMITS= lets them pass). Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
export STORM_LIMITS=${STORM_LIMITS-1}
STORM_ROUNDS=${1:-100} npx vitest run test/mount/failover.test.ts test/mount/self-heal.test.ts test/mount/writable-failover.test.ts test/mount/virtiofs-heal.test.ts test/mount/virtiofs.test.ts --reporter=verbose
