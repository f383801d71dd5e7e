#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, two at a time, each from its seeds in fuzz/corpus. A finding is an error; its bytes
# stay in target/fuzz/findings, and the last line says how to run them again.
#
#   tests/long/fuzz.sh [--seconds N] [TARGET...]     30 s for each target if not said; all targets if none is named
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

SECONDS_EACH=30
targets=()
while (($#)); do
    case $1 in
        --seconds) SECONDS_EACH=$2 && shift ;;
        *) targets+=("$1") ;;
    esac
    shift
done
((${#targets[@]})) || mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' ./*.rs | sed 's|^\./||; s|\.rs$||')

tests/outer/install.sh cargo-fuzz c++
PATH=$PWD/tests/.cache/bin:$PATH
# The same versions of everything as in the program.
cp Cargo.lock fuzz/Cargo.lock
# No sanitizer but the checks of Rust: it is forbidden to need one. What measures coverage works with a stable compiler.
cargo fuzz build --sanitizer none --codegen-units 16 --target-dir target/fuzz >target/fuzz-build.log 2>&1 || {
    tail -20 target/fuzz-build.log >&2
    exit 1
}
built=$(dirname "$(find target/fuzz -path '*/release/*' -name "${targets[0]}" -type f -perm -u+x -print -quit)")
findings=target/fuzz/findings
rm -rf "$findings" target/fuzz/grown
mkdir -p "$findings"

run() {
    local target=$1 log=$findings/$1.log grown=target/fuzz/grown/$1
    mkdir -p "$grown"
    # 2 GiB and 20 s for one input are far more than any parser may take.
    if "$BUILT/$target" "$grown" "fuzz/corpus/$target" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="$findings/$target-" -print_final_stats=1 >"$log" 2>&1; then
        printf '%-16s %s runs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        tail -30 "$log"
        printf 'FAILED %s: cargo fuzz run --sanitizer none %s %s\n' "$target" "$target" \
            "$(find "$findings" -name "$target-*" -print -quit)"
        return 255 # ends xargs
    fi
}
export -f run
export SECONDS_EACH findings BUILT=$built
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -euo pipefail -c 'run {}'
