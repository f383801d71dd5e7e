#!/usr/bin/env bash
# Sampan among IPFS peers: what one side has or publishes the other fetches and resolves. The peers are made of kubo's
# own libraries (tests/peers), in network namespaces with the addresses of a LAN; no route out, no DNS.
#
#   tests/outer/ipfs.sh [--full] [SCENARIO...]      as root; --full with files of 1 GiB instead of 32 MiB
#   SAMPAN_TEST_KUBO=ipfs tests/outer/ipfs.sh       the same against a kubo binary; what only gopeer can do stays so
#
# s and t are Sampans, x, y and z are peers.
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/outer/ipfs/peer.sh
source "$ROOT/tests/outer/ipfs/peer.sh"

SCENARIOS=(a_peer_gets_pins_and_reads_from_sampan sampan_fetches_over_many_streams blocks_up_to_two_mebibytes words_of_bitswap
    older_versions_of_bitswap cids_are_those_of_the_go_importer names_over_the_dht names_over_pubsub names_over_fetch
    everything_over_http providers_on_the_lan providers_of_more_than_roots mdns_whoever_comes_first a_private_network the_tree_of_the_seed a_tree_in_the_form_of_the_seed
    a_peer_keeps_the_tree_of_a_sampan_that_is_gone a_tree_as_files_for_distribution)
SIZE=32 # MiB of a large file
NEWS=90 # seconds until a name or a peer is known: a look-up, a dial, the record, the directories
REPOSITORY=harbour/boat

[[ ${1:-} == --full ]] && SIZE=1024 && shift
(($#)) || set -- "${SCENARIOS[@]}"

tools ip jq curl python3 skopeo gopeer registry
binary
lan s t x y z

# ---- words

image() {
    local name=$1
    shift
    inside "$name" python3 "$ROOT/tests/outer/ipfs/image.py" "$@"
}

# bytes MIB FILE [MORE]: random bytes.
bytes() { head -c $(($1 * 1048576 + ${3:-0})) /dev/urandom >"$2"; }

# tree_of TAG FILE...: a registry's tree in $WORK/tree; leaves the digest in $digest.
tree_of() {
    rm -rf "$WORK/tree"
    digest=$(image x tree "$WORK/tree" $REPOSITORY "$@")
}

# push_to SAMPAN TAG FILE...: leaves the digest in $digest, and the root that has it in $root.
push_to() {
    digest=$(image "$1" push 127.0.0.1:5000 $REPOSITORY "${@:2}")
    eventually 10 "the tag of $2 is in the root" has_tag "$1" "$2"
    root=$(sampan "$1" root)
}

has_tag() { sampan "$1" ls "docker/registry/v2/repositories/$REPOSITORY/_manifests/tags" | grep -q "$2"; }

# pulls SAMPAN TAG DIGEST: every byte.
pulls() { image "$1" pull 127.0.0.1:5000 $REPOSITORY "$2" "$3" || fail "$1 does not serve $2"; }

shows() { [[ $(inside "$1" curl -fsSI "127.0.0.1:5000/v2/$REPOSITORY/manifests/$2" | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip') == "$3" ]]; }

# cid_of_blob SAMPAN DIGEST
cid_of_blob() {
    local hexadecimal=${2#sha256:}
    sampan "$1" ls --json "docker/registry/v2/blobs/sha256/${hexadecimal:0:2}/$hexadecimal" | jq -r '.[] | select(.name == "data") | .cid'
}

sum() { echo "sha256:$(sha256sum "$1" | cut -d ' ' -f 1)"; }

# same_file ONE OTHER WHAT
same_file() { cmp -s "$1" "$2" || fail "$3: other bytes"; }

# rest: everything ends; the next scenario begins with nothing.
rest() {
    local name
    for name in "${!PIDS[@]}"; do
        if [[ $name == s || $name == t ]]; then stop "$name"; else crash "$name"; fi
    done
    KINDS=()
    rm -rf "${WORK:?}"/*
}

# ---- notes on bitswap

a_peer_gets_pins_and_reads_from_sampan() {
    bytes $SIZE "$WORK/large"
    bytes 0 "$WORK/small" 700000
    serve s
    push_to s v1 "$WORK/large" "$WORK/small"
    local large small
    large=$(cid_of_blob s "$(sum "$WORK/large")")
    small=$(cid_of_blob s "$(sum "$WORK/small")")
    peer x
    meet x s
    block x "$small" >"$WORK/got" || fail "no block"
    same_file "$WORK/small" "$WORK/got" "block get"
    get x "$large" "$WORK/large.got" || fail "no large file"
    same_file "$WORK/large" "$WORK/large.got" "get of $SIZE MiB"
    # boxo gives a want up after twice the usual time, or 50 ms: on a busy machine that happens for no fault of Sampan's,
    # but not every time.
    local try
    for try in 1 2 3; do
        peer y
        meet y s
        pin y "$root" || fail "no pin of the whole root"
        ! on_time y || return 0
        crash y
        say "wants were given up in try $try"
    done
    fail "a peer gives up wants each time"
}

sampan_fetches_over_many_streams() {
    local name form
    for form in v1 v0; do
        bytes $SIZE "$WORK/large"
        tree_of v1 "$WORK/large"
        peer x $form
        serve s
        meet x s
        name=$(publish x "$(add x "$WORK/tree")")
        sampan s follow add "$name" >/dev/null
        eventually $NEWS "Sampan has the tag of a tree of $form" shows s v1 "$digest"
        pulls s v1 "$digest"
        rest
    done
}

blocks_up_to_two_mebibytes() {
    local extra size root
    peer x
    serve s
    meet x s
    for extra in 0 1; do
        bytes 2 "$WORK/block" $extra
        tree_of "v$extra" "$WORK/block"
        rm -r "$WORK/tree/docker/registry/v2/blobs/sha256/$(sum "$WORK/block" | cut -c 8-9)"
        size=$(sum "$WORK/block")
        root=$(add x "$WORK/tree")
        root=$(patch x "$root" "docker/registry/v2/blobs/sha256/${size:7:2}/${size:7}/data" "$(put_block x "$WORK/block")")
        sampan s follow add "$(publish x "$root")" >/dev/null 2>&1 || true
        eventually $NEWS "the tag v$extra" shows s "v$extra" "$digest"
        if ((extra == 0)); then
            pulls s v0 "$digest"
        elif image s pull 127.0.0.1:5000 $REPOSITORY v1 "$digest" 2>/dev/null; then
            fail "Sampan takes a block of 2 MiB and a byte"
        fi
    done
    shows s v1 "$digest" || fail "Sampan is not well after a block that is too large"
}

# said VERSION MESSAGE: z says it to s.
said() {
    printf '%s' "$2" >"$WORK/message"
    BODY=$WORK/message ask z POST wire "peer=$(status s .peer_id)" "version=$1" >/dev/null
}

# heard FILTER: of what z was told, as jq sees it.
heard() { ask z GET wire | jq -e "$1" >/dev/null; }

# raw_cid FILE: where it is one raw leaf.
raw_cid() { put_block y "$1"; }

words_of_bitswap() {
    local name
    declare -A cid=()
    for name in a b c d e f; do
        bytes 0 "$WORK/$name" 5000
    done
    peer y go # only to name blocks
    for name in a b c d e f; do cid[$name]=$(raw_cid "$WORK/$name"); done
    serve s
    push_to s v1 "$WORK/a"
    peer z go bitswap=wire
    meet z s
    said 1.2.0 '{"haves":["'"${cid[a]}"'","'"${cid[b]}"'"],"dontHave":true}'
    eventually 5 "HAVE for what is here" heard 'any(.[]; .haves | index("'"${cid[a]}"'"))'
    eventually 5 "DONT_HAVE for what is not" heard 'any(.[]; .dontHaves | index("'"${cid[b]}"'"))'
    said 1.2.0 '{"blocks":["'"${cid[a]}"'"]}'
    eventually 5 "the block" heard 'any(.[]; .blocks | index("'"${cid[a]}"'"))'
    push_to s v2 "$WORK/b"
    eventually 10 "a late HAVE" heard 'any(.[]; .haves | index("'"${cid[b]}"'"))'
    # A cancelled want is not answered; one that stands is, and comes after it.
    said 1.2.0 '{"haves":["'"${cid[c]}"'","'"${cid[d]}"'"]}'
    said 1.2.0 '{"cancels":["'"${cid[c]}"'"]}'
    push_to s v3 "$WORK/c"
    push_to s v4 "$WORK/d"
    eventually 10 "the want that stands" heard 'any(.[]; .haves | index("'"${cid[d]}"'"))'
    heard 'all(.[]; .haves | index("'"${cid[c]}"'") | not)' || fail "a cancelled want is answered"
    # A full list replaces what was wanted before.
    said 1.2.0 '{"haves":["'"${cid[e]}"'"]}'
    said 1.2.0 '{"full":true,"haves":["'"${cid[f]}"'"]}'
    push_to s v5 "$WORK/e"
    push_to s v6 "$WORK/f"
    eventually 10 "a want of the full list" heard 'any(.[]; .haves | index("'"${cid[f]}"'"))'
    heard 'all(.[]; .haves | index("'"${cid[e]}"'") | not)' || fail "a full list leaves older wants"
}

older_versions_of_bitswap() {
    local name version
    # 1.0.0 carries no CIDs with its blocks: its peers take them for CIDv0.
    for version in 1.1.0 1.0.0; do
        bytes 8 "$WORK/large"
        tree_of v1 "$WORK/large"
        peer x go v0 bitswap=$version
        serve s
        meet x s
        name=$(publish x "$(add x "$WORK/tree")")
        sampan s follow add "$name" >/dev/null
        eventually $NEWS "Sampan has the tag over bitswap $version" shows s v1 "$digest"
        pulls s v1 "$digest"
        root=$(status s '.follows[0].root')
        crash x
        peer y go bitswap=$version
        meet y s
        pin y "$root" || fail "a peer that speaks bitswap $version gets no tree from Sampan"
        rest
    done
}

# ---- the same CIDs

cids_are_those_of_the_go_importer() {
    local extra last tags size files=()
    for extra in 0 1; do
        bytes 0 "$WORK/none-$extra" $extra
        bytes 1 "$WORK/chunk-$extra" $extra
        files+=("$WORK/none-$extra" "$WORK/chunk-$extra")
        ((SIZE < 1024)) || { bytes 1024 "$WORK/row-$extra" $extra && files+=("$WORK/row-$extra"); }
    done
    serve s
    push_to s v1 "${files[@]}"
    peer x
    meet x s
    importer_agrees "files around the size of a leaf"
    for extra in 262144 262145; do
        digest=$(image s push 127.0.0.1:5000 "tags/of$extra" v1 "$WORK/none-1")
        last=$(image s tags 127.0.0.1:5000 "tags/of$extra" v1 $extra)
        REPOSITORY=tags/of$extra eventually 10 "the last tag is in the root" has_tag s "$last"
        importer_agrees "a directory of $extra bytes"
        tags=$(sampan s ls --json "docker/registry/v2/repositories/tags/of$extra/_manifests" | jq -r '.[] | select(.name == "tags") | .cid')
        size=$(block x "$tags" | wc -c)
        if ((extra == 262144)); then
            same "bytes of the directory of tags" 262144 "$size"
        else
            ((size < 30000)) || fail "a directory of $extra bytes is no HAMT but $size bytes"
        fi
    done
}

# importer_agrees WHAT: what Sampan's root holds, added as files, is that root again.
importer_agrees() {
    local root
    root=$(sampan s root)
    rm -rf "$WORK/got"
    get x "$root" "$WORK/got" || fail "the root cannot be got"
    same "$1, as the Go importer adds it" "$root" "$(add x "$WORK/got")"
}

# ---- names

# both_ways: x and s publish, and each resolves the other.
both_ways() {
    local name
    bytes 0 "$WORK/layer" 70000
    push_to s v1 "$WORK/layer"
    eventually $NEWS "the peer resolves Sampan's name" resolves x "$(sampan s name)" "$root"
    bytes 0 "$WORK/layer" 80000
    tree_of v2 "$WORK/layer"
    name=$(publish x "$(add x "$WORK/tree")")
    sampan s follow add "$name" >/dev/null
    eventually $NEWS "Sampan follows the peer's name" shows s v2 "$digest"
    pulls s v2 "$digest"
}

names_over_the_dht() {
    peer x
    serve s
    meet x s
    both_ways
}

names_over_pubsub() {
    local name
    peer x nodht pubsub
    serve s
    meet x s
    both_ways
    # What is published later comes by itself.
    name=$(sampan s name)
    push_to s v3 "$WORK/layer"
    eventually $NEWS "the peer hears of Sampan's new root" resolves x "$name" "$root"
}

names_over_fetch() {
    local answer
    bytes 0 "$WORK/layer" 70000
    serve s
    push_to s v1 "$WORK/layer"
    # It joins the topic after the record went by.
    peer x go nodht
    meet x s
    answer=$(ask x GET name/fetch "peer=$(status s .peer_id)" "arg=$(sampan s name)") || fail "fetch gives no record: $answer"
    same "what the fetched record says" "/ipfs/$root" "$(jq -r .path <<<"$answer")"
    peer y nodht pubsub
    meet y s
    eventually $NEWS "a peer that joins the topic late resolves the name" resolves y "$(sampan s name)" "$root"
}

# A peer that knows nothing but the URL of Sampan probes it, finds, resolves and fetches, and never speaks libp2p with it.
everything_over_http() {
    local large asked
    bytes $SIZE "$WORK/large"
    REGISTRY_LOG_ACCESSLOG_DISABLED=false serve s --addr 0.0.0.0:5000 --anonymous push
    push_to s v1 "$WORK/large"
    large=$(cid_of_blob s "$(sum "$WORK/large")")
    peer x "http=http://$(ip_of s):5000"
    eventually $NEWS "the peer resolves Sampan's name" resolves x "$(sampan s name)" "$root"
    eventually $NEWS "the peer finds Sampan as provider" provided x "$root"
    get x "$large" "$WORK/large.got" || fail "no large file"
    same_file "$WORK/large" "$WORK/large.got" "get of $SIZE MiB over HTTP"
    pin x "$root" || fail "no pin of the whole root over HTTP"
    for asked in "HEAD path=/ipfs/bafkqaaa" "GET path=/routing/v1/ipns/" "GET path=/routing/v1/providers/" "GET path=/ipfs/$large"; do
        grep -qF " request method=$asked" "$WORK/s.log" || fail "the peer never asked: $asked"
    done
    ! knows x "$(status s .peer_id)" || fail "the peer is connected by libp2p"
}

# ---- finding each other

providers_on_the_lan() {
    bytes 0 "$WORK/layer" 70000
    # In a chain: x never dials s.
    peer x
    peer y
    meet x y
    serve s
    meet y s
    push_to s v1 "$WORK/layer"
    eventually $NEWS "a peer finds Sampan as provider" provided x "$root" "$(address_of s)"
    # And the other way: only y knows that x has a tree's blocks.
    tree_of v2 "$WORK/layer"
    local cid name
    cid=$(add x "$WORK/tree")
    provide x "$cid"
    name=$(publish x "$cid")
    sampan s follow add "$name" >/dev/null
    eventually $NEWS "Sampan finds a provider" shows s v2 "$digest"
    pulls s v2 "$digest"
}

# Whoever knows a manifest or a repository and no root finds it too; layers are found through who has the manifest.
providers_of_more_than_roots() {
    local old new repository
    bytes 0 "$WORK/layer" 70000
    serve s
    push_to s v1 "$WORK/layer"
    old=$(cid_of_blob s "$digest")
    # In a chain: x never dials s, and asks y.
    peer x
    peer y
    meet x y
    meet y s
    eventually $NEWS "a peer finds who has a manifest that was there before it" provided x "$old"
    push_to s v2 "$WORK/layer"
    new=$(cid_of_blob s "$digest")
    eventually $NEWS "a peer finds who has a manifest that was pushed since" provided x "$new"
    repository=$(sampan s ls --json "docker/registry/v2/repositories/${REPOSITORY%/*}" | jq -r '.[] | select(.name == "boat") | .cid')
    eventually $NEWS "a peer finds who has a repository" provided x "$repository"
    # When s is gone nobody but its neighbour can say so: by the record that it was given.
    stop s
    provided x "$new" || fail "no peer keeps the record of a manifest's provider"
    ! provided x "$(cid_of_layer)" || fail "a layer is announced"
}

cid_of_layer() { put_block y "$WORK/layer"; }

# provided PEER CID ADDRESS
provided() { providers "$1" "$2" | grep -qF "$(ip_of s)"; }

# Whoever comes first. The peer connects to nobody, so that each is seen to find the other.
mdns_whoever_comes_first() {
    serve s
    peer x quiet
    eventually $NEWS "Sampan finds a peer that comes later" knows x "$(status s .peer_id)"
    eventually $NEWS "a peer that comes later finds Sampan" finds x "$(status s .peer_id)"
    stop s
    peer y quiet
    serve s
    eventually $NEWS "Sampan finds a peer that was there before it" knows y "$(status s .peer_id)"
    eventually $NEWS "a peer that was there before finds Sampan" finds y "$(status s .peer_id)"
}

# finds PEER ID: by multicast; a kubo does not say how
finds() { is_kubo "$1" || ask "$1" GET mdns | grep -q "$2"; }

a_private_network() {
    local key=$WORK/swarm.key
    printf '/key/swarm/psk/1.0.0/\n/base16/\n%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$key"
    mkdir -p "$WORK/s"
    chmod 700 "$WORK/s"
    install -m 600 "$key" "$WORK/s/swarm.key"
    serve s --network private
    peer x "key=$key"
    meet x s
    both_ways
    peer y
    if meet y s 2>/dev/null; then fail "a peer without the key is let in"; fi
}

# ---- trees of other registries

SEED=$ROOT/storage/tests/fixtures/seed
SEED_NAME=k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr
SEED_ROOT=QmcHyeFRftsLEqQXqqsvnwxeKPrPBratV5MC8jqbBgGbPT
SEED_DIGEST=sha256:fd6aa9848c585d528ee787ce741657ab9591d481c7e811582c019dc91e4ee933

the_tree_of_the_seed() {
    peer x go
    serve s --follow $SEED_NAME
    meet x s
    BODY=$SEED/tree.car ask x POST car >/dev/null || fail "the CAR cannot be imported"
    eventually $NEWS "the DHT takes the record" put_record x
    eventually $NEWS "Sampan follows the seed's name" shows_of foo/bar s v1 $SEED_DIGEST
    inside s skopeo copy --quiet --src-tls-verify=false docker://127.0.0.1:5000/foo/bar:v1 "dir:$WORK/pulled" >"$WORK/skopeo.log" 2>&1 ||
        fail "skopeo cannot pull the seed's image"
    same "digest of the seed's manifest" $SEED_DIGEST "$(sum "$WORK/pulled/manifest.json")"
    served_on $SEED_ROOT x
}

put_record() { BODY=$ROOT/node/tests/fixtures/tree.ipns-record ask "$1" POST name/put "arg=$SEED_NAME"; }

shows_of() { local REPOSITORY=$1 && shows "${@:2}"; }

# served_on ROOT PUBLISHER...: when these are gone, another peer gets the whole tree, by its own CIDs, from s alone.
served_on() {
    local name root=$1
    for name in "${@:2}"; do crash "$name"; done
    peer z
    meet z s
    pin z "$root" || fail "Sampan does not serve all of $root"
}

a_tree_in_the_form_of_the_seed() {
    bytes 3 "$WORK/layer" 12345
    tree_of v1 "$WORK/layer"
    peer x go
    # The form is the seed's: its own files become its own CIDs.
    BODY=$SEED/tree.car ask x POST car >/dev/null
    get x $SEED_ROOT "$WORK/seed"
    FORMS[x]=seed
    same "the seed's files in the seed's form" $SEED_ROOT "$(add x "$WORK/seed")"
    local cid name
    cid=$(add x "$WORK/tree")
    serve s
    meet x s
    name=$(publish x "$cid")
    sampan s follow add "$name" >/dev/null
    eventually $NEWS "Sampan has the tag" shows s v1 "$digest"
    pulls s v1 "$digest"
    served_on "$cid" x
}

a_peer_keeps_the_tree_of_a_sampan_that_is_gone() {
    local name
    bytes 4 "$WORK/layer" 4321
    serve s
    push_to s v1 "$WORK/layer"
    name=$(sampan s name)
    peer x
    peer y
    meet x s
    meet x y
    eventually $NEWS "the peer resolves Sampan's name" resolves x "$name" "$root"
    pin x "$root" || fail "the root cannot be pinned"
    provide x "$root"
    stop s
    # A chain: t knows y, y knows x, x has the tree; whose it is has gone.
    serve t --follow "$name"
    meet y t
    eventually $NEWS "a second Sampan has the tag" shows t v1 "$digest"
    pulls t v1 "$digest"
}

a_tree_as_files_for_distribution() {
    local tag
    declare -A digests=()
    serve s
    for tag in v1 v2 latest; do
        bytes 1 "$WORK/layer" $RANDOM
        push_to s $tag "$WORK/layer"
        digests[$tag]=$digest
    done
    peer x
    meet x s
    get x "$root" "$WORK/files" || fail "the root cannot be got"
    stop s
    printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:5000}\n' "$WORK/files" >"$WORK/y.yml"
    in_background y env OTEL_TRACES_EXPORTER=none registry serve "$WORK/y.yml"
    eventually $READY "Distribution listens" inside y curl -fsS 127.0.0.1:5000/v2/
    for tag in "${!digests[@]}"; do
        image y pull 127.0.0.1:5000 $REPOSITORY "$tag" "${digests[$tag]}" || fail "Distribution does not serve $tag"
    done
}

# ----

[[ -z $KUBO ]] || say "against $("$KUBO" version)"
for scenario in "$@"; do
    began=$SECONDS
    $scenario
    rest
    say "$scenario ($((SECONDS - began)) s)"
done
