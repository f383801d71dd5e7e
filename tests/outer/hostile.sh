#!/usr/bin/env bash
# Peers that mean no good against two Sampans, of which one fetches a layer from the other all the while: it must come,
# whole, not much later than undisturbed in the same run, and the memory of both stays under its bound. Who breaks a
# protocol is cut off. The attackers are gopeer's (tests/peers/hostile.go and bombs.go), eight keys for each of the two.
#
#   tests/outer/hostile.sh [KIND...]      as root; a kind may be several at once, as wants,slow
#   tests/outer/hostile.sh --full         each kind alone, with 256 MiB, and a log in docs/evidence
#
# s publishes and t follows; h are the hostile ones; x makes trees that cannot be walked to their end (kind `bombs`).
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/outer/ipfs/peer.sh
source "$ROOT/tests/outer/ipfs/peer.sh"

ALONE=(varints oversize halves garbage wants lists cids unasked large wrong streams slow records updates gossip topics kad finds bombs)
# shellcheck disable=SC2054 # the commas are part of the words
TOGETHER=(varints,oversize,garbage,lists,cids,wants halves unasked,large,wrong streams slow records,updates gossip,topics kad,finds bombs)
BOMBS=(wide deep repeated files hamt file)
CUT_OFF=(varints oversize garbage lists large) # what no honest peer does
SIZE=128       # MiB of the layer
ATTACK=5       # seconds that an attack goes on at least
ATTACKERS=8    # for each of the two
MEMORY=96      # MiB that a Sampan may have resident at its peak
NEWS=90        # seconds until a name is known
TRANSFER=120   # seconds within which the layer must come
SLOWER=3       # times as long as undisturbed that it may take, with GRACE for a machine that is busy with other things:
GRACE=3        # seconds
NICE=10        # of the attackers, which in the world have machines of their own
FULL=
REPOSITORY=harbour/boat

[[ ${1:-} == --full ]] && SIZE=256 ATTACK=30 FULL=1 && shift
if (($#)); then kinds=("$@"); elif [[ -n $FULL ]]; then kinds=("${ALONE[@]}"); else kinds=("${TOGETHER[@]}"); fi

tools ip jq curl python3 gopeer
binary
lan s t x h

image() {
    local name=$1
    shift
    inside "$name" python3 "$ROOT/tests/outer/ipfs/image.py" "$@"
}

peak() { echo $(($(awk '/VmHWM/ { print $2 }' "/proc/${PIDS[$1]}/status") / 1024)); }

shows() { [[ $(inside "$1" curl -fsSI "127.0.0.1:5000/v2/$REPOSITORY/manifests/$2" | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip') == "$3" ]]; }

# both: a publisher with the layer, and a follower that has nothing of it yet.
both() {
    serve s
    rm -rf "$WORK/t"
    serve t --follow "$name"
    eventually $NEWS "the tag of the publisher" shows t v1 "$digest"
}

# fetch: leaves the seconds in $took.
fetch() {
    local began=$EPOCHREALTIME
    timeout $TRANSFER nsenter --net="/run/netns/$(namespace_of t)" python3 "$ROOT/tests/outer/ipfs/image.py" pull 127.0.0.1:5000 $REPOSITORY v1 "$digest" ||
        fail "$kind: the layer does not come"
    took=$(jq -n "($EPOCHREALTIME - $began) * 1000 | round / 1000")
}

# attack KINDS
attack() {
    local address_s address_t
    address_s=$(address_of s) address_t=$(address_of t)
    in_background h nice -n $NICE env GOLOG_LOG_LEVEL=error gopeer -hostile "$1" -target "$address_s,$address_t" -name "$name" -layer "$layer" \
        -attackers $ATTACKERS -for "${ATTACK}s"
    eventually 10 "the attack $1 begins" grep -q up "$WORK/h.log"
}

# bombs: a name for each tree, all of which t follows, and asks its own gateway for.
bombs() {
    local form cid hostile
    peer x go
    meet x t
    for form in "${BOMBS[@]}"; do
        cid=$(ask x POST bomb "form=$form" | jq -r .cid)
        hostile=$(ask x POST name/publish "arg=$cid" "key=$form" | jq -r .name)
        sampan t follow add "$hostile" >/dev/null
        for _ in 1 2 3; do
            inside t curl -s --max-time $((ATTACK + 10)) -o /dev/null "127.0.0.1:5000/ipfs/$cid?format=car&dag-scope=all" &
            PIDS[car-$form-$RANDOM]=$!
        done
    done
}

# under KINDS: one round, and a line about it.
under() {
    local kind=$1 s t one
    both
    if [[ $kind == bombs ]]; then bombs; elif [[ $kind != none ]]; then attack "$kind"; fi
    fetch
    if [[ $kind == none ]]; then alone=$(jq -n "[$alone, $took] | max"); fi
    if [[ -n ${PIDS[h]:-} ]]; then
        wait "${PIDS[h]}" || fail "$kind: the attackers ended early"
        unset "PIDS[h]"
    elif [[ $kind == bombs ]]; then
        sleep $ATTACK
    fi
    s=$(peak s) t=$(peak t)
    {
        printf '%-40s %3d MiB and %3d MiB at the peak; the layer in %6.2f s, %4.1f x as long\n' "$kind" "$s" "$t" "$took" "$(jq -n "$took / $alone")"
        [[ $kind == none || $kind == bombs ]] || sed -n 's/^{/    {/p' "$WORK/h.log"
    } | tee -a "$WORK/report"
    for one in "${CUT_OFF[@]}"; do
        if [[ ,$kind, == *",$one,"* ]]; then jq -e '.reset + .cut + .turnedAway > 0' <(grep '^{' "$WORK/h.log") >/dev/null || fail "$kind: nobody is cut off"; fi
    done
    ((s < MEMORY && t < MEMORY)) || beyond+=("$kind")
    jq -en "$took <= $alone * $SLOWER + $GRACE" >/dev/null || late+=("$kind")
    for one in s t; do shows $one v1 "$digest" || fail "$kind: $one is not well afterwards"; done
    for one in "${!PIDS[@]}"; do
        case $one in s | t) stop "$one" ;; *) crash "$one" ;; esac
    done
}

head -c "${SIZE}M" /dev/urandom >"$WORK/layer"
serve s
digest=$(image s push 127.0.0.1:5000 $REPOSITORY v1 "$WORK/layer")
sum=$(sha256sum "$WORK/layer" | cut -d ' ' -f 1)
name=$(sampan s name)
blob=docker/registry/v2/blobs/sha256/${sum:0:2}/$sum
eventually 10 "the layer is in the root" sampan s ls "$blob"
layer=$(sampan s ls --json "$blob" | jq -r '.[] | select(.name == "data") | .cid')
stop s
beyond=() late=() alone=0
for _ in 1 2; do under none; done
for kind in "${kinds[@]}"; do under "$kind"; done
if [[ -n $FULL ]]; then record hostile <"$WORK/report" >/dev/null; fi
if ((${#beyond[@]})); then fail "more than $MEMORY MiB resident at the peak: ${beyond[*]}"; fi
if ((${#late[@]})); then fail "more than $SLOWER times as long as undisturbed, and $GRACE s: ${late[*]}"; fi
