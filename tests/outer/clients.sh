#!/usr/bin/env bash
# Real clients, one registry: an image is built with docker on a base made of Debian packages (four layers, one of
# 200 MiB that does not compress), pushed, removed, pulled and run; podman, skopeo and crane read it and write copies.
# Every client must see the same digest.
#
#   tests/outer/clients.sh        as root; starts a dockerd of its own, without a network
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

HOST=127.0.0.1:5040
IMAGE=$HOST/harbour/boat
SAYS="sampan is afloat"

as_root "dockerd and podman"
tools dockerd iptables podman skopeo crane jq curl
binary
serve a --addr $HOST --p2p /ip4/127.0.0.1/tcp/4040

# ---- clients that keep everything in the work folder and ask nothing of the network

export DOCKER_HOST=unix://$WORK/docker.sock DOCKER_CONFIG=$WORK/docker-config DOCKER_BUILDKIT=0 REGISTRY_AUTH_FILE=$WORK/auth.json
echo '{}' >"$REGISTRY_AUTH_FILE"
dockerd --host "$DOCKER_HOST" --data-root "$WORK/docker" --exec-root "$WORK/docker-run" --pidfile "$WORK/docker.pid" \
    --bridge none --iptables=false --insecure-registry 127.0.0.0/8 >"$WORK/dockerd.log" 2>&1 &
PIDS[dockerd]=$!
eventually 30 "dockerd is up" docker info

boatman() { podman --root "$WORK/podman" --runroot "$WORK/podman-run" --cgroup-manager cgroupfs --events-backend file "$@"; }
container=(--rm --network none)
limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024) # podman would raise them, which needs a right that CI may lack

# ---- the image

(cd "$WORK" && apt-get download busybox-static >/dev/null 2>&1) || { apt-get -qq update && (cd "$WORK" && apt-get -qq download busybox-static); }
mkdir "$WORK/base" "$WORK/build"
dpkg-deb --extract "$WORK"/busybox-static_*.deb "$WORK/base"
ln -sf busybox "$WORK/base/bin/sh"
tar -C "$WORK/base" -c . | docker import --change 'CMD ["/bin/sh"]' - base >/dev/null

head -c 200M /dev/urandom >"$WORK/build/cargo"
echo "$SAYS" >"$WORK/build/says"
cat >"$WORK/build/Dockerfile" <<'DOCKERFILE'
FROM base
COPY cargo /cargo
COPY says /says
RUN /bin/busybox sha256sum /cargo > /cargo.sha256
CMD ["/bin/sh", "-c", "/bin/busybox sha256sum -c -s /cargo.sha256 && /bin/busybox cat /says"]
DOCKERFILE
docker build --quiet --network none --tag "$IMAGE:v1" "$WORK/build" >"$WORK/build.log" 2>&1 || fail "docker build: $(<"$WORK/build.log")"

# ---- docker: push, forget, pull, run

docker push "$IMAGE:v1" >"$WORK/push.log" 2>&1 || fail "docker push: $(tail -1 "$WORK/push.log")"
pushed=$(grep -o 'sha256:[0-9a-f]\{64\}' "$WORK/push.log" | tail -1)
docker rmi --force "$IMAGE:v1" base >/dev/null
docker pull "$IMAGE:v1" >"$WORK/pull.log" 2>&1 || fail "docker pull: $(tail -1 "$WORK/pull.log")"
same "docker: what was pulled" "$pushed" "$(docker inspect --format '{{index .RepoDigests 0}}' "$IMAGE:v1" | cut -d @ -f 2)"
same "docker run" "$SAYS" "$(docker run "${container[@]}" "$IMAGE:v1")"
say "docker pushed, pulled and ran $pushed"

# ---- the others read it

same "crane digest" "$pushed" "$(crane digest --insecure "$IMAGE:v1")"
same "skopeo inspect" "$pushed" "$(skopeo inspect --tls-verify=false "docker://$IMAGE:v1" | jq -r .Digest)"
boatman pull --quiet --tls-verify=false "$IMAGE:v1" >/dev/null
same "podman: what was pulled" "$pushed" "$(boatman inspect --format '{{.Digest}}' "$IMAGE:v1")"
same "podman run" "$SAYS" "$(boatman run "${limits[@]}" "${container[@]}" "$IMAGE:v1")"

# ---- and write copies

skopeo copy --quiet --preserve-digests --src-tls-verify=false --dest-tls-verify=false "docker://$IMAGE:v1" "docker://$HOST/copies/skopeo:v1"
same "skopeo's copy" "$pushed" "$(crane digest --insecure "$HOST/copies/skopeo:v1")"

skopeo copy --quiet --preserve-digests --src-tls-verify=false "docker://$IMAGE:v1" "dir:$WORK/laid-out"
skopeo copy --quiet --preserve-digests --dest-tls-verify=false "dir:$WORK/laid-out" "docker://$HOST/copies/uploaded:v1"
same "skopeo's upload" "$pushed" "$(crane digest --insecure "$HOST/copies/uploaded:v1")"

crane copy --insecure "$IMAGE:v1" "$HOST/copies/crane:v1" 2>/dev/null
same "crane's copy" "$pushed" "$(crane digest --insecure "$HOST/copies/crane:v1")"

# podman compresses anew and writes OCI types, so its manifest is another; it must be the one that podman says it wrote.
boatman push --quiet --tls-verify=false --format oci --digestfile "$WORK/digest" "$IMAGE:v1" "$HOST/copies/podman:v1"
same "podman's push" "$(<"$WORK/digest")" "$(crane digest --insecure "$HOST/copies/podman:v1")"
boatman rmi --all --force >/dev/null
docker pull --quiet "$HOST/copies/podman:v1" >/dev/null
same "docker runs podman's image" "$SAYS" "$(docker run "${container[@]}" "$HOST/copies/podman:v1")"

same "tags" v1 "$(crane ls --insecure "$IMAGE" | paste -sd ' ')"
crane catalog --insecure "$HOST" >"$WORK/catalog"
same "catalog" "copies/crane copies/podman copies/skopeo copies/uploaded harbour/boat" "$(sort "$WORK/catalog" | paste -sd ' ')"
say "podman, skopeo and crane saw the same digest and wrote their copies"

stop dockerd
stop a
