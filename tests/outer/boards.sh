#!/usr/bin/env bash
# Six boards on one LAN with a swarm key and `follow: auto`: images are pushed to any of them and pulled from any, over the
# same tags, while boards are killed and started again and the switch splits the LAN in two and joins it. No acknowledged
# push is lost, what is pulled was pushed, and soon after a join every board serves the push of each tag that knew of the
# others.
#
#   tests/outer/boards.sh [--pushes N] [--tags N] [--splits N]    60 pushes over 8 tags, 1 split if not said; as root
#   tests/outer/boards.sh --full                                  200 pushes over 20 tags, 3 splits, a log in docs/evidence
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

BOARDS=(b1 b2 b3 b4 b5 b6)
FULL='' arguments=()
for word in "$@"; do
    if [[ $word == --full ]]; then FULL=1; else arguments+=("$word"); fi
done
[[ $FULL ]] && arguments+=(--pushes 200 --tags 20 --splits 3)

tools ip
binary
lan "${BOARDS[@]}"
switch=$(namespace_of switch)
ip -n "$switch" link add split type bridge mcast_snooping 0
ip -n "$switch" link set split up

key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
spaces=()
for board in "${BOARDS[@]}"; do
    mkdir -p "$WORK/$board"
    printf '/key/swarm/psk/1.0.0/\n/base16/\n%s\n' "$key" >"$WORK/$board/swarm.key"
    spaces+=("$(namespace_of "$board")")
done
cat >"$WORK/boards.yml" <<YML
version: 0.1
ipfs:
  network: private
  follow: auto
YML

run() {
    python3 "$ROOT/tests/outer/boards.py" --binary "$SAMPAN" --work "$WORK" --switch "$switch" --config "$WORK/boards.yml" \
        "${arguments[@]}" "${spaces[@]}" 2>&1
}

if [[ $FULL ]]; then run | record boards; else run; fi
