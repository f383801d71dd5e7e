# regctl 0.11.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

regctl_begin() {
    export REGCTL_CONFIG=$WORK/homes/regctl.json
    regctl registry set --skip-check --tls disabled $OPEN
    regctl registry set --skip-check --tls disabled $CUTTING
    regctl registry set --skip-check --cacert "$(<"$CA")" $SAFE
    regctl registry set --skip-check --cacert "$(<"$CA")" $MIXED
}

regctl_wrong() {
    refused regctl registry login --user "$USERNAME" --pass "$PASSWORD." "${1:-$SAFE}"
    regctl registry logout "${1:-$SAFE}"
}

regctl_login() { regctl registry login --user "$USERNAME" --pass-stdin $SAFE <<<"$PASSWORD"; }

regctl_push() {
    regctl image copy "ocidir://$WORK/layout:v1" $SAFE/regctl/boat:v1
    same "the digest" "$V1" "$(digest_of $SAFE/regctl/boat:v1)"
    same "the blob" "sha256:$(sha256sum "$WORK/cargo" | cut -d ' ' -f 1)" "$(regctl blob put $SAFE/regctl/boat <"$WORK/cargo")"
}

regctl_pull() {
    same "the digest" "$V1" "$(regctl image digest $SAFE/seed/boat:v1)"
    regctl image copy $SAFE/seed/boat@"$V1" ocidir://pulled:v1
    same "the layer" "$LAYER" "sha256:$(sha256sum "pulled/blobs/sha256/${LAYER#*:}" | cut -d ' ' -f 1)"
}

regctl_index() {
    regctl index create --ref $SAFE/seed/boat:amd64 --ref $SAFE/seed/boat:arm64 $SAFE/regctl/boat:both
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/regctl/boat:both)"
    same "the platform's image" "$V1" "$(regctl image digest --platform linux/amd64 $SAFE/regctl/boat:both)"
}

regctl_copy() {
    regctl image copy $OPEN/seed/boat:both $SAFE/regctl/copy:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/regctl/copy:both)"
    regctl image copy $SAFE/regctl/copy:both $OPEN/regctl/copy:both
    same "the digest" "$BOTH" "$(digest_of $OPEN/regctl/copy:both)"
}

regctl_list() {
    same "the tags" "one two" "$(regctl tag ls $SAFE/regctl/gone | sort | paste -sd ' ')"
    regctl repo ls $SAFE | grep -x seed/boat
}

regctl_delete() {
    regctl tag delete $SAFE/regctl/gone:one
    gone $SAFE/regctl/gone:one
    local two
    two=$(digest_of $SAFE/regctl/gone:two)
    regctl manifest delete $SAFE/regctl/gone@"$two"
    gone $SAFE/regctl/gone@"$two"
    gone $SAFE/regctl/gone:two
}

regctl_artifact() {
    regctl image copy $SAFE/seed/boat:v1 $SAFE/regctl/laden:v1
    regctl artifact put --artifact-type application/x.manifest --subject $SAFE/regctl/laden:v1 <<<"12 barrels"
    regctl artifact put --artifact-type application/x.other --subject $SAFE/regctl/laden:v1 <<<"others"
    same "what was attached" "12 barrels" "$(regctl artifact get --subject $SAFE/regctl/laden:v1 --filter-artifact-type application/x.manifest)"
    same "the list" "application/x.manifest application/x.other" \
        "$(regctl artifact list $SAFE/regctl/laden:v1 --format '{{range .Descriptors}}{{println .ArtifactType}}{{end}}' | sort | paste -sd ' ' | xargs)"
    regctl image copy --referrers $SAFE/regctl/laden:v1 $OPEN/regctl/laden:v1
    same "what was copied" "12 barrels" "$(regctl artifact get --subject $OPEN/regctl/laden:v1 --filter-artifact-type application/x.manifest)"
}

regctl_sha512() {
    local digest
    digest=sha512:$(sha512sum "$WORK/cargo" | cut -d ' ' -f 1)
    same "the blob" "$digest" "$(regctl blob put --digest "$digest" $SAFE/regctl/wide <"$WORK/cargo")"
    regctl blob get $SAFE/regctl/wide "$digest" | cmp - "$WORK/cargo"
    regctl image mod --digest-algo sha512 --create $SAFE/regctl/wide:v1 "ocidir://$WORK/layout:v1"
    digest=$(regctl image digest $SAFE/regctl/wide:v1)
    [[ $digest == sha512:* ]] || fail "the digest is $digest"
    regctl image copy $SAFE/regctl/wide@"$digest" ocidir://pulled:v1
    same "the digest" "$digest" "$(regctl image digest ocidir://pulled:v1)"
}

regctl_resume() {
    regctl blob get $CUTTING/regctl/long "$LAYER" >pulled
    same "the layer" "$LAYER" "sha256:$(sha256sum pulled | cut -d ' ' -f 1)"
    resumed regctl
}

regctl_anonymous() { anonymous_rules regctl_anonymous_pull regctl_anonymous_push regctl_anonymous_login; }
regctl_anonymous_pull() { regctl image copy $MIXED/seed/boat:v1 ocidir://pulled:v1; }
regctl_anonymous_push() { regctl image copy ocidir://pulled:v1 $MIXED/regctl/boat:v1; }
regctl_anonymous_login() { regctl registry login --user "$USERNAME" --pass-stdin $MIXED <<<"$PASSWORD"; }

cannot regctl sign "it has no signatures"
