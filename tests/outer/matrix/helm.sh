# helm 4.3: charts.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

helm_wrong() { refused helm registry login --ca-file "$CA" --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

helm_login() { helm registry login --ca-file "$CA" --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

helm_push() {
    helm create sloop
    helm package sloop --version 1.0.0
    helm package sloop --version 1.1.0+build.7 # a tag has no `+`; helm writes `_`
    helm push --ca-file "$CA" sloop-1.0.0.tgz oci://$SAFE/charts 2>&1 | tee pushed
    same "the digest" "$(awk '/^Digest:/ { print $2 }' pushed)" "$(digest_of $SAFE/charts/sloop:1.0.0)"
    helm push --ca-file "$CA" sloop-1.1.0+build.7.tgz oci://$SAFE/charts
}

helm_pull() {
    helm pull --ca-file "$CA" oci://$SAFE/charts/sloop --version 1.0.0
    cmp sloop-1.0.0.tgz "$WORK/cells/helm.push/sloop-1.0.0.tgz"
    helm template --ca-file "$CA" oci://$SAFE/charts/sloop --version 1.0.0 | grep 'kind: Deployment'
    helm show chart --ca-file "$CA" "oci://$SAFE/charts/sloop@$(digest_of $SAFE/charts/sloop:1.0.0)" | grep 'version: 1.0.0'
}

helm_copy() {
    helm pull --ca-file "$CA" oci://$SAFE/charts/sloop --version 1.0.0
    helm push --plain-http sloop-1.0.0.tgz oci://$OPEN/charts
    same "the chart" "$(DOCKER_CONFIG=$WORK/yardstick crane manifest $SAFE/charts/sloop:1.0.0 | jq -r '.layers[0].digest')" \
        "$(crane manifest --insecure $OPEN/charts/sloop:1.0.0 | jq -r '.layers[0].digest')"
}

helm_list() { # no command lists, but a range of versions is looked for in the tags
    helm show chart --ca-file "$CA" oci://$SAFE/charts/sloop --version '>=1.0.0 <2' | grep 'version: 1.1.0+build.7'
}

helm_anonymous() { anonymous_rules helm_anonymous_pull helm_anonymous_push helm_anonymous_login; }
helm_begin() {
    helm create "$WORK/dinghy" >/dev/null
    helm package "$WORK/dinghy" --destination "$WORK" >/dev/null
    helm push --registry-config "$WORK/yardstick/config.json" --ca-file "$CA" "$WORK/dinghy-0.1.0.tgz" oci://$MIXED/seed >"$WORK/helm.log" 2>&1 || fail "helm cannot push"
}
helm_anonymous_pull() { helm pull --ca-file "$CA" oci://$MIXED/seed/dinghy --version 0.1.0; }
helm_anonymous_push() { helm push --ca-file "$CA" dinghy-0.1.0.tgz oci://$MIXED/charts; }
helm_anonymous_login() { helm registry login --ca-file "$CA" --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot helm index "it knows charts only"
cannot helm delete "no command deletes in a registry"
cannot helm artifact "no command attaches or discovers"
cannot helm sha512 "it takes SHA-256 only"
cannot helm sign "it signs with GPG, into a file that is one more layer"
cannot helm resume "it ends with an error where the connection is cut"
