# IPFS peers in namespaces, for tests that source lib.sh and then this: gopeer, which is built from tests/peers, or kubo
# where SAMPAN_TEST_KUBO names a binary. Each peer NAME runs in the namespace NAME and is asked over its control port.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # PIDS, WORK and ROOT are lib.sh's

KUBO=${SAMPAN_TEST_KUBO:+$(realpath "$SAMPAN_TEST_KUBO")}
UP=60 # seconds for a peer to start; kubo makes a repository first

declare -A FORMS=() # in which form a peer adds files: v0 (unixfs-v0-2015), v1 (unixfs-v1-2025)
declare -A KINDS=() # go or kubo

# peer NAME [WORD...]: starts one.
#   go                   gopeer in any case, for what only it can do
#   v0                   it adds in the form unixfs-v0-2015, not unixfs-v1-2025
#   pubsub               IPNS over pubsub
#   nodht                no DHT
#   repo                 its blocks lie on disk; kubo's always do
#   mdns | quiet         mDNS; quiet connects to nobody (gopeer only)
#   key=FILE             a swarm key
#   http=URL             an HTTP router instead of the DHT; blocks come over HTTP from who gives them so
#   bitswap=VERSIONS     what it speaks (gopeer only); bitswap=wire says what it is told to
peer() {
    local name=$1 word kind=go
    [[ -n $KUBO ]] && kind=kubo
    shift
    FORMS[$name]=v1
    for word in "$@"; do
        case $word in
            go) kind=go ;;
            v0) FORMS[$name]=v0 ;;
        esac
    done
    KINDS[$name]=$kind
    "start_$kind" "$name" "$@"
}

start_go() {
    local name=$1 word flags=()
    shift
    for word in "$@"; do
        case $word in
            pubsub) flags+=(-pubsub) ;;
            nodht) flags+=(-dht=false) ;;
            repo) flags+=(-repo "$WORK/$name.repo") ;;
            mdns) flags+=(-mdns on) ;;
            quiet) flags+=(-mdns quiet) ;;
            http=*) flags+=(-http "${word#*=}") ;;
            key=*) flags+=(-swarmkey "${word#*=}" -listen /ip4/0.0.0.0/tcp/4001) ;;
            bitswap=*) flags+=(-bitswap "${word#*=}") ;;
        esac
    done
    in_background "$name" env GOLOG_LOG_LEVEL=error,bitswap/client/msgq=info gopeer "${flags[@]}"
    eventually $UP "$name starts" ask "$name" GET id
}

start_kubo() {
    local name=$1 word profile=unixfs-v1-2025
    shift
    export IPFS_PATH=$WORK/$name.ipfs
    rm -rf "$IPFS_PATH"
    {
        "$KUBO" init --profile=test
        "$KUBO" config --json Addresses.Swarm '["/ip4/0.0.0.0/tcp/4001","/ip4/0.0.0.0/udp/4001/quic-v1"]'
        "$KUBO" config Addresses.API /ip4/127.0.0.1/tcp/5001
        "$KUBO" config Addresses.Gateway ''
        "$KUBO" config Routing.Type dht
        if [[ ${FORMS[$name]} == v0 ]]; then profile=unixfs-v0-2015; fi
        "$KUBO" config profile apply "$profile"
        for word in "$@"; do
            case $word in
                pubsub) "$KUBO" config --json Ipns.UsePubsub true ;;
                nodht) "$KUBO" config Routing.Type none ;;
                http=*)
                    "$KUBO" config Routing.Type delegated
                    "$KUBO" config --json Provide.Enabled false # kubo does not start else
                    "$KUBO" config --json Routing.DelegatedRouters "[\"${word#*=}\"]"
                    "$KUBO" config --json Ipns.DelegatedPublishers '[]'
                    "$KUBO" config --json AutoConf.Enabled false
                    "$KUBO" config --json DNS.Resolvers '{}'
                    "$KUBO" config --json Bootstrap '[]'
                    ;;
                mdns | quiet) "$KUBO" config --json Discovery.MDNS.Enabled true ;;
                key=*)
                    cp "${word#*=}" "$IPFS_PATH/swarm.key"
                    "$KUBO" config --json Addresses.Swarm '["/ip4/0.0.0.0/tcp/4001"]'
                    "$KUBO" config --json Swarm.Transports.Network.QUIC false
                    "$KUBO" config --json AutoTLS.Enabled false
                    ;;
            esac
        done
    } >"$WORK/$name.init.log" 2>&1 || fail "kubo takes no configuration"
    in_background "$name" env GOLOG_LOG_LEVEL=error,bitswap/client/msgq=info LIBP2P_TCP_MUX=false "$KUBO" daemon
    eventually $UP "$name starts" grep -q "Daemon is ready" "$WORK/$name.log"
}

# in_background NAME COMMAND...: in the namespace. The process that is noted is the command itself, not a shell around it.
in_background() {
    local name=$1
    shift
    nsenter --net="/run/netns/$(namespace_of "$name")" "$@" >"$WORK/$name.log" 2>&1 &
    PIDS["$name"]=$!
}

# ask NAME METHOD WORD [key=value...]: gopeer's control port. A body comes from the file $BODY.
ask() {
    local name=$1 method=$2 word=$3 pair data=()
    shift 3
    for pair in "$@"; do data+=(--data-urlencode "$pair"); done
    if [[ -n ${BODY:-} ]]; then
        local query=''
        for pair in "$@"; do query+="&${pair%%=*}=$(jq -rn --arg v "${pair#*=}" '$v|@uri')"; done
        inside "$name" curl -sS --fail-with-body -X "$method" --data-binary "@$BODY" "http://127.0.0.1:5001/$word?$query"
    else
        inside "$name" curl -sS --fail-with-body -X "$method" -G "${data[@]}" "http://127.0.0.1:5001/$word"
    fi
}

kubo() {
    local name=$1
    shift
    IPFS_PATH=$WORK/$name.ipfs inside "$name" timeout "${PATIENCE:-60}" "$KUBO" "$@"
}

is_kubo() { [[ ${KINDS[$1]} == kubo ]]; }

# ---- what a peer can be asked for, whichever it is

id_of() { if is_kubo "$1"; then kubo "$1" id -f '<id>'; else ask "$1" GET id | jq -r .id; fi; }

# address_of NAME: of a peer, or of a Sampan.
address_of() {
    local id
    if [[ -n ${KINDS[$1]:-} ]]; then id=$(id_of "$1"); else id=$(status "$1" .peer_id); fi
    echo "/ip4/$(ip_of "$1")/tcp/4001/p2p/$id"
}

ip_of() { inside "$1" ip -4 -o address show dev eth0 | grep -o '10\.77\.0\.[0-9]*' | head -1; }

# meet PEER OTHER: dials it.
meet() {
    local address
    address=$(address_of "$2")
    if is_kubo "$1"; then kubo "$1" swarm connect "$address" >/dev/null; else ask "$1" POST connect "addr=$address" >/dev/null; fi
}

# knows PEER ID: is connected to it.
knows() { if is_kubo "$1"; then kubo "$1" swarm peers | grep -q "$2"; else ask "$1" GET peers | grep -q "$2"; fi; }

# add PEER PATH [CHUNK]
add() {
    if is_kubo "$1"; then
        kubo "$1" add -rQH ${3:+--chunker=size-$3} "$2"
    else
        ask "$1" POST add "path=$2" "form=${FORMS[$1]}" "chunk=${3:-}" | jq -r .cid
    fi
}

# block PEER CID: its bytes, over the network where they are not there.
block() { if is_kubo "$1"; then kubo "$1" block get "$2"; else ask "$1" GET block "arg=$2"; fi; }

# put_block PEER FILE: as one raw block.
put_block() {
    if is_kubo "$1"; then
        kubo "$1" block put --allow-big-block --cid-codec=raw "$2"
    else
        BODY=$2 ask "$1" POST block | jq -r .cid
    fi
}

# patch PEER ROOT PATH CID: the root with that at the path.
patch() {
    if is_kubo "$1"; then
        kubo "$1" object patch add-link -p --allow-big-block "$2" "$3" "$4"
    else
        ask "$1" POST patch "root=$2" "path=$3" "arg=$4" | jq -r .cid
    fi
}

# pin PEER CID: the whole DAG comes.
pin() { if is_kubo "$1"; then PATIENCE=300 kubo "$1" pin add "$2" >/dev/null; else ask "$1" POST pin "arg=$2" timeout=300 >/dev/null; fi; }

# get PEER CID TO: as files and directories.
get() { if is_kubo "$1"; then kubo "$1" get -o "$3" "$2" >/dev/null 2>&1; else ask "$1" POST get "arg=$2" "to=$3" timeout=300 >/dev/null; fi; }

# publish PEER CID: under its own name, which it prints.
publish() {
    if is_kubo "$1"; then
        kubo "$1" name publish -Q "/ipfs/$2"
    else
        ask "$1" POST name/publish "arg=$2" | jq -r .name
    fi
}

# resolve PEER NAME: the CID.
resolve() {
    if is_kubo "$1"; then
        kubo "$1" name resolve --nocache --dht-timeout=5s "$2" | sed 's,^/ipfs/,,'
    else
        ask "$1" GET name/resolve "arg=$2" | jq -r .path | sed 's,^/ipfs/,,'
    fi
}

# resolves PEER NAME CID
resolves() { [[ $(resolve "$1" "$2") == "$3" ]]; }

provide() { if is_kubo "$1"; then kubo "$1" routing provide "$2" >/dev/null; else ask "$1" POST provide "arg=$2" >/dev/null; fi; }

# providers PEER CID: full addresses.
providers() {
    if is_kubo "$1"; then
        kubo "$1" routing findprovs -v "$2" 2>&1 || true
    else
        ask "$1" GET findprovs "arg=$2" timeout=5 | jq -r '.[]'
    fi
}

# on_time PEER: no want for a block was given up as unanswered.
on_time() { ! grep -q 'timeout waiting for blocks' "$WORK/$1.log"; }
