#!/usr/bin/env bash
# Followers that mirror the same name fetch from each other: the origin, whose uplink is capped, sends each byte about
# once, however many they are. A LAN of namespaces; the time of the last follower beside that of one transfer at the
# cap, and the bytes that each has sent.
#
#   tests/outer/swarm.sh [--followers N] [--mib N]    4 followers and 48 MiB if not said; as root
#   tests/outer/swarm.sh --full                       8 followers and 500 MiB, then the same with two killed half-way,
#                                                     with a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

RATE=100        # Mbit/s of the origin's uplink
MEET=30         # seconds until followers have found the origin and read its first root
FOLLOWERS=4 MIB=48

arguments=("$@")
while (($#)); do
    case $1 in
    --followers) FOLLOWERS=$2 && shift 2 ;;
    --mib) MIB=$2 && shift 2 ;;
    --full) FOLLOWERS=8 MIB=500 && shift ;;
    *) fail "unknown: $1" ;;
    esac
done

tools ip crane jq curl
binary
names=()
for ((n = 1; n <= FOLLOWERS; n++)); do names+=("f$n"); done
lan origin "${names[@]}"

# push TAG MIB: an image of two layers on the origin; leaves the digests of its layers in $layers.
push() {
    local part layer
    for part in 1 2; do
        head -c $(($2 * 1024 * 1024 * part / 3)) /dev/urandom >"$WORK/bytes"
        layer=$WORK/layer$part.tar
        tar -C "$WORK" -cf "$layer" bytes
    done
    rm "$WORK/bytes"
    inside origin crane append --insecure --oci-empty-base -f "$WORK/layer1.tar,$WORK/layer2.tar" \
        -t "127.0.0.1:5000/swarm/boat:$1" >/dev/null 2>"$WORK/crane.log" || fail "push: $(tail -1 "$WORK/crane.log")"
    rm "$WORK"/layer?.tar
    mapfile -t layers < <(inside origin crane manifest --insecure "127.0.0.1:5000/swarm/boat:$1" | jq -r '.layers[].digest[7:]')
}

# tell TEXT: also for the log of a full run.
tell() { say "$*" | tee -a "$WORK/report"; }

sent() { inside "$1" ip -s -j link show eth0 | jq '.[0].stats64.tx.bytes'; }

# has FOLLOWER: all layers lie whole on its disk.
has() {
    local layer
    for layer in "${layers[@]}"; do
        [[ -e $WORK/$1/blobs/sha256/${layer:0:2}/$layer ]] || return 1
    done
}

follow() {
    cat >"$WORK/$1.yml" <<YML
version: 0.1
ipfs:
  follow:
    - name: $NAME
      policy: mirror
YML
    serve "$1" --config "$WORK/$1.yml"
}

# spread TAG [KILLED...]: pushes, and waits until every follower has it. Some are killed half-way and come back at the end.
spread() {
    local tag=$1 name began took ideal before=() at=0 half bytes
    shift
    for name in origin "${names[@]}"; do before+=("$(sent "$name")"); done
    push "$tag" "$MIB"
    began=${EPOCHREALTIME/./}
    half=$((MIB * 8 * 1000000 / RATE / 2))
    local alive=("${names[@]}")
    if (($#)); then
        while ((${EPOCHREALTIME/./} - began < half)); do sleep 0.1; done
        for name in "$@"; do
            crash "$name"
            mapfile -t alive < <(printf '%s\n' "${alive[@]}" | grep -vx "$name")
        done
    fi
    for name in "${alive[@]}"; do eventually 600 "$name has all of $tag" has "$name"; done
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
    ideal=$((MIB * 1024 * 1024 * 8 / (RATE * 1000)))
    for name in origin "${names[@]}"; do
        bytes=$((($(sent "$name") - before[at]) >> 20))
        ((at > 0)) || origin_sent=$bytes
        [[ " $* " == *" $name "* ]] || tell "$name sent $bytes MiB"
        at=$((at + 1))
    done
    tell "$MIB MiB to ${#alive[@]} followers at $RATE Mbit/s${*:+, $* killed half-way}: the last had it after $took ms, $((took * 100 / ideal)) % of one transfer ($ideal ms)"
    for name in "$@"; do follow "$name"; done
    for name in "$@"; do eventually 600 "$name has all of $tag after its return" has "$name"; done
}

serve origin
NAME=$(sampan origin name)
inside origin tc qdisc add dev eth0 root tbf rate "${RATE}mbit" burst 256kb latency 100ms
for name in "${names[@]}"; do follow "$name"; done
push first 1
for name in "${names[@]}"; do eventually $MEET "$name mirrors the first image" has "$name"; done

spread big
# Without a swarm it were the image for each follower.
((origin_sent <= MIB * (FOLLOWERS + 1) / 2)) || fail "the followers do not fetch from each other"
inside f1 crane pull --insecure --format oci 127.0.0.1:5000/swarm/boat:big "$WORK/pulled" 2>"$WORK/crane.log" ||
    fail "f1 does not serve the image: $(tail -1 "$WORK/crane.log")"
rm -rf "$WORK/pulled"
if [[ " ${arguments[*]} " == *" --full "* ]]; then
    spread again f2 f5
    record swarm <"$WORK/report" >/dev/null
fi
say ok
