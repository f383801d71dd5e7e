# skopeo 1.9.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

skopeo_wrong() { refused skopeo login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

skopeo_login() { skopeo login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

skopeo_push() {
    skopeo copy --preserve-digests "oci:$WORK/layout:v1" docker://$SAFE/skopeo/boat:v1
    same "the digest" "$V1" "$(digest_of $SAFE/skopeo/boat:v1)"
    skopeo copy --format v2s2 --digestfile pushed "oci:$WORK/layout:v1" docker://$SAFE/skopeo/boat:docker
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/skopeo/boat:docker)"
}

skopeo_pull() {
    same "the digest" "$V1" "$(skopeo inspect docker://$SAFE/seed/boat:v1 | jq -r .Digest)"
    skopeo copy --preserve-digests docker://$SAFE/seed/boat@"$V1" dir:pulled
    same "the layer" "$LAYER" "sha256:$(sha256sum "pulled/${LAYER#*:}" | cut -d ' ' -f 1)"
}

skopeo_index() { # it writes an index anew, so that the digest is another; the images stay
    skopeo copy --all "oci:$WORK/layout:both" docker://$SAFE/skopeo/boat:both
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/skopeo/boat:both)"
    skopeo copy --all docker://$SAFE/skopeo/boat:both dir:pulled
    same "the digest" "$(digest_of $SAFE/skopeo/boat:both)" "$(skopeo manifest-digest pulled/manifest.json)"
}

skopeo_copy() {
    skopeo copy --preserve-digests --src-tls-verify=false docker://$OPEN/seed/boat:v1 docker://$SAFE/skopeo/copy:v1
    same "the digest" "$V1" "$(digest_of $SAFE/skopeo/copy:v1)"
    skopeo sync --preserve-digests --dest-tls-verify=false --src docker --dest docker $SAFE/skopeo/copy:v1 $OPEN/skopeo
    same "the digest" "$V1" "$(digest_of $OPEN/skopeo/copy:v1)"
}

skopeo_list() { same "the tags" "one two" "$(skopeo list-tags docker://$SAFE/skopeo/gone | jq -r '.Tags | sort | join(" ")')"; }

skopeo_delete() { # it asks for the tag's digest and deletes that
    skopeo delete docker://$SAFE/skopeo/gone:one
    gone $SAFE/skopeo/gone:one
    skopeo delete "docker://$SAFE/skopeo/gone@$(digest_of $SAFE/skopeo/gone:two)"
    gone $SAFE/skopeo/gone:two
}

skopeo_anonymous() { anonymous_rules skopeo_anonymous_pull skopeo_anonymous_push skopeo_anonymous_login; }
skopeo_anonymous_pull() { skopeo copy docker://$MIXED/seed/boat:v1 dir:pulled; }
skopeo_anonymous_push() { skopeo copy dir:pulled docker://$MIXED/skopeo/boat:v1; }
skopeo_anonymous_login() { skopeo login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot skopeo artifact "skopeo 1.9 knows no referrers"
cannot skopeo sha512 "skopeo 1.9 computes SHA-256 of everything"
cannot skopeo sign "Debian builds it without sigstore"
cannot skopeo resume "it ends with an error where the connection is cut"
