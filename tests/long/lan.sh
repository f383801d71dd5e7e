#!/usr/bin/env bash
# Many machines on one LAN, each in a network namespace, with no configuration but the name that they follow. All find
# each other by mDNS, what is published on one is resolved on all, and while nodes are killed and started again none of
# those that stay grows. Prints a curve of memory for each that stays, and what an idle node costs.
#
#   tests/long/lan.sh [--nodes N] [--minutes M] [--idle I]    8 nodes, 3 minutes of churn, 0 minutes idle; as root
#   tests/long/lan.sh --full                                  16 nodes, 30 minutes, 10 idle, and a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/../outer/lib.sh"

NODES=8 MINUTES=3 IDLE=0 FULL=
MEET=90     # seconds until all have met: a few rounds of mDNS, which has no retry of its own
NEWS=30     # seconds until a tag is known everywhere
SAMPLE=10   # seconds between two looks at the memory
PEAK_KIB=$((96 * 1024))   # what a node may ever hold
GROWTH_KIB=$((8 * 1024))  # what the second half of the run may need above the first: caches fill, leaks go on
IDLE_CPU=1  # percent of one core that an idle node may take

while (($#)); do
    case $1 in
        --nodes) NODES=$2 && shift 2 ;;
        --minutes) MINUTES=$2 && shift 2 ;;
        --idle) IDLE=$2 && shift 2 ;;
        --full) NODES=16 MINUTES=30 IDLE=10 FULL=1 && shift ;;
        *) fail "unknown: $1" ;;
    esac
done
# Two publish and watch, the rest come and go.
((NODES >= 4)) || fail "--nodes must be at least 4"

tools ip crane jq curl
binary
ALL=()
for ((number = 1; number <= NODES; number++)); do ALL+=("n$number"); done
STAY=("${ALL[@]:0:$((NODES / 2))}")
CHURN=("${ALL[@]:$((NODES / 2))}")
lan "${ALL[@]}"

knows_all() { (($(sampan "$1" peers --json | jq 'length') >= NODES - 1)); }
has_tag() { inside "$1" crane digest --insecure "127.0.0.1:5000/fleet:$2"; }
# What it has for itself; pages of the program's file, which come as it is used, are not counted.
own() { awk '/^RssAnon/ { print $2 }' "/proc/${PIDS[$1]}/status"; }
peak() { awk '/^VmHWM/ { print $2 }' "/proc/${PIDS[$1]}/status"; }
resident() { awk '/^VmRSS/ { print $2 }' "/proc/${PIDS[$1]}/status"; }
ticks() { awk '{ print $14 + $15 }' "/proc/${PIDS[$1]}/stat"; }
received() { inside "$1" cat /proc/net/dev | awk '/eth0:/ { print $2 }'; }
transmitted() { inside "$1" cat /proc/net/dev | awk '/eth0:/ { print $10 }'; }

# publish TAG
publish() {
    head -c 65536 /dev/urandom >"$WORK/bytes"
    tar -C "$WORK" -cf "$WORK/layer.tar" bytes
    inside n1 crane append --insecure --oci-empty-base -f "$WORK/layer.tar" -t "127.0.0.1:5000/fleet:$1" \
        >/dev/null 2>"$WORK/crane.log" || fail "crane push of fleet:$1"
}

# largest FROM TO FILE: the largest of these lines.
largest() { sed -n "$1,$2p" "$3" | sort -n | tail -1; }

run() {
    local name other round=0 lines half before after deadline began
    serve n1
    for name in "${ALL[@]:1}"; do serve "$name" --follow "$(sampan n1 name)"; done
    began=$SECONDS
    for name in "${ALL[@]}"; do eventually $MEET "$name meets all others" knows_all "$name"; done
    say "$NODES nodes know each other after $((SECONDS - began)) s"
    publish first
    for name in "${ALL[@]}"; do eventually $NEWS "$name has the first tag" has_tag "$name" first; done
    say "the name of one is resolved on all"

    if ((IDLE > 0)); then
        declare -A cpu=() in=() out=()
        for name in "${STAY[@]}"; do
            cpu[$name]=$(ticks "$name") in[$name]=$(received "$name") out[$name]=$(transmitted "$name")
        done
        sleep $((IDLE * 60))
        for name in "${STAY[@]}"; do
            after=$(jq -n "($(ticks "$name") - ${cpu[$name]}) / $(getconf CLK_TCK) / ($IDLE * 60) * 10000 | round / 100")
            say "idle $IDLE min: $name $after % of a core, $(($(received "$name") - in[$name])) B in," \
                "$(($(transmitted "$name") - out[$name])) B out, $(resident "$name") KiB"
            [[ $(jq -n "$after < $IDLE_CPU") == true ]] || fail "$name is not idle: $after % of a core"
        done
    fi

    ((MINUTES > 0)) || return 0
    deadline=$((SECONDS + MINUTES * 60))
    while ((SECONDS < deadline)); do
        other=${CHURN[$((round % ${#CHURN[@]}))]}
        if ((round % 2)); then stop "$other"; else crash "$other"; fi
        publish "r$round"
        for name in "${STAY[@]}"; do own "$name" >>"$WORK/$name.memory"; done
        sleep $SAMPLE
        serve "$other" --follow "$(sampan n1 name)"
        eventually $NEWS "$other has what was published while it was away" has_tag "$other" "r$round"
        round=$((round + 1))
    done
    for name in "${ALL[@]}"; do
        eventually $MEET "$name meets all others again" knows_all "$name"
        eventually $NEWS "$name has the last tag" has_tag "$name" "r$((round - 1))"
    done
    say "$round nodes came and went"

    for name in "${STAY[@]}"; do
        lines=$(wc -l <"$WORK/$name.memory")
        half=$((lines / 2))
        say "$name, $(resident "$name") KiB resident, own memory: $(paste -sd ' ' "$WORK/$name.memory")"
        before=$(largest 1 $half "$WORK/$name.memory") after=$(largest $((half + 1)) "$lines" "$WORK/$name.memory")
        (($(peak "$name") <= PEAK_KIB)) || fail "$name held $(peak "$name") KiB"
        ((after <= before + GROWTH_KIB)) || fail "$name grows: $before KiB at most in the first half, then $after KiB"
    done
}

if [[ $FULL ]]; then run 2>&1 | record many-on-a-lan; else run; fi
