#!/usr/bin/env bash
# Sampan beside its peers on this machine, in one run; README.md says what is measured and how to read it.
#
#   benches/peers/run.sh [--size MIB] [--rounds N] [--tags N]      1024, 3 and 10000 if not said
#   ZOT=/path/to/zot benches/peers/run.sh                          with zot
#   SAMPAN=/path/to/sampan benches/peers/run.sh                    another binary than this tree's release build
#   RECORD=1 benches/peers/run.sh                                  keeps the table in docs/evidence
set -euo pipefail
if [[ -z ${SAMPAN:-} ]]; then
    (cd "$(dirname "$0")/../.." && cargo build --quiet --locked --release)
    SAMPAN=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/release/sampan
fi
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../../tests/outer/lib.sh"

tools registry nginx curl python3
binary
measure() {
    python3 "$ROOT/benches/peers/measure.py" --work "$WORK" --sampan "$SAMPAN" \
        --distribution "$(command -v registry)" --nginx "$(command -v nginx)" ${ZOT:+--zot "$ZOT"} "$@"
}
if [[ -n ${RECORD:-} ]]; then measure "$@" | record peers; else measure "$@"; fi
