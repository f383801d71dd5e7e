#!/usr/bin/env bash
# Runs the OCI conformance suite, every switch on, against a fresh server, prints its counts and the names of what
# failed or was skipped, and keeps the report in target/conformance.
#
#   tests/outer/conformance.sh [WAY] [--max-failures N]     N is 0 if not said; more that fail or are skipped are an error
#
# WAY is how the registry is guarded: `plain` (that is the default: HTTP, and no passwords), `password` (HTTPS and
# htpasswd), `token` (tokens of a token server, with a JWK set), or `bundle` (the same with its certificate).
# shellcheck source=tests/outer/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/outer/registries.sh
source "$(dirname "$0")/registries.sh"

WAY=plain
MAX=0
while (($#)); do
    case $1 in
        --max-failures) MAX=$2 && shift ;;
        plain | password | token | bundle) WAY=$1 ;;
        *) fail "conformance.sh knows no $1" ;;
    esac
    shift
done
ADDRESS=127.0.0.1:5030

tools conformance curl python3 openssl htpasswd
under_test

export OCI_TLS=disabled
case $WAY in
    plain) registry a $ADDRESS sparse ;; # the suite pushes sparse manifests too; whether they are taken is a policy
    password)
        authority
        certificate 127.0.0.1
        passwords
        registry a $ADDRESS sparse tls password
        export OCI_TLS=enabled SSL_CERT_FILE=$WORK/authority/ca.crt
        ;;
    token | bundle)
        token_server 127.0.0.1:5031
        registry a $ADDRESS sparse "$WAY"
        ;;
esac
[[ $WAY == plain ]] || export OCI_USERNAME=$USERNAME OCI_PASSWORD=$PASSWORD

results=$ROOT/target/conformance/$WAY
rm -rf "$results"
mkdir -p "$results"
OCI_REGISTRY=$ADDRESS OCI_VERSION=dev OCI_DATA_SPARSE=true OCI_RESULTS_DIR=$results \
    timeout 600 conformance >"$results/output.txt" 2>&1 || [[ $? -eq 1 ]] || fail "the suite itself broke: $results/output.txt"

python3 - "$results/junit.xml" "$WAY" "$MAX" <<'PYTHON'
import sys
import xml.etree.ElementTree as xml

root = xml.parse(sys.argv[1]).getroot()
way, most = sys.argv[2], int(sys.argv[3])
for case in root.iter("testcase"):
    for fate in ("failure", "error", "skipped"):
        if case.find(fate) is not None:
            print(f"  {fate}:", case.get("classname") or "", case.get("name"))
tests, failures, errors, skipped = (int(root.get(name) or 0) for name in ("tests", "failures", "errors", "skipped"))
print(f"conformance, {way}: {tests} tests, {failures + errors} failures, {skipped} skipped")
if tests == 0:
    sys.exit("conformance: FAILED: the suite ran no test")
if failures + errors + skipped > most:
    sys.exit(f"conformance: FAILED: more than {most} failed or were skipped")
PYTHON
retire a
