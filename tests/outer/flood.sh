#!/usr/bin/env bash
# Transfers while 2,000 connections mean no good: wrong passwords, bodies and heads that trickle a byte a second,
# handshakes that are never finished (flood.py). A pull and a push go on all the time, again and again, and each must
# come to its end, whole; so must a small request now and then; and the server's memory stays under its bound.
#
#   tests/outer/flood.sh                         256 MiB, 20 s
#   tests/outer/flood.sh --kinds reader          one kind alone, or some of them; flood.py has their names
#   tests/outer/flood.sh --each                  the mixture, then each kind that is dear alone
#   tests/outer/flood.sh --full                  1 GiB, 60 s, and a log in docs/evidence
#   tests/outer/flood.sh [--seconds N] [--size MIB] [--connections N] [--no-auth] [--no-tls] [--kinds A,B]
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

SIZE=256 SECONDS_OF_FLOOD=20 CONNECTIONS=2000 AUTH=1 TLS=1 KINDS='' FULL=''
EACH=('password,body,head,handshake' reader fat_head body)
MEMORY=96    # MiB that the server may have resident at its peak
ANSWER=10    # seconds within which a small request must be answered
TRANSFER=300 # seconds within which a transfer must end
ADDRESS=127.0.0.1:5070
USER_NAME=boat PASSWORD=$RANDOM-$RANDOM

arguments=()
for argument; do
    [[ $argument == --each ]] || arguments+=("$argument")
done
if ((${#arguments[@]} < $#)); then
    for kinds in "${EACH[@]}"; do
        "$0" "${arguments[@]}" --kinds "$kinds"
    done
    exit
fi

while (($#)); do
    case $1 in
        --full) SIZE=1024 SECONDS_OF_FLOOD=60 FULL=1 ;;
        --seconds) SECONDS_OF_FLOOD=$2 && shift ;;
        --size) SIZE=$2 && shift ;;
        --connections) CONNECTIONS=$2 && shift ;;
        --no-auth) AUTH= ;;
        --no-tls) TLS= ;;
        --kinds) KINDS=$2 && shift ;;
        *) fail "what is $1?" ;;
    esac
    shift
done

tools curl jq python3 ${AUTH:+htpasswd} ${TLS:+openssl}
binary
ulimit -n "$(ulimit -H -n)"

url=http://$ADDRESS
curl=(curl -fsS -H "Expect:")
cat >"$WORK/config.yml" <<CONFIG
version: 0.1
http:
  addr: $ADDRESS
CONFIG
if [[ -n $TLS ]]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$WORK/tls.key" -out "$WORK/tls.crt" 2>"$WORK/openssl.log" || fail "no certificate"
    printf '  tls:\n    certificate: %s\n    key: %s\n' "$WORK/tls.crt" "$WORK/tls.key" >>"$WORK/config.yml"
    url=https://$ADDRESS
    curl+=(--cacert "$WORK/tls.crt")
fi
if [[ -n $AUTH ]]; then
    htpasswd -Bbc "$WORK/htpasswd" "$USER_NAME" "$PASSWORD" 2>/dev/null
    printf 'auth:\n  htpasswd:\n    realm: flood\n    path: %s\n' "$WORK/htpasswd" >>"$WORK/config.yml"
    curl+=(-u "$USER_NAME:$PASSWORD")
fi

# push REPOSITORY: $WORK/layer, in one PUT.
push() {
    local location
    location=$("${curl[@]}" --max-time $TRANSFER -X POST -o /dev/null -D - "$url/v2/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^location: //Ip') || return
    [[ $location == http* ]] || location=$url$location
    "${curl[@]}" --max-time $TRANSFER -T "$WORK/layer" -H "Content-Type: application/octet-stream" \
        "$location$([[ $location == *\?* ]] && echo '&' || echo '?')digest=$digest"
}

pull() { [[ $("${curl[@]}" --max-time $TRANSFER "$url/v2/flood/image/blobs/$digest" | sha256sum) == "${digest#sha256:} "* ]]; }

# while_flooded COMMAND...: again and again until the flood is over; prints how often and the longest seconds it took.
while_flooded() {
    local times=0 longest=0 began took
    while kill -0 "${PIDS[flood]}" 2>/dev/null; do
        began=$EPOCHREALTIME
        "$@" || return
        took=$(jq -n "($EPOCHREALTIME - $began) * 1000 | round / 1000")
        times=$((times + 1)) longest=$(jq -n "[$longest, $took] | max")
    done
    echo "$times times, at most $longest s"
}

probe() { "${curl[@]}" --max-time $ANSWER -o "$WORK/answer" "$url/v2/" && sleep 0.2; }

head -c "${SIZE}M" /dev/urandom >"$WORK/layer"
digest=sha256:$(sha256sum "$WORK/layer" | cut -d ' ' -f 1)
"$SAMPAN" serve --data "$WORK/a" --config "$WORK/config.yml" --p2p /ip4/127.0.0.1/tcp/4070 >>"$WORK/a.log" 2>&1 &
PIDS[a]=$!
eventually $READY "the server answers" "${curl[@]}" "$url/v2/"
push flood/image || fail "the first push"
grep -q VmHWM "/proc/${PIDS[a]}/status" || fail "the server is gone"
say "memory at the peak of the first push: $(($(awk '/VmHWM/ { print $2 }' "/proc/${PIDS[a]}/status") / 1024)) MiB"

python3 "$ROOT/tests/outer/flood.py" --address $ADDRESS --connections "$CONNECTIONS" --seconds "$SECONDS_OF_FLOOD" \
    ${AUTH:+--user "$USER_NAME:$PASSWORD"} ${TLS:+--tls} ${KINDS:+--kinds "$KINDS"} \
    --layer "/v2/flood/image/blobs/$digest" >"$WORK/flood.log" 2>&1 &
PIDS[flood]=$!
eventually 60 "the flood is up" grep -q ^up "$WORK/flood.log"
while_flooded pull >"$WORK/pulls.log" 2>&1 &
pulls=$!
while_flooded push flood/pushed >"$WORK/pushes.log" 2>&1 &
pushes=$!
while_flooded probe >"$WORK/probes.log" 2>&1 &
probes=$!
wait $pulls || fail "a pull did not come to its end"
wait $pushes || fail "a push did not come to its end"
wait $probes || fail "a small request was not answered within $ANSWER s"
wait "${PIDS[flood]}" || fail "the flood ended early"
unset "PIDS[flood]"

peak=$(($(awk '/VmHWM/ { print $2 }' "/proc/${PIDS[a]}/status") / 1024))
sed 's/^/  /' "$WORK/flood.log"
say "$SIZE MiB pulled $(<"$WORK/pulls.log"); pushed $(<"$WORK/pushes.log"); small requests $(<"$WORK/probes.log")"
say "memory at the peak: $peak MiB"
pull || fail "a pull after the flood"
stop a
if [[ -n $FULL ]]; then
    {
        cat "$WORK/flood.log"
        echo "$SIZE MiB pulled $(<"$WORK/pulls.log"); pushed $(<"$WORK/pushes.log"); small requests $(<"$WORK/probes.log")"
        echo "memory at the peak: $peak MiB of $MEMORY MiB"
    } | record flood >"$WORK/recorded"
fi
((peak < MEMORY)) || fail "$peak MiB resident at the peak, $MEMORY MiB are allowed"
