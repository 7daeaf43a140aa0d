#!/usr/bin/env bash
# Runs the seeded fuzzers of bootstraps and FUSE requests for SECONDS (60 unless given); FUZZ_SEED repeats a run. npm test runs the same tests briefly.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZ_SECONDS="${1:-60}" FUZZ_SEED="${FUZZ_SEED:-$(date +%s)}"
[[ "$FUZZ_SECONDS" =~ ^[1-9][0-9]*$ ]] || { echo 'usage: fuzz.sh [SECONDS]' >&2; exit 2; }
echo "fuzz.sh: FUZZ_SEED=$FUZZ_SEED, $FUZZ_SECONDS s"
npx vitest run --project unit src/format/rafs-v6/fuzz.test.ts src/serve/fuse/core.fuzz.test.ts
