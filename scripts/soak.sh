#!/usr/bin/env bash
# scripts/soak.sh [MINUTES]: a daemon mounts, unmounts, reads and meets faults for so long (default 30; the test suite has one); its memory, descriptors and
# threads of the second half are compared with those of the first. Needs root on Linux with FUSE.
set -euo pipefail
cd "$(dirname "$0")/.."
SOAK_MINUTES=${1:-30} NYDUS_FAULT=none npx vitest run test/mount/faults.test.ts -t 'keeps its memory' --reporter=verbose
