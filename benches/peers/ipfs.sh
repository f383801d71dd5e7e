#!/usr/bin/env bash
# Sampan among IPFS peers on this machine, in one run; README.md says what is measured and how to read it. As root.
#
#   benches/peers/ipfs.sh [--rows fetch,resolve,delay] [--runs N] [--size MIB]
#   benches/peers/ipfs.sh --kubo /path/to/ipfs                 beside kubo too
#   SAMPAN=/path/to/sampan benches/peers/ipfs.sh               another binary than this tree's release build
set -euo pipefail
ROWS=fetch,resolve,delay RUNS=3 SIZE=1024 KUBO_BINARY=''
while (($#)); do
    case $1 in
        --rows) ROWS=$2 ;;
        --runs) RUNS=$2 ;;
        --size) SIZE=$2 ;;
        --kubo) KUBO_BINARY=$(realpath "$2") ;;
        *) echo "no option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
if [[ -z ${SAMPAN:-} ]]; then
    (cd "$(dirname "$0")/../.." && cargo build --quiet --locked --release)
    SAMPAN=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/release/sampan
fi
SAMPAN_TEST_KUBO=$KUBO_BINARY
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../../tests/outer/lib.sh"
# shellcheck source=tests/outer/ipfs/peer.sh
source "$ROOT/tests/outer/ipfs/peer.sh"

REPOSITORY=bench/image
NEWS=90       # seconds until a name is known
COUNT=50      # publications of row `resolve`
ONE_WAY=50    # milliseconds: half a round trip
SETTLE=2      # seconds after a fetch, so that what a node does behind it is counted

tools ip jq curl python3 gopeer
binary
lan s t x y
mkdir "$WORK/figures"

# figure NAME SERVER VALUE: one more of them; the median counts.
figure() { echo "$1"$'\t'"$2"$'\t'"$3" >>"$WORK/figures/all" && say "$2: $1 $3"; }

cpu() { awk -v ticks="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / ticks }' "/proc/${PIDS[$1]}/stat"; }

peak() { awk '/^VmHWM/ { print $2 / 1024 }' "/proc/${PIDS[$1]}/status"; }

minus() { awk "BEGIN { print $1 - $2 }"; }

# measured ROW SERVER SENDER RECEIVER COMMAND...
measured() {
    local row=$1 server=$2 sender=$3 receiver=$4 began before
    shift 4
    before=("$(cpu "$sender")" "$(cpu "$receiver")")
    for name in "$sender" "$receiver"; do echo 5 >"/proc/${PIDS[$name]}/clear_refs"; done
    began=$EPOCHREALTIME
    "$@" || fail "$row of $server: $*"
    figure "$row.wall" "$server" "$(minus "$EPOCHREALTIME" "$began")"
    sleep $SETTLE
    figure "$row.cpu_sender" "$server" "$(minus "$(cpu "$sender")" "${before[0]}")"
    figure "$row.cpu_receiver" "$server" "$(minus "$(cpu "$receiver")" "${before[1]}")"
    figure "$row.memory_sender" "$server" "$(peak "$sender")"
    figure "$row.memory_receiver" "$server" "$(peak "$receiver")"
}

shows() { inside "$1" curl -fsSI "127.0.0.1:5000/v2/$REPOSITORY/manifests/$2" >/dev/null; }

image() { inside "$1" python3 "$ROOT/tests/outer/ipfs/image.py" "${@:2}"; }

ask_ipfs() { inside "$1" python3 "$ROOT/benches/peers/ipfs.py" "${@:2}"; }

pull() { inside "$1" curl -fsS -o /dev/null "127.0.0.1:5000/v2/$REPOSITORY/blobs/$layer"; }

gone() {
    if is_there "$1"; then stop "$1"; fi
    rm -rf "${WORK:?}/$1"
}

is_there() { [[ -n ${PIDS[$1]:-} ]]; }

# A layer on s; each turn of it goes from one to the next: s to t, s to x, x to t, x to y.
fetch() {
    local layer turn kind
    head -c "${SIZE}M" /dev/urandom >"$WORK/layer"
    layer=sha256:$(sha256sum "$WORK/layer" | cut -d ' ' -f 1)
    serve s
    image s push 127.0.0.1:5000 $REPOSITORY v1 "$WORK/layer" >/dev/null
    rm "$WORK/layer"
    eventually 10 "the tag is in the root" sampan s ls "docker/registry/v2/repositories/$REPOSITORY/_manifests/tags/v1"
    for ((turn = 0; turn < RUNS; turn++)); do
        is_there s || serve s
        serve t --follow "$(sampan s name)"
        eventually $NEWS "the follower has the tag" shows t v1
        measured fetch Sampan s t pull t
        gone t
        for kind in go ${KUBO:+kubo}; do fetch_with "$kind"; done
    done
    gone s
}

fetch_with() {
    local server=kubo name root
    [[ $1 == go ]] && server="Go peer"
    is_there s || serve s
    root=$(sampan s root)
    peer x "$1" nodht pubsub repo
    meet x s
    measured "to_$1" Sampan s x pin x "$root"
    name=$(publish x "$root")
    stop s
    serve t --follow "$name"
    meet x t
    eventually $NEWS "the follower of a $server has the tag" shows t v1
    measured "from_$1" Sampan x t pull t
    gone t
    peer y "$1" nodht pubsub repo
    meet y x
    measured fetch "$server" x y pin y "$root"
    crash x
    crash y
    rm -rf "${WORK:?}"/{x,y}.*
}

resolve() {
    local name times
    serve s
    name=$(sampan s name)
    serve t --follow "$name"
    eventually $NEWS "the follower knows its publisher" knows_sampan
    figure resolve.follow Sampan "$(inside s python3 "$ROOT/tests/outer/latency.py" push 127.0.0.1:5000 $COUNT -- \
        nsenter --net="/run/netns/$(namespace_of t)" python3 "$ROOT/tests/outer/latency.py" watch 127.0.0.1:5000 |
        grep -o 'p50 [0-9.]*' | cut -d ' ' -f 2)"
    gone t
    local path kind flags
    for path in pubsub dht; do
        flags=""
        [[ $path == pubsub ]] && flags="nodht pubsub"
        for kind in go ${KUBO:+kubo}; do
            # shellcheck disable=SC2086 # words
            {
                peer x $kind $flags
                peer y $kind $flags
            }
            meet x s
            meet x y
            times=$(NAME=$name resolved s sampan 5000 x "$kind")
            figure "resolve.$path.$kind" Sampan "${times% *}"
            times=$(resolved x "$kind" 5001 y "$kind")
            figure "resolve.$path.$kind" "$([[ $kind == go ]] && echo "Go peer" || echo kubo)" "${times% *}"
            crash x
            crash y
            rm -rf "${WORK:?}"/{x,y}.*
        done
    done
    gone s
}

knows_sampan() { (($(status t .peers) > 0)); }

# resolved PUBLISHER KIND PORT RESOLVER KIND: median and 99th percentile, in milliseconds.
resolved() {
    ask_ipfs "$1" publish "$2" "127.0.0.1:$3" $COUNT -- nsenter --net="/run/netns/$(namespace_of "$4")" \
        python3 "$ROOT/benches/peers/ipfs.py" resolve "$5" 127.0.0.1:5001
}

# Two Sampans that reach each other through a proxy alone.
delay() {
    local turn took
    serve s --p2p /ip4/127.0.0.1/tcp/4001
    nsenter --net="/run/netns/$(namespace_of s)" python3 "$ROOT/benches/peers/ipfs.py" delay "$(ip_of s):4002" 127.0.0.1:4001 $ONE_WAY >"$WORK/proxy_of_s.log" 2>&1 &
    PIDS[proxy_of_s]=$!
    REGISTRY_IPFS_PEERS=/ip4/$(ip_of s)/tcp/4002/p2p/$(status s .peer_id) \
        serve t --p2p /ip4/127.0.0.1/tcp/4001 --follow "$(sampan s name)"
    for ((turn = 0; turn < 2 * RUNS + 1; turn++)); do
        head -c 8M /dev/urandom >"$WORK/layer"
        image s push 127.0.0.1:5000 $REPOSITORY "d$turn" "$WORK/layer" >/dev/null
        took=$(ask_ipfs t first 127.0.0.1:5000 $REPOSITORY "d$turn") || fail "d$turn: $took"
        figure delay.trips Sampan "$(awk "BEGIN { print $took / (2 * $ONE_WAY) }")"
    done
    crash proxy_of_s
    gone t
    gone s
}

for row in ${ROWS//,/ }; do $row; done
python3 "$ROOT/benches/peers/report.py" "$WORK/figures/all" "$WORK" Sampan="$SAMPAN" ${KUBO:+kubo="$KUBO"}
