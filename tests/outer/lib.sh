# Shared by the outer tests: source it first. It gives a work folder that goes away at the end with every process,
# namespace and mount that was made through it, and the words that the tests are written in.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH=$ROOT/tests/.cache/bin:$PATH PYTHONDONTWRITEBYTECODE=1
TEST=$(basename "$0")
WORK=$(mktemp -d "${TMPDIR:-/tmp}/sampan-${TEST%.*}.XXXXXX")

# How long a server may take from its start to its first answer, and from SIGTERM to its end (seconds).
READY=20
STOP=20

declare -A PIDS=()   # what to kill: name -> process
NAMESPACES=()        # what to delete

# ---- words

say() { printf '%s: %s\n' "$TEST" "$*"; }

fail() {
    printf '%s: FAILED: %s\n' "$TEST" "$*" >&2
    local log
    for log in "$WORK"/*.log; do
        [[ -s $log ]] && printf -- '--- end of %s\n' "${log##*/}" >&2 && tail -n 6 "$log" | cut -c 1-200 >&2
    done
    exit 1
}

# same WHAT EXPECTED ACTUAL
same() { [[ $2 == "$3" ]] || fail "$1: expected '$2', got '$3'"; }

# eventually SECONDS WHAT COMMAND...: tries until the command succeeds.
eventually() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "not in time: $what"
        sleep 0.05
    done
}

# ---- tools and the binary under test

tools() { "$ROOT/tests/outer/install.sh" "$@" || fail "cannot install: $*"; }

as_root() { ((EUID == 0)) || fail "needs root: $1"; }

# The binary under test: $SAMPAN, else a fast build of this tree.
binary() {
    if [[ -z ${SAMPAN:-} ]]; then
        (cd "$ROOT" && cargo build --quiet --locked --profile fast)
        SAMPAN=${CARGO_TARGET_DIR:-$ROOT/target}/fast/sampan
    fi
    SAMPAN=$(realpath "$SAMPAN")
    [[ -x $SAMPAN ]] || fail "no binary at $SAMPAN"
    export SAMPAN
}

# ---- running nodes

# Each node NAME has its data in $WORK/NAME and its log in $WORK/NAME.log; where a namespace of that name was made
# with `lan`, the node runs in it, on the default ports. Without one, say its ports:
#   serve NAME [--addr 127.0.0.1:5001 --p2p /ip4/127.0.0.1/tcp/4002] [other flags of sampan serve]
serve() {
    local name=$1 address=127.0.0.1:5000 deadline=$((SECONDS + READY)) prefix=() previous='' word
    shift
    for word in "$@"; do
        [[ $previous == --addr ]] && address=$word
        previous=$word
    done
    has_namespace "$name" && prefix=(nsenter --net="/run/netns/$(namespace_of "$name")")
    "${prefix[@]}" "$SAMPAN" serve --data "$WORK/$name" "$@" >>"$WORK/$name.log" 2>&1 &
    PIDS[$name]=$!
    until inside "$name" curl -fs --max-time 2 -o "$WORK/answer" "http://$address/v2/"; do
        kill -0 "${PIDS[$name]}" 2>/dev/null || fail "$name ended while it started"
        ((SECONDS < deadline)) || fail "$name did not answer within $READY s"
        sleep 0.02
    done
}

# stop NAME: in order; its exit status must be 0.
stop() {
    local pid=${PIDS[$1]} status=0
    kill -TERM "$pid"
    eventually $STOP "$1 stops" ended "$pid"
    wait "$pid" || status=$?
    unset "PIDS[$1]"
    same "exit status of $1" 0 $status
}

# crash NAME: kill -9.
crash() {
    { kill -KILL "${PIDS[$1]}" && wait "${PIDS[$1]}"; } 2>/dev/null || true
    unset "PIDS[$1]"
}

ended() { [[ ! -e /proc/$1 || $(cut -d ' ' -f 3 "/proc/$1/stat") == Z ]]; }

# sampan NAME COMMAND...: the command line on a node's data.
sampan() {
    local name=$1 command=$2
    shift 2
    timeout 20 "$SAMPAN" "$command" --data "$WORK/$name" "$@"
}

# status NAME JQ-FILTER
status() { sampan "$1" status --json | jq -r "$2"; }

# ---- a LAN of namespaces: one bridge, no route out, no DNS

# lan NAME...: a namespace for each, 10.77.0.N/24 on its eth0.
lan() {
    as_root "network namespaces"
    local switch name number=0
    switch=$(namespace_of switch)
    add_namespace "$switch"
    ip -n "$switch" link add bridge type bridge mcast_snooping 0
    ip -n "$switch" link set bridge up
    for name in "$@"; do
        number=$((number + 1))
        local space
        space=$(namespace_of "$name")
        add_namespace "$space"
        ip -n "$space" link add eth0 type veth peer name "port$number" netns "$switch"
        ip -n "$switch" link set "port$number" master bridge up
        ip -n "$space" address add "10.77.0.$number/24" dev eth0
        ip -n "$space" link set lo up
        ip -n "$space" link set eth0 up
    done
}

namespace_of() { echo "sampan-$$-$1"; }

add_namespace() {
    ip netns add "$1"
    NAMESPACES+=("$1")
}

has_namespace() { [[ -e /run/netns/$(namespace_of "$1") ]]; }

# inside NAME COMMAND...: in that node's namespace, if it has one.
inside() {
    local name=$1
    shift
    if has_namespace "$name"; then
        nsenter --net="/run/netns/$(namespace_of "$name")" "$@"
    else
        "$@"
    fi
}

# ---- long runs

# record NAME: copies what it reads to stdout and into a dated log in docs/evidence.
record() {
    local log
    log=$ROOT/docs/evidence/$(date -u +%F)-$1.txt
    { echo "$(date -u +%FT%TZ) $("$SAMPAN" --version 2>/dev/null) on $(nproc) cores, Linux $(uname -r | cut -d - -f 1)" && cat; } | tee -a "$log"
}

# ---- the end

finish() {
    local status=$? name
    set +e
    {
        for name in "${!PIDS[@]}"; do kill -KILL "${PIDS[$name]}"; done
        # Those that a part of a pipe has started are known to that part alone.
        pkill -KILL -f "serve --data $WORK/"
        wait
    } 2>/dev/null
    # Whatever is still mounted below the work folder, last one first.
    findmnt --raw --noheadings --output TARGET | grep "^$WORK/" | tac | xargs --no-run-if-empty umount
    for name in "${NAMESPACES[@]}"; do
        ip netns delete "$name"
    done
    if [[ -n ${KEEP:-} ]]; then say "kept $WORK"; else rm -rf --one-file-system "$WORK"; fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM
