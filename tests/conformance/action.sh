#!/usr/bin/env bash
# The script of action.yml. It installs the suite in its own environment, tests $IMPLEMENTATION, and writes
# results.jsonl, report.html and badge.json. It passes their directory and the suite's exit status to the
# workflow. Its own exit status is 0, so that a workflow can distinguish the statuses 1 and 2 of the suite.
set -euo pipefail

pass() { printf '%s\n' "$1" >>"$GITHUB_OUTPUT"; }

cannot_test() {
    printf '::error title=postprox conformance::The program was not tested: %s\n' "$1"
    printf 'The program was not tested: %s\n' "$1" >>"$GITHUB_STEP_SUMMARY"
    pass status=2
    exit 0
}

directory=$(mktemp -d "${RUNNER_TEMP:-/tmp}/postprox-conformance.XXXXXX")
pass "directory=$directory"
as_root=()
case ${ROOT:-auto} in
auto)
    # Only root can have a private /dev/log and private file systems.
    if [ "$(id -u)" != 0 ]; then
        if sudo -n unshare --mount true 2>/dev/null; then
            as_root=(sudo -n env "PATH=$PATH" "HOME=$HOME")
        else
            echo '::notice title=postprox conformance::Without root, some transcripts are skipped.'
        fi
    fi
    ;;
no) ;;
*) cannot_test "root is '$ROOT', but must be auto or no" ;;
esac

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    cannot_test "$PYTHON is not Python 3.11 or later"
"$PYTHON" -m venv "$directory/environment" || cannot_test "$PYTHON cannot create an environment"
"$directory/environment/bin/pip" install --quiet "${RELEASE:-$SUITE}" ||
    cannot_test "pip cannot install ${RELEASE:-$SUITE}"
suite=("$directory/environment/bin/postprox-conformance")
"${suite[@]}" --version

status=0
# shellcheck disable=SC2086  # several arguments
"${as_root[@]}" "${suite[@]}" run "$IMPLEMENTATION" ${ARGUMENTS:-} \
    --results "$directory/results.jsonl" --html "$directory/report.html" \
    --markdown "$directory/report.md" --badge "$directory/badge.json" || status=$?
if [ "${#as_root[@]}" -gt 0 ]; then
    sudo -n chown -R "$(id -u):$(id -g)" "$directory"
fi
if [ -e "$directory/report.md" ]; then
    # A job summary is limited to 1 MiB.
    head -c 1000000 "$directory/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
case $status in
0) ;;
1) echo '::error title=postprox conformance::The program is not conformant.' ;;
*) cannot_test "the suite ended with status $status" ;;
esac
pass "status=$status"
