#!/usr/bin/env bash
# Installs what the outer tests need, each thing once: Go programs at a pinned version, the peer of tests/peers and
# cargo-deny into tests/.cache/bin, everything else as Debian packages, and only what is missing.
#
#   tests/outer/install.sh              everything that tests/run uses
#   tests/outer/install.sh crane jq     only these (a tool's name, as in the lists below)
set -euo pipefail

CACHE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.cache

# A Go program: its command, module and version.
go_tool() {
    case $1 in
        crane) echo github.com/google/go-containerregistry/cmd/crane v0.22.1 ;;
        conformance) echo github.com/opencontainers/distribution-spec/conformance v0.0.0-20260831232431-97274622c111 ;;
        registry) echo github.com/distribution/distribution/v3/cmd/registry v3.1.2 ;;
        regctl) echo github.com/regclient/regclient/cmd/regctl v0.11.7 ;;
        oras) echo oras.land/oras/cmd/oras v1.3.6 ;;
        helm) echo helm.sh/helm/v4/cmd/helm v4.3.1 ;;
        cosign) echo github.com/sigstore/cosign/v3/cmd/cosign v3.1.3 ;;
        *) return 1 ;;
    esac
}

# A Debian package: the package that brings the command.
debian_package() {
    case $1 in
        dockerd) echo docker.io ;;
        ip) echo iproute2 ;;
        nginx) echo nginx-light ;;
        mkfs.ext4) echo e2fsprogs ;;
        ctr) echo containerd ;;
        htpasswd) echo apache2-utils ;;
        c++) echo g++ ;; # libFuzzer is written in it
        iptables | podman | buildah | skopeo | openssl | python3 | curl | jq | wrk | shellcheck) echo "$1" ;;
        *) return 1 ;;
    esac
}

# Programs of Rust, with their versions.
CARGO_DENY=0.20.2
CARGO_FUZZ=0.13.2

install_go() {
    local name=$1 module=$2 version=$3 stamp=$CACHE/bin/.$1-$3
    [[ -x $CACHE/bin/$name && -e $stamp ]] && return
    echo "installing $name $version"
    GOBIN=$CACHE/bin GOFLAGS=-buildvcs=false nice -n 5 go install -p 2 -ldflags '-s -w' "$module@$version"
    touch "$stamp"
}

install_cargo() {
    local name=$1 version=$2
    [[ -x $CACHE/bin/$name ]] && "$CACHE/bin/$name" --version | grep -qF " $version" && return
    echo "installing $name $version"
    nice cargo install --quiet --locked --root "$CACHE" --version "$version" "$name"
}

install_debian() {
    (($#)) || return 0
    echo "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# The IPFS peer of tests/peers, again when its source has changed.
install_peer() {
    local source=$CACHE/../peers
    [[ -x $CACHE/bin/gopeer && -z $(find "$source" -newer "$CACHE/bin/gopeer" -type f) ]] && return
    echo "building gopeer"
    (cd "$source" && GOFLAGS=-buildvcs=false nice -n 5 go build -p 2 -ldflags '-s -w' -o "$CACHE/bin/gopeer" .)
    touch "$CACHE/bin/gopeer"
}

mkdir -p "$CACHE/bin"
(($#)) || set -- gopeer crane regctl oras helm cosign conformance registry cargo-deny cargo-fuzz c++ dockerd ctr iptables podman buildah skopeo openssl htpasswd ip mkfs.ext4 jq curl python3 shellcheck
missing=()
for tool in "$@"; do
    if [[ $tool == cargo-deny ]]; then
        install_cargo cargo-deny "$CARGO_DENY"
    elif [[ $tool == cargo-fuzz ]]; then
        install_cargo cargo-fuzz "$CARGO_FUZZ"
    elif [[ $tool == gopeer ]]; then
        install_peer
    elif pin=$(go_tool "$tool"); then
        # shellcheck disable=SC2086 # two words: the module and its version
        install_go "$tool" $pin
    elif package=$(debian_package "$tool"); then
        command -v "$tool" >/dev/null || missing+=("$package")
    else
        echo "install.sh knows no tool named $tool" >&2
        exit 2
    fi
done
install_debian "${missing[@]}"
