#!/usr/bin/env bash
# Fills the disk under a registry in many ways and moments, and shows that it says so, keeps and serves what it has
# acknowledged, and takes pushes again as soon as there is room. disk_full.py says what is checked.
#
#   tests/long/disk-full.sh [--points N] [--seed S]     10 points if not said; as root
#   tests/long/disk-full.sh --seed S --only P           one point of an earlier run again
#   tests/long/disk-full.sh --full                      50 points, with a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

tools ip jq curl python3 mkfs.ext4
binary
lan a

points() {
    inside a python3 "$ROOT/tests/long/disk_full.py" --sampan "$SAMPAN" --work "$WORK" "$@"
}

if [[ ${1:-} == --full ]]; then
    points --points 50 2>&1 | record disk-full
else
    points "$@" || fail "see above"
fi
