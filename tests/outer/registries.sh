# Registries with certificates, passwords and tokens, for tests that source lib.sh and then this.
#
# One configuration serves Sampan and CNCF Distribution, since the keys are the same: OF=distribution runs a test against
# Distribution. What passes there and not here is a fault of Sampan's; what fails in both is likely one of the test's.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2086,SC2004 # PIDS and READY are lib.sh's

OF=${OF:-sampan}
USERNAME=captain
PASSWORD='ahoy, s:kipper' # a space, a colon and a comma: all legal
SERVICE=harbour

# The registry under test, whichever it is.
under_test() {
    case $OF in
        sampan) binary ;;
        distribution) tools registry ;;
        *) fail "OF is sampan or distribution, not $OF" ;;
    esac
}

# ---- what they are guarded with

# authority: a certificate authority of our own, in $WORK/authority.
authority() {
    mkdir "$WORK/authority"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=authority of $TEST" \
        -addext keyUsage=critical,keyCertSign \
        -keyout "$WORK/authority/ca.key" -out "$WORK/authority/ca.crt" 2>"$WORK/openssl.log" || fail "openssl makes no authority"
}

# certificate NAME...: a certificate of the authority for these names and addresses, in $WORK/server.{crt,key}.
certificate() {
    local name names=''
    for name in "$@"; do
        if [[ $name =~ ^[0-9.]+$ ]]; then names+=,IP:$name; else names+=,DNS:$name; fi
    done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$WORK/server.key" \
        -out "$WORK/server.csr" 2>"$WORK/openssl.log" || fail "openssl makes no key"
    openssl x509 -req -in "$WORK/server.csr" -days 2 -CA "$WORK/authority/ca.crt" -CAkey "$WORK/authority/ca.key" \
        -CAcreateserial -out "$WORK/server.crt" 2>"$WORK/openssl.log" \
        -extfile <(echo "subjectAltName=${names#,}"; echo "extendedKeyUsage=serverAuth") || fail "openssl makes no certificate"
}

# passwords: $WORK/htpasswd knows $USERNAME. Cost 5 is bcrypt's lowest that is used anywhere: a request costs 2 ms.
passwords() { htpasswd -Bbn -C 5 "$USERNAME" "$PASSWORD" >"$WORK/htpasswd"; }

# token_server ADDRESS [tls]: see token_server.py; its jwks.json and token.crt are in $WORK/tokens.
token_server() {
    local scheme=http address=$1 tls=()
    [[ ${2:-} == tls ]] && scheme=https tls=("$WORK/server.crt" "$WORK/server.key")
    TOKEN_REALM=$scheme://$address/token
    mkdir "$WORK/tokens"
    python3 "$ROOT/tests/outer/token_server.py" "$WORK/tokens" "$address" "$SERVICE" "$USERNAME" "$PASSWORD" "${tls[@]}" \
        >"$WORK/token_server.log" 2>&1 &
    PIDS[token_server]=$!
    eventually $READY "the token server listens" test -e "$WORK/tokens/jwks.json"
}

# ---- running them

# registry NAME ADDRESS GUARD...: starts the registry under test; $WORK/NAME is its data. Guards:
#   tls         the certificate
#   password    htpasswd, and nobody else comes in
#   mixed       everybody pulls, who has a password pushes
#   token       tokens of the token server, whose key is known as a JWK set; `bundle`: by its certificate
#   sparse      manifests may name what is not there
registry() {
    local name=$1 address=$2 scheme=http guard deadline=$((SECONDS + READY)) status
    shift 2
    [[ " $* " == *' tls '* ]] && scheme=https
    {
        printf 'version: 0.1\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\n' "$WORK/$name"
        printf 'http:\n  addr: %s\n' "$address"
        [[ $scheme == http ]] || printf '  tls: {certificate: %s, key: %s}\n' "$WORK/server.crt" "$WORK/server.key"
        for guard in "$@"; do
            case $guard in
                tls) ;;
                password) printf 'auth:\n  htpasswd: {realm: %s, path: %s}\n' "$SERVICE" "$WORK/htpasswd" ;;
                mixed) mixed ;;
                token) printf 'auth:\n  token: {realm: "%s", service: %s, issuer: %s, jwks: %s}\n' \
                    "$TOKEN_REALM" "$SERVICE" "token server of the outer tests" "$WORK/tokens/jwks.json" ;;
                bundle) printf 'auth:\n  token: {realm: "%s", service: %s, issuer: %s, rootcertbundle: %s}\n' \
                    "$TOKEN_REALM" "$SERVICE" "token server of the outer tests" "$WORK/tokens/token.crt" ;;
                sparse) sparse ;;
                *) fail "no guard $guard" ;;
            esac
        done
    } >"$WORK/$name.yml"
    local program=("$ROOT/tests/.cache/bin/registry" serve "$WORK/$name.yml")
    [[ $OF == sampan ]] && program=("$SAMPAN" serve --config "$WORK/$name.yml" --p2p "/ip4/127.0.0.1/tcp/$((${address##*:} - 1000))")
    "${program[@]}" >>"$WORK/$name.log" 2>&1 &
    PIDS[$name]=$!
    while true; do
        status=$(curl -s --cacert "$WORK/authority/ca.crt" --max-time 2 -o "$WORK/answer" -w '%{http_code}' "$scheme://$address/v2/") || true
        [[ $status == 200 || $status == 401 ]] && break
        kill -0 "${PIDS[$name]}" 2>/dev/null || fail "$name ended while it started"
        ((SECONDS < deadline)) || fail "$name did not answer within $READY s"
        sleep 0.05
    done
}

# retire NAME: stops it; Distribution ends by the signal itself, so its exit status says nothing.
retire() { if [[ $OF == distribution ]]; then crash "$1"; else stop "$1"; fi; }

# Sampan gives the nameless tokens by itself; Distribution needs a token server for that.
mixed() {
    if [[ $OF == distribution ]]; then
        printf 'auth:\n  token: {realm: "%s", service: %s, issuer: %s, jwks: %s}\n' \
            "$TOKEN_REALM" "$SERVICE" "token server of the outer tests" "$WORK/tokens/jwks.json"
    else
        printf 'auth:\n  htpasswd: {realm: %s, path: %s}\nanonymous: pull\n' "$SERVICE" "$WORK/htpasswd"
    fi
}

sparse() {
    if [[ $OF == distribution ]]; then
        printf 'validation:\n  manifests:\n    indexes: {platforms: none}\n'
    else
        printf 'sparse: true\n'
    fi
}
