# buildah 1.28: images that are built without a daemon.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

builder() { buildah --root "$WORK/buildah" --runroot "$WORK/buildah-run" "$@"; }

buildah_wrong() { refused builder login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

buildah_login() { builder login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

buildah_push() {
    builder from --name hull scratch
    builder copy hull "$WORK/cargo" /cargo
    builder commit hull boat
    builder push --digestfile pushed boat docker://$SAFE/buildah/boat:v1
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/buildah/boat:v1)"
}

buildah_pull() {
    builder pull $SAFE/seed/boat:v1
    same "the digest" "$V1" "$(builder images --format '{{.Digest}}' $SAFE/seed/boat:v1)"
    builder from --pull-always --name sailing $SAFE/seed/boat@"$V1"
}

buildah_index() {
    builder manifest create voyage
    builder manifest add --all voyage docker://$SAFE/seed/boat:both
    builder manifest push --all --digestfile pushed voyage docker://$SAFE/buildah/boat:both
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/buildah/boat:both)"
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/buildah/boat:both)"
}

buildah_copy() {
    buildah_carry $OPEN/seed/boat:v1 $SAFE/buildah/copy:v1
    buildah_carry $SAFE/seed/boat:v1 $OPEN/buildah/copy:v1
}

# buildah_carry FROM TO
buildah_carry() {
    builder pull --tls-verify="$(has_tls "$1")" "$1"
    builder push --tls-verify="$(has_tls "$2")" "$1" "docker://$2"
    same "the configuration" "$CONFIG" "$(config_of "$2")"
}

buildah_anonymous() { anonymous_rules buildah_anonymous_pull buildah_anonymous_push buildah_anonymous_login; }
buildah_anonymous_pull() { builder pull $MIXED/seed/boat:v1; }
buildah_anonymous_push() { builder push $MIXED/seed/boat:v1 docker://$MIXED/buildah/boat:v1; }
buildah_anonymous_login() { builder login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot buildah list "no command lists tags"
cannot buildah delete "no command deletes in a registry"
cannot buildah artifact "buildah 1.28 knows images only"
cannot buildah sha512 "buildah 1.28 computes SHA-256 of everything"
cannot buildah resume "it ends with an error where the connection is cut"
cannot buildah sign "buildah 1.28 signs with GPG only, into files beside the registry"
