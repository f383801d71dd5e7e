# cosign 3.1. A signature is a referrer of the image; without a transparency log, as on a LAN.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

cosign_begin() {
    yard copy $OPEN/seed/boat:both $SAFE/cosign/boat:both
    cosign signing-config create --out "$WORK/key/none.json" >"$WORK/cosign.log" 2>&1 || fail "cosign makes no configuration"
}

signs() { COSIGN_PASSWORD=$(<"$WORK/key/passphrase") cosign "$1" --key "$WORK/key/cosign.key" --signing-config "$WORK/key/none.json" --yes "${@:2}"; }
verifies() { cosign "$1" --key "$WORK/key/cosign.pub" --insecure-ignore-tlog "${@:2}"; }

cosign_wrong() { # its login asks nobody
    cosign login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"
    refused cosign save --dir wrong "${1:-$SAFE}/seed/boat:both"
}

cosign_login() {
    cosign login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"
    cosign tree $SAFE/cosign/boat:both
}

cosign_sign() {
    signs sign $SAFE/cosign/boat@"$BOTH"
    verifies verify $SAFE/cosign/boat:both
    if verifies verify $SAFE/seed/boat:v1; then fail "cosign verifies what nobody signed"; fi
    signs sign --recursive $SAFE/cosign/boat@"$BOTH"
    verifies verify $SAFE/cosign/boat@"$V1"
}

cosign_delete() {
    signs sign $SAFE/cosign/boat@"$BOTH"
    same "signatures" 1 "$(signatures)"
    cosign clean --force $SAFE/cosign/boat:both
    same "signatures that are left" 0 "$(signatures)"
}

# What another client finds attached to the image.
attached() { DOCKER_CONFIG=$WORK/yardstick oras discover --ca-file "$CA" --format json $SAFE/cosign/boat@"$BOTH" | jq -r '.referrers[].artifactType'; }
signatures() { attached | grep -c sigstore.bundle || true; }

cosign_artifact() {
    echo '{"freight": "12 barrels"}' >predicate
    signs attest --predicate predicate --type custom $SAFE/cosign/boat@"$BOTH"
    verifies verify-attestation --type custom $SAFE/cosign/boat:both
    cosign tree $SAFE/cosign/boat:both | tee tree
    same "the referrers" application/vnd.dev.sigstore.bundle.v0.3+json "$(attached | sort -u)"
}

cosign_pull() {
    cosign save --dir saved $SAFE/cosign/boat:both
    grep -o "$BOTH" saved/index.json
}

cosign_push() {
    cosign save --allow-http-registry --dir saved $OPEN/seed/boat:both
    cosign load --dir saved $SAFE/cosign/loaded:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/cosign/loaded:both)"
}

cosign_copy() {
    cosign save --dir saved $SAFE/cosign/boat:both
    cosign load --allow-http-registry --dir saved $OPEN/cosign/copy:both
    same "the digest" "$BOTH" "$(digest_of $OPEN/cosign/copy:both)"
}

cosign_anonymous() { anonymous_rules cosign_anonymous_pull cosign_anonymous_push cosign_anonymous_login; }
cosign_anonymous_pull() { cosign save --dir pulled $MIXED/seed/boat:both; }
cosign_anonymous_push() { signs sign $MIXED/seed/boat@"$BOTH"; }
cosign_anonymous_login() { cosign login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot cosign index "what it signs, saves and loads above is one"
cannot cosign list "no command lists tags"
cannot cosign sha512 "it asks for the SHA-256 of what it signs"
cannot cosign resume "it ends with an error where the connection is cut"
