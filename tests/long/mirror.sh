#!/usr/bin/env bash
# Followers of a publisher with very many repositories and tags: what one more tag costs, a mirror while the publisher
# never rests, and one repository with more tags than any. mirror.py says what is checked.
#
#   tests/long/mirror.sh [--repositories N] [--tags N] [--many N] [--seconds N]     300, 3,000, 10,000 and 15 if not said
#   tests/long/mirror.sh --full     10,000, 100,000, 1,000,000 and 60, and a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

tools curl python3
binary

run() { python3 "$ROOT/tests/long/mirror.py" --sampan "$SAMPAN" --work "$WORK" "$@"; }

if [[ ${1:-} == --full ]]; then
    run --repositories 10000 --tags 100000 --many 1000000 --seconds 60 --patience 600 2>&1 | record mirror
else
    run "$@" || fail "see above"
fi
