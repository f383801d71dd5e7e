#!/usr/bin/env bash
# What `sampan serve` must refuse: one line on stderr, an exit status that is not 0, and nothing changed on disk.
#
#   tests/outer/bad-input.sh        as root (for a read-only mount)
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

QUICKLY=15 # seconds within which a refusal must come
ADDRESS=127.0.0.1:5050
PORTS=(--addr "$ADDRESS" --p2p /ip4/127.0.0.1/tcp/4050)
OTHERS=(--addr 127.0.0.1:5051 --p2p /ip4/127.0.0.1/tcp/4051)

tools curl python3
binary

# One line for each file: kind, mode, size, name, and what is in it.
contents() {
    # The index is written behind its owner's answers, so that one that runs changes it at any time.
    local index=${PIDS[a]:+./db}
    (
        cd "$1" && find . -path "${index:-/}" -prune -o -printf '%y %m %s %p\n' | sort &&
            find . -path "${index:-/}" -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum
    )
}

# refuses WHAT DATA [flags]: runs serve on DATA with these flags.
refuses() {
    local what=$1 data=$2 status=0 before lines
    shift 2
    before=$(contents "$data")
    timeout -k 1 $QUICKLY "$SAMPAN" serve --data "$data" "$@" >"$WORK/stdout" 2>"$WORK/stderr" || status=$?
    lines=$(grep -c . "$WORK/stderr" || true)
    ((status != 0)) || fail "$what: exit status 0"
    ((status != 124 && status != 137)) || fail "$what: it ran on"
    ((status < 126)) || fail "$what: it broke with exit status $status: $(<"$WORK/stderr")"
    ((lines == 1)) || fail "$what: $lines lines on stderr: $(<"$WORK/stderr")"
    same "$what: the data directory" "$before" "$(contents "$data")"
    say "$what: $(<"$WORK/stderr")"
}

serve a "${PORTS[@]}"
refuses "a second process on one data directory" "$WORK/a" "${OTHERS[@]}"
sampan a name >/dev/null || fail "the first process does not answer any more"
stop a
cp -a "$WORK/a" "$WORK/fresh" # a data directory that nobody uses

python3 -m http.server --bind 127.0.0.1 5050 >/dev/null 2>&1 &
PIDS[http]=$!
eventually 10 "the port is taken" curl -fs "http://$ADDRESS/"
refuses "a port in use" "$WORK/a" "${PORTS[@]}"
kill "${PIDS[http]}"

refuses "an unknown flag" "$WORK/a" "${PORTS[@]}" --adr 127.0.0.1:1
refuses "an address that is none" "$WORK/a" --addr nowhere
refuses "a name that is no IPNS name" "$WORK/a" "${PORTS[@]}" --follow library/alpine
refuses "a configuration file that is not there" "$WORK/a" "${PORTS[@]}" --config "$WORK/none.yml"

[[ -f $WORK/a/VERSION ]] || fail "the data directory has no VERSION"
sed -i 's/[0-9][0-9.]*/9999/' "$WORK/a/VERSION"
refuses "a data directory of a newer version" "$WORK/a" "${PORTS[@]}"
rm -r "$WORK/a" && cp -a "$WORK/fresh" "$WORK/a"

keys=("$WORK"/a/keys/*.key)
[[ -f ${keys[0]} ]] || fail "the data directory has no key file"
head -c 40 /dev/urandom >"${keys[0]}"
refuses "a key file that does not parse" "$WORK/a" "${PORTS[@]}"
rm -r "$WORK/a" && cp -a "$WORK/fresh" "$WORK/a"

as_root "a read-only mount"
read_only() { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }
read_only "$WORK/a"
refuses "a data directory that cannot be written" "$WORK/a" "${PORTS[@]}"
mkdir "$WORK/empty"
read_only "$WORK/empty"
refuses "an empty directory that cannot be written" "$WORK/empty" "${PORTS[@]}"
umount "$WORK/empty" "$WORK/a"

serve a "${PORTS[@]}" # after all that it still starts
stop a
