#!/usr/bin/env bash
# Fills the disk under a registry at many points, and shows that every answer is clean, that everything acknowledged can
# be read meanwhile, and that the same process goes on when there is room. disk_full.py says what is checked.
#
#   tests/long/disk-full.sh [--points N] [--seed S]     10 points if not said; as root
#   tests/long/disk-full.sh --full                      50 points, with a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

as_root "a loop device"
tools python3 mkfs.ext4
binary

points() { python3 "$ROOT/tests/long/disk_full.py" --sampan "$SAMPAN" --work "$WORK" "$@"; }

if [[ ${1:-} == --full ]]; then
    points --points 50 2>&1 | record disk-full
else
    points "$@" || fail "see above"
fi
