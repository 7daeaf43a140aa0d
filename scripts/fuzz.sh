#!/usr/bin/env bash
# Runs each fuzzer for SECONDS (60 unless given): bootstraps, blobs, archives, documents, configurations, FUSE requests, unpacking, registry answers.
# FUZZ_SEED repeats a run. scripts/test.sh runs the same tests briefly.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZ_SECONDS="${1:-60}" FUZZ_SEED="${FUZZ_SEED:-$(date +%s)}"
[[ "$FUZZ_SECONDS" =~ ^[1-9][0-9]*$ ]] || { echo 'usage: fuzz.sh [SECONDS]' >&2; exit 2; }
echo "fuzz.sh: FUZZ_SEED=$FUZZ_SEED, $FUZZ_SECONDS s each"
npx vitest run src/format/rafs-v6/fuzz.test.ts src/serve/fuse/core.fuzz.test.ts src/registry/client/hostile.test.ts test/fuzz
