#!/usr/bin/env bash
# Sampan beside its peers on this machine, in one run; README.md says what is measured and how to read it.
#
#   benches/peers/run.sh [--rows A,B] [--runs N]               all rows, 3 runs of those that are taken in turns
#   benches/peers/run.sh --zot /path/to/zot                    with zot
#   benches/peers/run.sh --size MIB --tags N --many N          smaller ones; 1024, 10000 and 100000 if not said
#   benches/peers/run.sh --results FILE                        RESULTS.md beside this, if nothing was narrowed
#   SAMPAN=/path/to/sampan benches/peers/run.sh                another binary than this tree's release build
set -euo pipefail
if [[ -z ${SAMPAN:-} ]]; then
    (cd "$(dirname "$0")/../.." && cargo build --quiet --locked --release)
    SAMPAN=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/release/sampan
fi
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../../tests/outer/lib.sh"

tools registry nginx curl wrk python3
binary
python3 "$ROOT/benches/peers/measure.py" --work "$WORK" --sampan "$SAMPAN" \
    --distribution "$(command -v registry)" --nginx "$(command -v nginx)" "$@"
