# crane 0.22.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

crane_wrong() { # its login asks nobody
    crane auth login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"
    refused crane digest "${1:-$SAFE}"/seed/boat:v1
}

crane_login() {
    crane auth login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"
    crane digest $SAFE/seed/boat:v1
}

crane_push() {
    crane append --oci-empty-base -f "$WORK/cargo.tar" -t $SAFE/crane/boat:v1 >pushed
    same "the digest" "$(cut -d @ -f 2 pushed)" "$(digest_of $SAFE/crane/boat:v1)"
    crane tag $SAFE/crane/boat:v1 latest
    crane validate --remote $SAFE/crane/boat:latest
}

crane_pull() {
    same "the digest" "$V1" "$(crane digest $SAFE/seed/boat:v1)"
    crane pull --format oci $SAFE/seed/boat@"$V1" pulled
    same "the layer" "$LAYER" "sha256:$(sha256sum "pulled/blobs/sha256/${LAYER#*:}" | cut -d ' ' -f 1)"
}

crane_index() {
    crane pull --format oci $SAFE/seed/boat:both pulled
    crane push --index pulled $SAFE/crane/boat:pushed
    crane index append -m $SAFE/seed/boat:amd64 -m $SAFE/seed/boat:arm64 -t $SAFE/crane/boat:both
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/crane/boat:both)"
    crane validate --remote $SAFE/crane/boat:both
}

crane_copy() {
    crane copy --insecure $OPEN/seed/boat:both $SAFE/crane/copy:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/crane/copy:both)"
    crane copy --insecure $SAFE/crane/copy:both $OPEN/crane/copy:both
    same "the digest" "$BOTH" "$(digest_of $OPEN/crane/copy:both)"
}

crane_list() {
    same "the tags" "one two" "$(crane ls $SAFE/crane/gone | sort | paste -sd ' ')"
    crane catalog $SAFE | grep -x seed/boat
}

crane_delete() {
    crane delete $SAFE/crane/gone:one
    gone $SAFE/crane/gone:one
    crane delete "$SAFE/crane/gone@$(digest_of $SAFE/crane/gone:two)"
    gone $SAFE/crane/gone:two
}

crane_sha512() { # it copies them under a digest of SHA-256, so it reads only
    [[ $(crane digest $SAFE/seed/boat:sha512) == sha512:* ]]
    crane pull --format oci $SAFE/seed/boat:sha512 pulled
    (cd pulled/blobs/sha512 && for blob in *; do echo "$blob  $blob"; done | sha512sum --check)
}

crane_anonymous() { anonymous_rules crane_anonymous_pull crane_anonymous_push crane_anonymous_login; }
crane_anonymous_pull() { crane pull $MIXED/seed/boat:v1 pulled.tar; }
crane_anonymous_push() { crane push pulled.tar $MIXED/crane/boat:v1; }
crane_anonymous_login() { crane auth login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot crane artifact "no command attaches or discovers"
cannot crane sign "it has no signatures"
cannot crane resume "it ends with an error where the connection is cut"
