#!/usr/bin/env bash
# Two sites with no link between them. What is pushed at site 1 (A) is carried to site 2 as a full bundle and two
# increments; B applies them, and C, D and E, who know nothing but A's name, have it from B: also when the record that
# comes along has expired.
#
#   tests/outer/airgap.sh        as root
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

MEET=30    # seconds until a neighbour has news from B: an mDNS round, a dial, the record, the directories
MEMORY=100 # MiB that a registry may have held at most, with a bundle of twice that going through it

tools ip crane skopeo jq curl python3 openssl
binary
lan a b c d e
# Site 1 is nowhere near.
ip -n "$(namespace_of switch)" link set port1 down

# push TAG MIB: a new image on A; its digest goes into DIGEST[TAG], what it adds in bytes into CHANGED[TAG].
declare -A DIGEST=() CHANGED=()
push() {
    head -c "$2M" /dev/urandom >"$WORK/bytes"
    tar -C "$WORK" -cf "$WORK/layer.tar" bytes
    inside a crane append --insecure --oci-empty-base -f "$WORK/layer.tar" -t "127.0.0.1:5000/site/boat:$1" >/dev/null 2>"$WORK/crane.log" ||
        fail "push of $1: $(tail -1 "$WORK/crane.log")"
    DIGEST[$1]=$(digest_at a "$1")
    CHANGED[$1]=$(stat -c %s "$WORK/layer.tar")
}

digest_at() { inside "$1" curl -fsSI -H 'Accept: */*' "127.0.0.1:5000/v2/site/boat/manifests/$2" | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip'; }

has() { [[ $(digest_at "$1" "$2") == "${DIGEST[$2]}" ]]; }

# pulls NODE TAG: every byte comes; skopeo checks the digests.
pulls() {
    rm -rf "$WORK/pulled"
    inside "$1" skopeo copy --quiet --src-tls-verify=false "docker://127.0.0.1:5000/site/boat:$2" "dir:$WORK/pulled" 2>"$WORK/skopeo.log" ||
        fail "$1 does not serve $2: $(tail -1 "$WORK/skopeo.log")"
    same "digest of $2 on $1" "${DIGEST[$2]}" "sha256:$(sha256sum "$WORK/pulled/manifest.json" | cut -d ' ' -f 1)"
}

# carry TAG MIB [BASE]: pushes, and makes the bundle $WORK/TAG; the root goes into ROOTS[TAG].
declare -A ROOTS=()
carry() {
    push "$1" "$2"
    sampan a bundle create --json "$WORK/$1" ${3:+--since "${ROOTS[$3]}"} >"$WORK/made.json" || fail "no bundle of $1"
    ROOTS[$1]=$(jq -r .root "$WORK/made.json")
    local bytes
    bytes=$(stat -c %s "$WORK/$1")
    ((bytes <= CHANGED[$1] * 105 / 100 + 1024 * 1024)) || fail "the bundle of $1 has $bytes bytes for ${CHANGED[$1]} that changed"
    say "bundle of $1: $bytes bytes for ${CHANGED[$1]} that changed"
}

apply() { sampan b bundle apply "$WORK/$1" >"$WORK/applied" 2>"$WORK/refused.log"; }

# refused TAG REASON
refused() {
    ! apply "$1" || fail "the bundle of $1 was applied out of turn"
    grep -qF "$2" "$WORK/refused.log" || fail "refused for another reason than '$2'"
    same "lines of the reason" 1 "$(wc -l <"$WORK/refused.log")"
}

# held NODE: MiB that its process had in memory at most.
held() { awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/${PIDS[$1]}/status"; }

serve a
serve b
NAME=$(sampan a name)

carry v1 200
carry v2 10 v1
carry v3 5 v2

refused v2 "${ROOTS[v1]}"
apply v1 || fail "the full bundle is not applied"
refused v3 "${ROOTS[v2]}"
head -c -1000 "$WORK/v2" >"$WORK/cut"
refused cut "is cut off"
apply v2 || fail "the first increment is not applied"
if ! apply v2 || ! grep -q "there already" "$WORK/applied"; then fail "the same bundle again is not there already"; fi
refused v1 "older than what is here"
apply v3 || fail "the second increment is not applied"
for node in a b; do
    (($(held $node) <= MEMORY)) || fail "$node held $(held $node) MiB with a bundle of 200 MiB"
done
say "applied in order; A held $(held a) MiB and B $(held b) MiB at most"

for node in c d e; do serve $node --follow "$NAME"; done
for node in c d e; do
    eventually $MEET "$node has v3" has $node v3
    for tag in v2 v3; do pulls $node $tag; done
done
pulls c v1
say "three neighbours follow the name and pull what was carried"

# The record of the next one expired a month ago. Only A's key can say so.
carry v4 5 v3
sampan a key export --pem self "$WORK/key.pem"
python3 "$ROOT/tests/outer/expire.py" "$WORK/key.pem" "$WORK/v4" "$WORK/expired" || fail "no expired record"
apply expired || fail "an expired record is refused: $(<"$WORK/refused.log")"
for node in b c d e; do
    eventually $MEET "$node has v4" has $node v4
    pulls $node v4
    same "$node shows that it is stale" true "$(status $node '.follows[0].stale')"
done
say "so they do with a record that has expired"

# Restarted and collected, B still has it all.
stop b
serve b
sampan b gc --grace 0s >/dev/null
for tag in v1 v2 v3 v4; do pulls b $tag; done
say "B keeps it over a restart and a collection"

for node in b c d e a; do stop $node; done
