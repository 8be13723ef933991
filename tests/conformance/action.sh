#!/usr/bin/env bash
# The script of action.yml. It installs the suite in its own environment, tests $IMPLEMENTATION, and writes
# results.jsonl, report.html and badge.json to a directory whose path it passes to the workflow.
set -euo pipefail

directory=$(mktemp -d "${RUNNER_TEMP:-/tmp}/postprox-conformance.XXXXXX")
printf 'directory=%s\n' "$directory" >>"$GITHUB_OUTPUT"
python3 -m venv "$directory/environment"
"$directory/environment/bin/pip" install --quiet "$SUITE"

status=0
# shellcheck disable=SC2086  # several arguments
"$directory/environment/bin/postprox-conformance" run "$IMPLEMENTATION" ${ARGUMENTS:-} \
    --results "$directory/results.jsonl" --html "$directory/report.html" \
    --markdown "$directory/report.md" --badge "$directory/badge.json" || status=$?
if [ -e "$directory/report.md" ]; then
    # A job summary is limited to 1 MiB.
    head -c 1000000 "$directory/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
