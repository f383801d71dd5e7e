# podman 4.3. It keeps layers unpacked, as docker does, so its manifests are new ones; configurations stay.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

boatman() { podman --root "$WORK/podman" --runroot "$WORK/podman-run" --cgroup-manager cgroupfs --events-backend file "$@"; }

podman_wrong() { refused boatman login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

podman_login() { boatman login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

podman_push() {
    (cd "$WORK" && boatman pull oci:layout:v1) >id # a path with capitals would be no name
    boatman push --digestfile pushed "$(<id)" $SAFE/podman/boat:v1
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/podman/boat:v1)"
    boatman push --format v2s2 --digestfile pushed "$(<id)" $SAFE/podman/boat:docker
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/podman/boat:docker)"
    boatman rmi --force "$(<id)"
}

podman_pull() {
    boatman pull $SAFE/seed/boat:v1
    same "the digest" "$V1" "$(boatman inspect --format '{{.Digest}}' $SAFE/seed/boat:v1)"
    boatman pull $SAFE/seed/boat@"$V1"
}

podman_index() {
    boatman manifest create voyage
    boatman manifest add --all voyage docker://$SAFE/seed/boat:both
    boatman manifest push --all --digestfile pushed voyage docker://$SAFE/podman/boat:both
    same "the digest" "$(<pushed)" "$(digest_of $SAFE/podman/boat:both)"
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/podman/boat:both)"
}

podman_copy() {
    podman_carry $OPEN/seed/boat:v1 $SAFE/podman/copy:v1
    podman_carry $SAFE/seed/boat:v1 $OPEN/podman/copy:v1
}

# podman_carry FROM TO
podman_carry() {
    boatman pull --tls-verify="$(has_tls "$1")" "$1"
    boatman push --tls-verify="$(has_tls "$2")" "$1" "$2"
    same "the configuration" "$CONFIG" "$(config_of "$2")"
}

podman_list() {
    same "the tags" "one two" "$(boatman search --list-tags $SAFE/podman/gone | awk 'NR > 1 { print $2 }' | sort | paste -sd ' ')"
    boatman search --format '{{.Name}}' $SAFE/ | grep -x $SAFE/seed/boat
}

podman_anonymous() { anonymous_rules podman_anonymous_pull podman_anonymous_push podman_anonymous_login; }
podman_anonymous_pull() { boatman pull $MIXED/seed/boat:v1; }
podman_anonymous_push() { boatman push $MIXED/seed/boat:v1 $MIXED/podman/boat:v1; }
podman_anonymous_login() { boatman login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot podman delete "no command deletes in a registry"
cannot podman artifact "podman 4.3 knows images only"
cannot podman sha512 "podman 4.3 computes SHA-256 of everything"
cannot podman sign "Debian builds it without sigstore"
cannot podman resume "it ends with an error where the connection is cut"
