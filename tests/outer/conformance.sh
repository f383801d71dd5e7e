#!/usr/bin/env bash
# Runs the OCI conformance suite, every switch on, against a fresh server, prints its counts and the names of what
# failed, and keeps the report in target/conformance.
#
#   tests/outer/conformance.sh [--max-failures N]     N is 0 if not said; more failures than that are an error
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"

MAX=0
[[ ${1:-} == --max-failures ]] && MAX=$2

tools conformance curl python3
binary
# The suite pushes sparse manifests too; whether they are taken is a policy.
echo "sparse: true" >"$WORK/sparse.yml"
serve a --addr 127.0.0.1:5030 --p2p /ip4/127.0.0.1/tcp/4030 --config "$WORK/sparse.yml"

results=$ROOT/target/conformance
rm -rf "$results"
mkdir -p "$results"
OCI_REGISTRY=127.0.0.1:5030 OCI_TLS=disabled OCI_VERSION=dev OCI_DATA_SPARSE=true OCI_RESULTS_DIR=$results \
    timeout 600 conformance >"$results/output.txt" 2>&1 || [[ $? -eq 1 ]] || fail "the suite itself broke: $results/output.txt"

python3 - "$results/junit.xml" "$MAX" <<'PYTHON'
import sys
import xml.etree.ElementTree as xml

root = xml.parse(sys.argv[1]).getroot()
failed = [case for case in root.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
for case in failed:
    print("  failed:", case.get("classname") or "", case.get("name"))
tests, failures, skipped = (int(root.get(name) or 0) for name in ("tests", "failures", "skipped"))
errors = int(root.get("errors") or 0)
print(f"conformance: {tests} tests, {failures + errors} failures, {skipped} skipped")
if tests == 0:
    sys.exit("conformance: FAILED: the suite ran no test")
if failures + errors > int(sys.argv[2]):
    sys.exit(f"conformance: FAILED: more than {sys.argv[2]} failures")
PYTHON
stop a
