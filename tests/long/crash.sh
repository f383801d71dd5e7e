#!/usr/bin/env bash
# Kills a writer under load, at random moments and at its fail points, and shows that nothing acknowledged is lost, that
# nothing deleted comes back, and that its follower never sees an older root. crash.py says what is checked.
#
#   tests/long/crash.sh [--rounds N] [--seed S]            kill -9 and fail points; 5 rounds if not said; as root
#   tests/long/crash.sh --device ext4 [--rounds N]         cut the device without a flush of its log
#   tests/long/crash.sh --full                             1,000 and 100 rounds, with a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

tools ip jq curl python3 mkfs.ext4
binary
lan a b

# rounds [flags of crash.py]: in A's namespace, each time on new data.
rounds() {
    rm -rf "$WORK/a" "$WORK/b" "$WORK"/*.log
    inside a python3 "$ROOT/tests/long/crash.py" --sampan "$SAMPAN" --work "$WORK" \
        --follower-namespace "/run/netns/$(namespace_of b)" "$@"
}

if [[ ${1:-} == --full ]]; then
    { rounds --rounds 1000 && rounds --rounds 100 --device ext4; } 2>&1 | record crash
else
    rounds "$@" || fail "see above"
fi
