# docker 20.10: an engine that keeps layers unpacked, so that its manifests are new ones; configurations stay.
# shellcheck shell=bash disable=SC2034,SC2086,SC2154 # names of matrix.sh, which have no spaces
# shellcheck source=tests/outer/matrix.sh

docker_begin() {
    export DOCKER_HOST=unix://$WORK/docker.sock DOCKER_BUILDKIT=0 DOCKER_CLI_EXPERIMENTAL=enabled
    dockerd --host "$DOCKER_HOST" --data-root "$WORK/docker" --exec-root "$WORK/docker-run" --pidfile "$WORK/docker.pid" \
        --bridge none --iptables=false --ip-forward=false --ip-masq=false >"$WORK/dockerd.log" 2>&1 &
    PIDS[dockerd]=$!
    eventually 30 "dockerd is up" docker info
}

docker_wrong() { refused docker login --username "$USERNAME" --password "$PASSWORD." "${1:-$SAFE}"; }

docker_login() { docker login --username "$USERNAME" --password-stdin $SAFE <<<"$PASSWORD"; }

docker_push() {
    cp "$WORK/cargo" cargo
    printf 'FROM scratch\nCOPY cargo /\n' >Dockerfile
    docker build --network none --tag $SAFE/docker/boat:v1 .
    docker push $SAFE/docker/boat:v1 | tee pushed
    same "the digest" "$(grep -o 'sha256:[0-9a-f]\{64\}' pushed | tail -1)" "$(digest_of $SAFE/docker/boat:v1)"
}

docker_pull() {
    docker pull $SAFE/seed/boat:v1
    same "the digest" $SAFE/seed/boat@"$V1" "$(docker inspect --format '{{index .RepoDigests 0}}' $SAFE/seed/boat:v1)"
    docker pull $SAFE/seed/boat@"$V1"
    docker rmi --force "$(docker inspect --format '{{.Id}}' $SAFE/seed/boat:v1)"
    docker pull --platform linux/arm64 $SAFE/seed/boat:both
    same "the platform" arm64 "$(docker inspect --format '{{.Architecture}}' $SAFE/seed/boat:both)"
}

docker_index() {
    docker manifest create $SAFE/seed/boat:docker $SAFE/seed/boat:amd64 $SAFE/seed/boat:arm64
    docker manifest push $SAFE/seed/boat:docker | tee pushed
    same "the digest" "$(tail -1 pushed)" "$(digest_of $SAFE/seed/boat:docker)"
    same "the children" "$(children $SAFE/seed/boat:both)" "$(children $SAFE/seed/boat:docker)"
}

docker_copy() {
    docker_carry $OPEN/seed/boat:v1 $SAFE/docker/copy:v1
    docker_carry $SAFE/seed/boat:v1 $OPEN/docker/copy:v1
}

# docker_carry FROM TO
docker_carry() {
    docker pull "$1"
    docker tag "$1" "$2"
    docker push "$2"
    same "the configuration" "$CONFIG" "$(config_of "$2")"
    docker rmi --force "$1" "$2"
}

docker_resume() {
    docker image prune --all --force # the layer must not be here
    docker pull $CUTTING/docker/long:v1
    same "the digest" $CUTTING/docker/long@"$V1" "$(docker inspect --format '{{index .RepoDigests 0}}' $CUTTING/docker/long:v1)"
    resumed docker
}

docker_anonymous() {
    anonymous_rules docker_anonymous_pull docker_anonymous_push docker_anonymous_login
}
docker_anonymous_pull() { docker pull $MIXED/seed/boat:v1; }
docker_anonymous_push() { docker tag $MIXED/seed/boat:v1 $MIXED/docker/boat:v1 && docker push $MIXED/docker/boat:v1; }
docker_anonymous_login() { docker login --username "$USERNAME" --password-stdin $MIXED <<<"$PASSWORD"; }

cannot docker list "no command lists tags"
cannot docker delete "no command deletes in a registry"
cannot docker artifact "it knows images only"
cannot docker sha512 "docker 20.10 does not take such an image, though it pulls it whole"
cannot docker sign "docker trust needs a Notary server"
