# oras 1.3.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

oras_wrong() { refused oras login --ca-file "$CA" --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

oras_login() { oras login --ca-file "$CA" --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

oras_push() {
    echo barrels >barrels
    oras push --no-tty --ca-file "$CA" --artifact-type application/x.freight --format json $SAFE/oras/boat:v1,latest barrels:text/plain >pushed
    same "the digest" "$(jq -r .digest pushed)" "$(digest_of $SAFE/oras/boat:latest)"
    oras cp --no-tty --from-oci-layout "$WORK/layout:v1" --to-ca-file "$CA" $SAFE/oras/boat:image
    same "the digest" "$V1" "$(digest_of $SAFE/oras/boat:image)"
}

oras_pull() {
    oras pull --no-tty --ca-file "$CA" --output pulled $SAFE/oras/boat:v1
    same "the file" barrels "$(<pulled/barrels)"
    same "the digest" "$V1" "$(oras resolve --ca-file "$CA" $SAFE/seed/boat:v1)"
    oras blob fetch --no-tty --ca-file "$CA" --output layer $SAFE/seed/boat@"$LAYER"
    same "the layer" "$LAYER" "sha256:$(sha256sum layer | cut -d ' ' -f 1)"
}

oras_index() {
    oras manifest index create --ca-file "$CA" $SAFE/seed/boat:oras amd64 arm64
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/seed/boat:oras)"
    same "the platform's image" "$V1" "$(oras resolve --ca-file "$CA" --platform linux/amd64 $SAFE/seed/boat:oras)"
}

oras_copy() {
    oras cp --no-tty --from-plain-http --to-ca-file "$CA" $OPEN/seed/boat:both $SAFE/oras/copy:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/oras/copy:both)"
    oras cp --no-tty --from-ca-file "$CA" --to-plain-http $SAFE/oras/copy:both $OPEN/oras/copy:both
    same "the digest" "$BOTH" "$(digest_of $OPEN/oras/copy:both)"
}

oras_list() {
    same "the tags" "one two" "$(oras repo tags --ca-file "$CA" $SAFE/oras/gone | sort | paste -sd ' ')"
    oras repo ls --ca-file "$CA" $SAFE | grep -x seed/boat
}

oras_delete() { # it asks for the tag's digest and deletes that
    oras manifest delete --ca-file "$CA" --force $SAFE/oras/gone:one
    gone $SAFE/oras/gone:one
    oras manifest delete --ca-file "$CA" --force "$SAFE/oras/gone@$(digest_of $SAFE/oras/gone:two)"
    gone $SAFE/oras/gone:two
    oras blob delete --ca-file "$CA" --force $SAFE/oras/gone@"$LAYER"
    if oras blob fetch --ca-file "$CA" --descriptor $SAFE/oras/gone@"$LAYER"; then fail "the blob is still there"; fi
}

oras_artifact() {
    echo "12 barrels" >freight
    oras cp --no-tty --from-oci-layout "$WORK/layout:v1" --to-ca-file "$CA" $SAFE/oras/laden:v1
    oras attach --no-tty --ca-file "$CA" --artifact-type application/x.manifest --format json $SAFE/oras/laden:v1 freight >attached
    oras attach --no-tty --ca-file "$CA" --artifact-type application/x.other $SAFE/oras/laden:v1 freight
    oras discover --ca-file "$CA" --format json $SAFE/oras/laden:v1 >discovered
    same "the list" "application/x.manifest application/x.other" "$(jq -r '[.referrers[].artifactType] | sort | join(" ")' discovered)"
    oras discover --ca-file "$CA" --format json --artifact-type application/x.manifest $SAFE/oras/laden:v1 >discovered
    same "the digest" "$(jq -r .digest attached)" "$(jq -r '.referrers[].digest' discovered)"
    oras cp --no-tty --recursive --from-ca-file "$CA" --to-plain-http $SAFE/oras/laden:v1 $OPEN/oras/laden:v1
    same "what was copied" 2 "$(oras discover --plain-http --format json $OPEN/oras/laden:v1 | jq '.referrers | length')"
}

oras_sha512() { # under a tag it expects another digest than it could have told; without one it is right
    local digest
    digest=sha512:$(sha512sum "$WORK/cargo" | cut -d ' ' -f 1)
    oras blob push --no-tty --ca-file "$CA" $SAFE/oras/wide@"$digest" "$WORK/cargo"
    oras blob fetch --no-tty --ca-file "$CA" --output blob $SAFE/oras/wide@"$digest"
    cmp blob "$WORK/cargo"
    digest=$(oras resolve --ca-file "$CA" $SAFE/seed/boat:sha512)
    oras cp --no-tty --from-ca-file "$CA" --to-ca-file "$CA" $SAFE/seed/boat@"$digest" $SAFE/oras/wide
    same "the digest" "$digest" "$(oras resolve --ca-file "$CA" $SAFE/oras/wide@"$digest")"
}

oras_anonymous() { anonymous_rules oras_anonymous_pull oras_anonymous_push oras_anonymous_login; }
oras_anonymous_pull() { oras cp --no-tty --from-ca-file "$CA" $MIXED/seed/boat:v1 --to-oci-layout pulled:v1; }
oras_anonymous_push() { oras cp --no-tty --from-oci-layout pulled:v1 --to-ca-file "$CA" $MIXED/oras/boat:v1; }
oras_anonymous_login() { oras login --ca-file "$CA" --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot oras sign "it has no signatures"
cannot oras resume "it ends with an error where the connection is cut"
