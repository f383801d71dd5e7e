#!/usr/bin/env bash
# Collects garbage while several clients push, mount and delete, with a follower on the LAN: nothing goes that must stay,
# and nothing stays that can go. gc.py says what is checked.
#
#   tests/long/gc.sh [--seconds N] [--seed S]     60 s of load if not said; as root
#   tests/long/gc.sh --full                       600 s, and a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

tools ip jq curl python3
binary
lan a b

run() {
    inside a python3 "$ROOT/tests/long/gc.py" --sampan "$SAMPAN" --work "$WORK" \
        --follower-namespace "/run/netns/$(namespace_of b)" "$@"
}

if [[ ${1:-} == --full ]]; then
    run --seconds 600 2>&1 | record gc
else
    run "$@" || fail "see above"
fi
