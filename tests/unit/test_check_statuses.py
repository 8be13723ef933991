"""postprox-check: lines of a script that lose or confuse the exit status of a program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postprox.check.scripts import replies, statuses
from postprox.check.scripts.lines import code_lines
from postprox.check.scripts.mistake import Kind, Mistake
from tests.unit.test_check_results import run
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
EXAMPLES = Path(__file__).parents[2] / "examples/filters"
SCAN = '{scanner} --no-summary - < "$EMAIL"'
REPLY = "echo '550 5.7.1 a virus' >&2"
#: A stand-in for clamdscan(1), which fails unless clamd runs.
SCANNER = """\
#!/bin/sh
[ "$CLAMD" = up ] || { echo "ERROR: no clamd" >&2; exit 2; }
if grep -q virus; then echo "stream: Test FOUND"; exit 1; fi
echo "stream: OK"
"""


def mistakes(script: str) -> list[Mistake]:
    """Return the mistakes in the use of exit statuses."""
    code = list(code_lines(script))
    return [*statuses.mistakes(script, code), *replies.mistakes(code)]


def kinds(script: str) -> list[str]:
    return [found.kind for found in mistakes(script)]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_example_filter_ignores_no_exit_status(file: Path) -> None:
    assert kinds(file.read_text()) == []


@pytest.mark.parametrize(
    "script",
    [
        f"if {SCAN} | grep -q 'FOUND$'; then {REPLY}; exit 1; fi",
        f"if ! {SCAN} 2>&1 | grep FOUND >/dev/null; then exit 0; fi\n{REPLY}; exit 1",
        f"if [ -z x ]; then :\nelif {SCAN} | grep -q FOUND\nthen\n{REPLY}\nexit 1\nfi",
        f"{SCAN} | grep -q FOUND && {{ {REPLY}; exit 1; }}\nexit 0",
        f'[ -s "$EMAIL" ] && {SCAN} | grep -q FOUND && {{ {REPLY}; exit 1; }}\nexit 0',
        f'name=$({SCAN} | grep FOUND)\nif [ -n "$name" ]; then {REPLY}; exit 1; fi',
        f'name="$({SCAN} | grep FOUND | cut -d: -f2)"\n[ -z "$name" ] || {{ {REPLY}; exit 1; }}',
        f'if cat "$EMAIL" | {{scanner}} - | grep -q FOUND; then {REPLY}; exit 1; fi',
        f'out=$({SCAN})\nif echo "$out" | grep -q FOUND; then {REPLY}; exit 1; fi',
        f"set -e\nif {SCAN} | grep -q FOUND; then {REPLY}; exit 1; fi",
        f"{SCAN} > /dev/null 2>&1\nif [ $? -eq 1 ]; then {REPLY}; exit 1; fi\nexit 0",
        f'{SCAN} > /dev/null\n[ "$?" = 1 ] && {{ {REPLY}; exit 1; }}\nexit 0',
        f"{SCAN} > /dev/null\ns=$?\nif [ $s -eq 1 ]; then {REPLY}; exit 1; fi\nexit 0",
    ],
)
def test_remedy_tests_status_of_scanner(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, script: str
) -> None:
    scanner, mail = tmp_path / "clamdscan", tmp_path / "mail"
    scanner.write_text(SCANNER)
    scanner.chmod(0o755)
    site.filter.write_text(f"#!/bin/sh\n{script.replace('{scanner}', str(scanner))}\n")
    checked = check(site, capsys)
    assert checked.names() == ["exit-status"]
    assert "if the scanner fails" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    results = []
    for text in ("a virus\n", "harmless\n"):
        mail.write_text(text)
        results += [run(site.filter, mail, CLAMD="up"), run(site.filter, mail, CLAMD="down")]
    assert results == [1, 2, 0, 2]


@pytest.mark.parametrize(
    "script",
    [
        f"if {SCAN} | grep -q ' OK$'; then exit 0; fi\nexit 2",
        f"clamdscan --ping 1 || exit 2\nif {SCAN} | grep -q FOUND; then exit 1; fi",
        f"set -o pipefail\nif {SCAN} | grep -q FOUND; then exit 1; fi",
        f'out=$({SCAN})\ns=$?\necho "$out" | grep -q FOUND && exit 1\n[ $s = 0 ] || exit 2',
        f'out=$({SCAN}) || exit 1\necho "$out" | grep -q FOUND',
        f'set -e\nout=$({SCAN})\necho "$out" | grep -q FOUND',
        f"if {SCAN} | grep -q FOUND; then exit 1; fi\n{SCAN} || exit 2",
        f"echo '{SCAN} | grep -q FOUND'",
        f"[ -S /run/clamd.ctl ] || exit 2\nif {SCAN} | grep -q FOUND; then exit 1; fi",
        f'out=$({SCAN})\n[ -n "$out" ] || exit 2\nif echo "$out" | grep -q FOUND; then exit 1; fi',
        f"out=$({SCAN})\ncase $out in\n*FOUND*) exit 1 ;;\n'') exit 2 ;;\nesac",
        f"# {SCAN} | grep -q FOUND",
        f"{SCAN}\ncase $? in\n0) ;;\n1) exit 1 ;;\n*) exit 2 ;;\nesac",
        f"{SCAN}\ns=$?\n[ $s -eq 1 ] && exit 1\n[ $s -eq 0 ] || exit 2",
        f"{SCAN} || [ $? -eq 1 ] || exit 2",
    ],
)
def test_scanner_whose_status_is_used_is_not_reported(script: str) -> None:
    assert kinds(f"#!/bin/sh\n{script.replace('{scanner}', 'clamdscan')}\n") == []


@pytest.mark.parametrize(
    "script",
    [
        'if grep -q virus "$EMAIL"; then\necho "Message content rejected" >&2\nexit 69\nfi',
        "EX_UNAVAILABLE=69\nif grep -q virus $EMAIL; then\necho 'virus'\nexit $EX_UNAVAILABLE\nfi",
        'R=77\ngrep -q virus "$EMAIL" && { echo Message content rejected; exit ${R}; }',
        'grep -q virus "$EMAIL" && { printf "spam: %s\\n" "$SENDER" >&2; exit 65; }',
        'R=69\ngrep -q virus "$EMAIL" && { echo "5.7.1 Message rejected" >&2; exit $R; }',
    ],
)
def test_remedy_replaces_status_of_sysexits(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, script: str
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{script}\nexit 0\n")
    checked = check(site, capsys)
    assert "exit-status" in checked.names()
    assert "sysexits.h" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    mail = tmp_path / "mail"
    mail.write_text("a virus\n")
    assert run(site.filter, mail) == 1
    assert "550 5.7.1 " in site.filter.read_text()


@pytest.mark.parametrize(
    "script",
    [
        'spamc -x < "$EMAIL" > "$OUTFILE" || { echo "spamd is not running" >&2; exit 69; }',
        '[ -f /etc/words ] || { echo "the virus database is missing" >&2; exit 69; }',
        "echo 'Message content rejected' >&2\nexit 75",
        "nc -U /run/x || { echo 'connection refused' >&2; exit 69; }",
        "scan || { echo 'the virus scan was incomplete' >&2; exit 69; }",
        "echo 'Message content rejected' >&2\nexit $status",
        "echo 'Message content rejected' >&2\nexit 1",
        "echo 'Message content rejected' >&2\nfi\nexit 69",
        "exit 69",
    ],
)
def test_exit_status_for_failure_is_not_reported(script: str) -> None:
    assert kinds(f"#!/bin/sh\n{script}\n") == []


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("#!/bin/sh -e", 'hits=$(grep -c -i virus "$EMAIL")'),
        ("#!/bin/sh\nset -eu", 'hits="$(grep virus "$EMAIL")";'),
        ("#!/bin/bash\nset -o errexit", 'hits=$(tr a-z A-Z < "$EMAIL" | grep -c VIRUS)'),
    ],
)
def test_remedy_lets_grep_find_nothing(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, head: str, line: str
) -> None:
    site.filter.write_text(f"{head}\n{line}\nexit 0\n")
    checked = check(site, capsys)
    assert checked.names() == ["exit-status"]
    assert "if grep(1) finds nothing" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    mail = tmp_path / "mail"
    mail.write_text("harmless\n")
    assert run(site.filter, mail) == 0


@pytest.mark.parametrize(
    "script",
    [
        '#!/bin/sh\nhits=$(grep -c virus "$EMAIL")\n',
        '#!/bin/sh -e\nhits=$(grep -c virus "$EMAIL") || true\n',
        '#!/bin/sh -e\nhits=$(grep -c virus "$EMAIL" || true)\n',
        '#!/bin/sh -e\nhits=$(grep virus "$EMAIL" | wc -l)\n',
        '#!/bin/sh -e\nlines=$(grep -c "" "$EMAIL")\n',
        "#!/bin/sh -e\nvalue=$(grep key /etc/filter.conf)\n",
        '#!/bin/sh -e\nif hits=$(grep -c virus "$EMAIL"); then exit 2; fi\n',
        '#!/bin/sh -e\nset +e\nhits=$(grep -c virus "$EMAIL")\nset -e\n',
    ],
)
def test_grep_that_may_find_nothing_is_not_reported(script: str) -> None:
    assert kinds(script) == []


@pytest.mark.parametrize("test", ["if [ $? -eq 0 ]; then", 'if [ "$?" = 0 ]; then'])
def test_remedy_saves_scan_status_before_log_entry(tmp_path: Path, test: str) -> None:
    script = f'#!/bin/sh\ngrep -q virus "$EMAIL"\necho scanned\n{test}\n{REPLY}\nexit 1\nfi\n'
    (found,) = mistakes(script)
    assert found.kind == Kind.STALE
    path, mail = tmp_path / "filter", tmp_path / "mail"
    path.write_text(script)
    path.chmod(0o755)
    subprocess.run(["/bin/sed", "-i", found.correction, str(path)], check=True)
    assert kinds(path.read_text()) == []
    results = []
    for text in ("a virus\n", "harmless\n"):
        mail.write_text(text)
        results.append(run(path, mail))
    assert results == [1, 0]


def test_status_that_is_tested_at_once_is_not_reported() -> None:
    assert kinds('grep -q virus "$EMAIL"\nif [ $? -eq 0 ]; then\necho x\nexit 2\nfi\n') == []
