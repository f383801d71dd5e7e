# containerd 1.6 by its command; the daemon is the one that dockerd starts.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

ctr_begin() {
    containerd --address "$WORK/containerd.sock" --root "$WORK/containerd" --state "$WORK/containerd-run" >"$WORK/containerd.log" 2>&1 &
    PIDS[containerd]=$!
    eventually 30 "containerd is up" images list
    mkdir -p "$WORK/hosts.d/$SAFE" "$WORK/hosts.d/$MIXED"
    local address
    for address in $SAFE $MIXED; do
        printf 'server = "https://%s"\n[host."https://%s"]\n  ca = "%s"\n' $address $address "$CA" >"$WORK/hosts.d/$address/hosts.toml"
    done
}

images() { ctr --address "$WORK/containerd.sock" --namespace matrix images "$@"; }
trusting() { images "$1" --hosts-dir "$WORK/hosts.d" --user "$USERNAME:$PASSWORD" "${@:2}"; }
held() { images list "name==$1" | awk 'NR == 2 { print $3 }'; }

ctr_wrong() { # it says who it is only where it must, so it pushes
    images pull --plain-http $OPEN/seed/boat:v1
    images tag --force $OPEN/seed/boat:v1 "${1:-$SAFE}/ctr/boat:v1"
    refused images push --hosts-dir "$WORK/hosts.d" --user "$USERNAME:$PASSWORD." "${1:-$SAFE}/ctr/boat:v1"
}

ctr_login() { images pull --tlscacert "$CA" --user "$USERNAME:$PASSWORD" $SAFE/seed/boat:v1; }

ctr_push() {
    tar -C "$WORK/layout" -cf boat.tar .
    images import --all-platforms --base-name $SAFE/ctr/boat boat.tar
    trusting push $SAFE/ctr/boat:v1
    same "the digest" "$V1" "$(digest_of $SAFE/ctr/boat:v1)"
}

ctr_pull() {
    trusting pull $SAFE/seed/boat:v1
    same "the digest" "$V1" "$(held $SAFE/seed/boat:v1)"
    trusting pull $SAFE/seed/boat@"$V1"
}

ctr_index() {
    trusting pull --all-platforms $SAFE/seed/boat:both
    same "the digest" "$BOTH" "$(held $SAFE/seed/boat:both)"
    images tag --force $SAFE/seed/boat:both $SAFE/ctr/boat:both
    trusting push $SAFE/ctr/boat:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/ctr/boat:both)"
}

ctr_copy() {
    images pull --plain-http --all-platforms $OPEN/seed/boat:both
    images tag $OPEN/seed/boat:both $SAFE/ctr/copy:both
    trusting push $SAFE/ctr/copy:both
    same "the digest" "$BOTH" "$(digest_of $SAFE/ctr/copy:both)"
    images tag $SAFE/ctr/copy:both $OPEN/ctr/copy:both
    images push --plain-http $OPEN/ctr/copy:both
    same "the digest" "$BOTH" "$(digest_of $OPEN/ctr/copy:both)"
}

ctr_resume() {
    images list -q | xargs ctr --address "$WORK/containerd.sock" --namespace matrix images rm --sync # the layer must not be here
    images pull --plain-http $CUTTING/ctr/long:v1 || images pull --plain-http $CUTTING/ctr/long:v1
    same "the digest" "$V1" "$(held $CUTTING/ctr/long:v1)"
    resumed ctr
}

ctr_anonymous() { anonymous_rules ctr_anonymous_pull ctr_anonymous_push ctr_anonymous_login; }
ctr_anonymous_pull() { images pull --tlscacert "$CA" $MIXED/seed/boat:v1; }
ctr_anonymous_push() {
    images tag --force $MIXED/seed/boat:v1 $MIXED/ctr/boat:v1
    images push --tlscacert "$CA" "${who[@]}" $MIXED/ctr/boat:v1
}
who=() # whom ctr_anonymous_push says it is; ctr has no login that lasts
ctr_anonymous_login() { who=(--user "$USERNAME:$PASSWORD"); }

cannot ctr list "no command lists tags"
cannot ctr delete "no command deletes in a registry"
cannot ctr artifact "no command attaches or discovers"
cannot ctr sha512 "containerd 1.6 computes SHA-256 of everything"
cannot ctr sign "it has no signatures"
