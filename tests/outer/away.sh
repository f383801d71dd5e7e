#!/usr/bin/env bash
# What a follower keeps, and what a writer keeps, when the other one or a part of its own data is away. A and B are on
# one LAN of namespaces; B follows A.
#
#   tests/outer/away.sh        as root
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

MEET=30  # seconds until B has news from A that it can have: an mDNS round, a dial, the record, the directories
ANSWER=30 # seconds within which every request must end, whether it can be served or not

tools ip crane jq curl
binary
lan a b

# push TAG...: a new image of 2 MiB on A under these tags; leaves its digest in $pushed.
push() {
    head -c 2M /dev/urandom >"$WORK/bytes"
    tar -C "$WORK" -cf "$WORK/layer.tar" bytes
    inside a crane append --insecure --oci-empty-base -f "$WORK/layer.tar" -t "127.0.0.1:5000/away/boat:$1" >/dev/null 2>"$WORK/crane.log" ||
        fail "push of $1: $(tail -1 "$WORK/crane.log")"
    pushed=$(digest_at a ":$1")
    local tag
    for tag in "${@:2}"; do
        inside a crane tag --insecure "127.0.0.1:5000/away/boat:$1" "$tag" 2>/dev/null
    done
}

# digest_at NODE REFERENCE, with REFERENCE ":tag" or "@digest"
digest_at() { inside "$1" timeout $ANSWER crane digest --insecure "127.0.0.1:5000/away/boat$2"; }

# pulls NODE REFERENCE DIGEST: the whole image comes, and it is that one; crane checks every digest.
pulls() {
    rm -rf "$WORK/pulled"
    inside "$1" timeout $ANSWER crane pull --insecure --format oci "127.0.0.1:5000/away/boat$2" "$WORK/pulled" 2>"$WORK/crane.log" ||
        fail "$1 does not serve $2: $(tail -1 "$WORK/crane.log")"
    same "digest of $2 on $1" "$3" "$(digest_at "$1" "$2")"
}

# has NODE REFERENCE DIGEST
has() { [[ $(digest_at "$1" "$2") == "$3" ]]; }

# lists NODE: everything that it lists, over HTTP and on the command line, and the roots that it knows.
lists() {
    inside "$1" curl -fsS 127.0.0.1:5000/v2/_catalog
    inside "$1" curl -fsS 127.0.0.1:5000/v2/away/boat/tags/list
    status "$1" '.root, .follows[].root'
    [[ $1 == b ]] || sampan a ls docker/registry/v2/repositories/away/boat/_manifests/tags # b's own tree is empty
}

follow() { serve b --follow "$NAME"; }

serve a
NAME=$(sampan a name)
follow
stop b

# ---- pushed while B was down

push v1 latest
v1=$pushed
follow
eventually $MEET "B has what was pushed while it was down" has b :v1 "$v1"
pulls b :v1 "$v1"
say "B was down during the push and has the tag"

# ---- A pushes v2 and is gone before B could fetch it

push v2
v2=$pushed
inside a crane tag --insecure 127.0.0.1:5000/away/boat:v2 latest 2>/dev/null
crash a
pulls b :v1 "$v1"
pulls b "@$v1" "$v1"
latest=$(digest_at b :latest) || fail "B has no answer for the tag that A moved before it went"
[[ $latest == "$v1" || $latest == "$v2" ]] || fail "B answers $latest for the tag that A moved"
# v2's layer never reached B: the answer may be 200 or 404, but it must come.
inside b timeout $ANSWER crane pull --insecure --format oci 127.0.0.1:5000/away/boat:v2 "$WORK/v2" >/dev/null 2>&1 || (($? != 124)) ||
    fail "B hangs on an image that only A has"
say "A was killed after its push of v2: B serves v1 by tag and digest"

# ---- B alone, after a restart

stop b
follow
pulls b :v1 "$v1"
pulls b "@$v1" "$v1"
say "B was restarted without A and serves what it had"

# ---- A is back after kill -9: nothing acknowledged is lost

serve a
same "name of A" "$NAME" "$(sampan a name)"
pulls a :v1 "$v1"
pulls a :v2 "$v2"
pulls a :latest "$v2"
eventually $MEET "B has v2 once A is back" has b :latest "$v2"
pulls b :v2 "$v2"
say "A came back from kill -9 with all it had acknowledged, and B has v2"

# ---- A stops in order: same root, and a sequence that does not fall

root=$(sampan a root)
sequence=$(status a .sequence)
stop a
serve a
same "root of A after a restart" "$root" "$(sampan a root)"
same "name of A after a restart" "$NAME" "$(sampan a name)"
(($(status a .sequence) >= sequence)) || fail "A's sequence fell from $sequence to $(status a .sequence)"
say "A was restarted: same name, same root, sequence not lower"

# ---- the index is thrown away

before=$(lists a)
stop a
[[ -d $WORK/a/db ]] || fail "A has no db/ to throw away"
rm -rf "$WORK/a/db"
serve a
same "root of A without db/" "$root" "$(sampan a root)"
same "lists of A without db/" "$before" "$(lists a)"
pulls a :v1 "$v1"
pulls a :v2 "$v2"
say "A without db/: same root, lists and pulls"

before=$(lists b)
stop b
rm -rf "$WORK/b/db"
stop a
follow
same "lists of B without db/, A away" "$before" "$(lists b)"
pulls b :v1 "$v1"
pulls b :v2 "$v2"
say "B without db/ and without A: same lists and pulls"

# ---- B loses everything

stop b
rm -rf "$WORK/b"
follow
if digest_at b :v1 >/dev/null 2>&1; then fail "B has a tag from nowhere"; elif (($? == 124)); then fail "B hangs on a name that nobody publishes"; fi
serve a
eventually $MEET "B recovers when A comes" has b :latest "$v2"
pulls b :v1 "$v1"
say "B without data and without A answers at once that it has nothing, and recovers when A comes"

stop b
rm -rf "$WORK/b"
follow
eventually $MEET "B recovers while A runs" has b :latest "$v2"
pulls b :v1 "$v1"
pulls b :v2 "$v2"
say "B lost its data and recovered from A"

stop b
stop a
