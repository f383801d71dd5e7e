#!/usr/bin/env bash
# Ten clients, each with all that it can do with a registry: a table of client by duty, in which every cell must be ok.
#
#   tests/outer/matrix.sh [CLIENT...]        all clients, or these; as root
#   OF=distribution tests/outer/matrix.sh    the same against CNCF Distribution, which shows that a test is right
#
# It runs in namespaces of its own, on a LAN that is one machine: no network, a hosts file that knows harbour.lan, and
# an /etc/docker of its own. Three registries are up: one behind TLS and passwords, one that is open, on loopback
# without TLS, to copy to and from, and one behind TLS from which everybody pulls and to which only users push.
#
# What a client does stands in tests/outer/matrix/CLIENT.sh, one function for each duty: `docker_push`, `docker_pull`.
# What it cannot do it says with `cannot CLIENT DUTY REASON`; what is neither is an error.
set -euo pipefail

if [[ -z ${ALONE:-} ]]; then
    "$(dirname "$0")/install.sh" dockerd ctr iptables podman buildah skopeo crane regctl oras helm cosign openssl htpasswd curl jq python3
    ALONE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi

# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/outer/registries.sh
source "$(dirname "$0")/registries.sh"

CLIENTS=(docker ctr podman buildah skopeo crane regctl oras helm cosign)
DUTIES=(wrong login push pull index copy list delete artifact sign resume)
[[ ${OF:-sampan} == distribution ]] || DUTIES+=(sha512) # Distribution has no manifests of SHA-512
DUTIES+=(anonymous) # the last one: it forgets what the client logged in with
PATIENCE=60 # seconds for one cell; the slowest takes five

SAFE=harbour.lan:5443   # TLS, and nobody comes in without a password
MIXED=harbour.lan:5444  # TLS; everybody pulls, users push
OPEN=127.0.0.1:5000     # no TLS, no passwords
CUTTING=127.0.0.1:5009  # the open one, but the connection breaks in the middle of each layer

declare -A CANNOT=() RESULT=()
cannot() { CANNOT[$1.$2]=$3; }

# shellcheck source=/dev/null
for client in "${CLIENTS[@]}"; do source "$ROOT/tests/outer/matrix/$client.sh"; done

# ---- words for the cells

# The digest of what a registry has under a reference, by a client that has the password; the yardstick for the others.
digest_of() { DOCKER_CONFIG=$WORK/yardstick crane digest --insecure "$1"; }

# config_of REFERENCE: the digest of its configuration, which stays when a client compresses layers anew.
config_of() { DOCKER_CONFIG=$WORK/yardstick crane manifest --insecure "$1" | jq -r .config.digest; }

# children REFERENCE: the digests of the images in an index.
children() { DOCKER_CONFIG=$WORK/yardstick crane manifest --insecure "$1" | jq -r '.manifests[].digest' | sort; }

# refused COMMAND...: it fails, and says that the registry wants another password, and nothing about anything else.
refused() {
    local said
    if said=$(set +x && "$@" 2>&1 </dev/null); then fail "was not refused: $*"; fi
    grep -qiE '\<401\>|unauthori[sz]ed|authorization failed|authentication required|invalid username/password|denied|no basic auth|incorrect username' <<<"$said" ||
        fail "was refused for another reason: $said"
}

# has_tls REGISTRY...: `true` or `false`, for --tls-verify.
has_tls() { if [[ $1 == 127.* ]]; then echo false; else echo true; fi; }

# gone REFERENCE: the registry does not have it.
gone() { if digest_of "$1" 2>/dev/null; then fail "$1 is still there"; fi; }

# resumed CLIENT: the proxy cut its layer, and the client went on from where it was.
resumed() {
    grep -q "^cut /v2/$1/long/" "$WORK/cuts" || fail "the proxy did not cut"
    grep -q "^resumed /v2/$1/long/" "$WORK/cuts" || fail "$1 began again"
}

# anonymous_rules PULL PUSH LOGIN: how a client that has not logged in meets the registry from which everybody pulls.
# PULL must work before LOGIN, PUSH only after it; each is a function of the client. A wrong password is worse than none.
anonymous_rules() {
    "${CLIENT}_wrong" "$MIXED"
    rm -f "$DOCKER_CONFIG/config.json" # some store what they never tried
    "$1"
    refused "$2"
    "$3"
    "$2"
}

# ---- the table

# cell CLIENT DUTY: runs it in a process group of its own; its output is shown if it fails.
cell() {
    local name=$1.$2 began=$EPOCHREALTIME pid watcher
    export CLIENT=$1 HOME=$WORK/homes/$1 HERE=$WORK/cells/$name
    export DOCKER_CONFIG=$HOME/docker REGISTRY_AUTH_FILE=$HOME/auth.json TMPDIR=$HERE
    mkdir -p "$DOCKER_CONFIG" "$HERE"
    [[ -e $REGISTRY_AUTH_FILE ]] || echo '{}' >"$REGISTRY_AUTH_FILE"
    set -m
    (cd "$HERE" && set -x && short && "$1_$2") </dev/null >"$HERE.log" 2>&1 &
    pid=$!
    (sleep $PATIENCE && kill -KILL -- -$pid) &
    watcher=$!
    set +m
    if wait $pid; then RESULT[$name]=ok; else RESULT[$name]=FAIL; fi
    kill -KILL -- -$watcher 2>/dev/null
    wait $watcher 2>/dev/null || true
    printf '%-8s %-10s %-4s %5.1f s\n' "$1" "$2" "${RESULT[$name]}" "$(jq -n "$EPOCHREALTIME - $began")"
    [[ ${RESULT[$name]} == ok ]] || tail -n 12 "$HERE.log" | cut -c 1-600
}

# In a cell, failing says why and no more.
# shellcheck disable=SC2317 # the cells call it
short() { fail() { echo "FAILED: $*" && exit 1; }; }

row() {
    local duty
    printf '%-8s' "$1"
    for duty in "${DUTIES[@]}"; do printf ' %-*s' ${#duty} "${RESULT[$1.$duty]}"; done
    echo
}

# ---- the LAN and the registries

as_root "namespaces, dockerd and podman"
under_test
ip link set lo up
ip address add 10.77.0.1/32 dev lo
{ cat /etc/hosts && echo 10.77.0.1 harbour.lan; } >"$WORK/hosts"
mount --bind "$WORK/hosts" /etc/hosts
mkdir -p /etc/docker "$WORK/homes" "$WORK/cells" "$WORK/yardstick"
mount -t tmpfs tmpfs /etc/docker

authority
certificate harbour.lan 10.77.0.1
passwords
for address in $SAFE $MIXED; do
    mkdir -p "/etc/docker/certs.d/$address" # docker, podman, buildah and skopeo look there
    cp "$WORK/authority/ca.crt" "/etc/docker/certs.d/$address"
done
[[ $OF == sampan ]] || token_server harbour.lan:5445 tls
registry open $OPEN
registry safe $SAFE tls password
registry mixed $MIXED tls mixed
python3 "$ROOT/tests/outer/cutting_proxy.py" $CUTTING $OPEN >"$WORK/cuts" 2>"$WORK/proxy.log" &
PIDS[proxy]=$!
eventually $READY "the proxy listens" curl -fs "http://$CUTTING/v2/"

# SSL_CERT_FILE is for the clients that are asked no questions: crane, cosign.
export SSL_CERT_FILE=$WORK/authority/ca.crt
CA=$WORK/authority/ca.crt

DOCKER_CONFIG=$WORK/yardstick crane auth login -u "$USERNAME" -p "$PASSWORD" $SAFE 2>/dev/null
DOCKER_CONFIG=$WORK/yardstick crane auth login -u "$USERNAME" -p "$PASSWORD" $MIXED 2>/dev/null

# ---- the image: for two platforms, with a layer of 8 MiB that they share

head -c 8M /dev/urandom >"$WORK/cargo"
tar -C "$WORK" -cf "$WORK/cargo.tar" cargo
yard() { DOCKER_CONFIG=$WORK/yardstick crane "$@" --insecure >/dev/null 2>"$WORK/yardstick.log" || fail "crane $*"; }
for architecture in amd64 arm64; do
    echo "$architecture" >"$WORK/says"
    tar -C "$WORK" -cf "$WORK/says.tar" says
    yard append --oci-empty-base -f "$WORK/cargo.tar" -f "$WORK/says.tar" -t $OPEN/seed/boat:$architecture
    yard mutate --set-platform linux/$architecture -t $OPEN/seed/boat:$architecture $OPEN/seed/boat:$architecture
done
yard tag $OPEN/seed/boat:amd64 v1
yard index append -m $OPEN/seed/boat:amd64 -m $OPEN/seed/boat:arm64 -t $OPEN/seed/boat:both
for tag in v1 amd64 arm64 both; do
    for registry in $SAFE $MIXED; do yard copy $OPEN/seed/boat:$tag "$registry/seed/boat:$tag"; done
done
V1=$(digest_of $OPEN/seed/boat:v1)
BOTH=$(digest_of $OPEN/seed/boat:both)
CONFIG=$(config_of $OPEN/seed/boat:v1)
LAYER=$(crane manifest --insecure $OPEN/seed/boat:v1 | jq -r '.layers[0].digest')
for tag in v1 both; do
    oras cp --no-tty --from-plain-http $OPEN/seed/boat:$tag --to-oci-layout "$WORK/layout:$tag" >/dev/null 2>"$WORK/yardstick.log" || fail "oras makes no layout"
done
if [[ $OF == sampan ]]; then
    REGCTL_CONFIG=$WORK/yardstick/regctl.json DOCKER_CONFIG=$WORK/yardstick regctl image mod --digest-algo sha512 \
        --create $SAFE/seed/boat:sha512 "ocidir://$WORK/layout:v1" >/dev/null 2>"$WORK/yardstick.log" || fail "regctl makes no image of SHA-512"
fi
mkdir "$WORK/key"
echo -n "of oak" >"$WORK/key/passphrase"
(cd "$WORK/key" && COSIGN_PASSWORD=$(<passphrase) cosign generate-key-pair >/dev/null 2>"$WORK/yardstick.log") || fail "cosign makes no key"
export SAFE MIXED OPEN CUTTING CA V1 BOTH CONFIG LAYER WORK USERNAME PASSWORD

# ---- all cells

(($#)) && CLIENTS=("$@")
for client in "${CLIENTS[@]}"; do
    # What it deletes, and what it is cut off from.
    yard copy $OPEN/seed/boat:v1 "$SAFE/$client/gone:one"
    yard copy $OPEN/seed/boat:arm64 "$SAFE/$client/gone:two"
    yard copy $OPEN/seed/boat:v1 "$OPEN/$client/long:v1"
    if declare -F "${client}_begin" >/dev/null; then "${client}_begin"; fi
    for duty in "${DUTIES[@]}"; do
        if declare -F "${client}_$duty" >/dev/null; then
            cell "$client" "$duty"
        elif [[ -n ${CANNOT[$client.$duty]:-} ]]; then
            RESULT[$client.$duty]=-
        else
            fail "no cell for $client $duty, and no reason why"
        fi
    done
done

printf '%-8s %s\n' '' "${DUTIES[*]}"
for client in "${CLIENTS[@]}"; do row "$client"; done
for name in "${!CANNOT[@]}"; do [[ " ${CLIENTS[*]} " == *" ${name%.*} "* ]] && echo "${name/./ cannot }: ${CANNOT[$name]}"; done | sort
for name in "${!RESULT[@]}"; do [[ ${RESULT[$name]} != FAIL ]] || failed+=("$name"); done
[[ -z ${failed:-} ]] || fail "${#failed[@]} cells: ${failed[*]}"
for name in open safe mixed; do retire $name; done
