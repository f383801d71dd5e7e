#!/usr/bin/env bash
# Two machines on one LAN: two network namespaces on a bridge, no route out, no DNS. A and B start with no
# configuration but `--follow <A's name>` on B, and find each other by mDNS. What a real client pushes to A, a real
# client pulls from B, with the same digest, an image of 200 MiB among it; then the time from A's 201 on a new tag to
# B's first 200 on it.
#
#   tests/outer/lan.sh            20 tags; as root
#   tests/outer/lan.sh --full     100 tags, and a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

COUNT=20
[[ ${1:-} == --full ]] && COUNT=100
MEET=30 # seconds for the first meeting: an mDNS round, a dial, the record, the directories

tools ip crane jq curl python3
binary
lan a b

# image NAME MIB: pushes an image with one layer of random bytes to A.
image() {
    head -c "$2M" /dev/urandom >"$WORK/bytes"
    tar -C "$WORK" -cf "$WORK/layer.tar" bytes
    inside a crane append --insecure --oci-empty-base -f "$WORK/layer.tar" -t "127.0.0.1:5000/$1" >/dev/null 2>"$WORK/crane.log" ||
        fail "crane push of $1: $(tail -1 "$WORK/crane.log")"
}

# digest_at NODE IMAGE
digest_at() { inside "$1" crane digest --insecure "127.0.0.1:5000/$2"; }

# pull NODE IMAGE: the whole image; crane checks every digest as it reads.
pull() { inside "$1" crane pull --insecure --format oci "127.0.0.1:5000/$2" "$WORK/pulled-$1" 2>"$WORK/crane.log"; }

serve a
serve b --follow "$(sampan a name)"
say "both are up with no configuration"

image small/boat:v1 1
eventually $MEET "B meets A and has its tag" digest_at b small/boat:v1
same "digest on B" "$(digest_at a small/boat:v1)" "$(digest_at b small/boat:v1)"
pull b small/boat:v1 || fail "crane cannot pull from B: $(tail -1 "$WORK/crane.log")"

image big/ship:v1 200
eventually 10 "B has the tag of the big image" digest_at b big/ship:v1
same "digest of the big image on B" "$(digest_at a big/ship:v1)" "$(digest_at b big/ship:v1)"
began=$EPOCHREALTIME
pull b big/ship:v1 || fail "crane cannot pull the big image from B: $(tail -1 "$WORK/crane.log")"
say "200 MiB through B in $(jq -n "($EPOCHREALTIME - $began) * 10 | round / 10") s, digests equal"

inside a python3 "$ROOT/tests/outer/latency.py" push 127.0.0.1:5000 "$COUNT" -- \
    nsenter --net="/run/netns/$(namespace_of b)" python3 "$ROOT/tests/outer/latency.py" watch 127.0.0.1:5000 >"$WORK/latency" ||
    fail "$(<"$WORK/latency")"
say "$(<"$WORK/latency")"
((COUNT < 100)) || record lan <"$WORK/latency" >/dev/null

stop b
stop a
