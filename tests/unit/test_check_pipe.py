"""postprox-check: filter scripts that were written for the simple content filter of Postfix."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from postprox.check.scripts import sending, shell
from postprox.check.scripts.mistake import Kind
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
ROOT = Path(__file__).parents[2]
#: The script in Postfix's FILTER_README.
SIMPLE = """#!/bin/sh
INSPECT_DIR=/tmp
SENDMAIL="/usr/sbin/sendmail -G -i"
trap "rm -f in.$$" 0 1 2 3 15
cd $INSPECT_DIR || exit 75
cat >in.$$ || { echo Cannot save mail to file; exit 75; }
grep -q EICAR in.$$ && { echo Message content rejected; exit 69; }
$SENDMAIL "$@" <in.$$
exit $?
"""
REJECTION = "echo Message content rejected; exit 69"
SENDS = '/usr/sbin/sendmail -G -i -f "$SENDER" -- "$RECIPIENT"'


def mended(text: str, sends: str = "exit 0") -> str:
    text = text.replace("cat >in", 'cat "$EMAIL" >in').replace('$SENDMAIL "$@" <in.$$', sends)
    return text.replace(REJECTION, ">&2 echo 550 5.7.1 Message content rejected; exit 1")


def test_simple_content_filter_is_corrected(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.filter.write_text(SIMPLE)
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.names()) == (2, ["exit-status", "filter"])
    assert "never reads the message" in checked.problem
    assert "all mail is deferred" in checked.problem
    apply(site, checked)
    assert site.filter.read_text() == mended(SIMPLE)
    assert check(site, capsys, "--offline").names() == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("", "all mail is deferred"),
        (' -f "$SENDER" -- "$RECIPIENT"', "all mail passes unfiltered"),
        (' "$EMAIL" "$RECIPIENT"', "sends the message itself"),
        (" $OTHER", ""),
    ],
)
def test_report_depends_on_arguments_of_simple_content_filter(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: str, problem: str
) -> None:
    site.filter.write_text(SIMPLE)
    command = f"{site.filter}{arguments}"
    site.write(site.arguments.replace(str(site.filter), shlex.quote(command).replace("$", "$$")))
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["exit-status", *["filter"] * bool(problem)]
    assert problem in checked.problem


def test_lost_message_is_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.filter.write_text(
        '#!/bin/sh\ncat > /srv/in.$$\n{ echo "X-A: b"; cat /srv/in.$$; } > "$OUTFILE"\n'
    )
    checked = check(site, capsys, "--offline")
    assert "the filter checks nothing, and each message loses its header" in checked.problem


def test_filter_that_sends_message_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SIMPLE.replace("cat >in", 'cat "$EMAIL" >in').replace('$SENDMAIL "$@" <', f"{SENDS} < ")
    site.filter.write_text(text)
    checked = check(site, capsys, "--offline")
    assert (checked.status, checked.names()) == (2, ["exit-status", "filter"])
    assert "sendmail(1) fails because of NoNewPrivileges=yes" in checked.problem
    apply(site, checked)
    assert site.filter.read_text() == mended(SIMPLE)
    assert check(site, capsys, "--offline").names() == []


@pytest.mark.parametrize(
    ("main", "effect"),
    [
        ("smtpd_proxy_filter = 127.0.0.1:10025\n", "mail is delivered twice"),
        ("content_filter = scan:[127.0.0.1]:10025\n", "so mail loops"),
    ],
)
def test_effect_of_sent_message_depends_on_route(
    site: Site, capsys: pytest.CaptureFixture[str], main: str, effect: str
) -> None:
    site.filter.write_text(f'#!/bin/sh\n{SENDS} < "$EMAIL"\n')
    site.write(site.arguments, "NoNewPrivileges=no")
    site.main = main
    site.master += "pickup unix n - n 60 1 pickup\n"
    assert effect in check(site, capsys, "--offline").problem


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ('cat > in.$$\nspamc -x < in.$$ > out.$$\n/usr/sbin/sendmail "$@" < out.$$', "unsent", 1),
        ('SC=spamc\nSM=/usr/sbin/sendmail\n${SC} | ${SM} "$@"\nexit $?', "unsent", 3),
        ('spamc | sendmail -oi -f "$@"', "unsent", 1),
        ('cat > "$T"\nexec sendmail -i "$@" < "$T"', "unsent", 1),
        ('sendmail -i "$@"', "unsent", 1),
        ("tee in.$$ > /dev/null\ngrep -q EICAR in.$$ && exit 1\nexit 0", "unread", 1),
        ("cat - > in.$$\nmyscan in.$$", "unread", 1),
        ('clamdscan --no-summary "$1" || exit 1', "unsent", 1),
        ('spamc < "$EMAIL" | sendmail -i -f "$SENDER" $RECIPIENTS', "resent", 1),
        ('cat "$EMAIL" | sendmail -ti', "resent", 1),
        ('cp "${EMAIL}" x\nif ! grep -q y x; then sendmail $RECIPIENT < x; fi', "resent", 2),
    ],
)
def test_script_for_pipe_is_found(text: str, kind: str, number: int) -> None:
    (found,) = sending.mistakes(f"{text}\n")
    assert (found.kind, found.number) == (kind, number)


@pytest.mark.parametrize(
    "text",
    [
        'grep -q x "$EMAIL" && echo "found x" | sendmail admin@example.com',
        'grep -q x "$EMAIL" && echo "found x" | sendmail "$RECIPIENT"',
        'sendmail -t <<X\nTo: admin\n\n$SENDER\nX\ngrep -q x "$EMAIL"',
        'sendmail admin@example.com < "$EMAIL"',
        'sendmail -f "$SENDER" admin@example.com < "$EMAIL"',
        'formail -r < "$EMAIL" | sendmail -t',
        'head -n 20 "$EMAIL" > x\nsendmail "$RECIPIENT" < x',
        '{ echo "Subject: x"; echo; cat "$EMAIL"; } | sendmail -t "$RECIPIENT"',
        'spamc -R < "$EMAIL" | sendmail "$RECIPIENT"',
        'sendmail -C /etc/postfix-out "$RECIPIENT" < "$EMAIL"',
        'MAIL_CONFIG=/etc/out sendmail "$RECIPIENT" < "$EMAIL"',
        'sendmail "$RECIPIENT" < "$EMAIL"\nexit 1',
        'echo x > t\nsendmail "$RECIPIENT" < t\ngrep -q y "$EMAIL"',
        "myscan || echo virus | sendmail admin",
        "myscan || sendmail -t < /etc/virus-notice",
        'exec /usr/local/bin/scan "$@"',
        'nice /usr/local/bin/scan "$@"',
        "cat > in.$$\npython3 scan.py in.$$",
        ". /etc/default/scan\ncat > in.$$\ngrep -q x in.$$",
        "save() { cat > x; }\nmyscan | save\ngrep -q x x",
        'set -- $(ls)\nclamdscan "$1"',
        "cat > /dev/null\nmyscan",
        "cat > x <<X\na\nX\ngrep a x",
        "awk '{print $1}' x | cat > y; grep y y",
        "myscan | cat > x\ngrep x x",
    ],
)
def test_script_not_written_for_pipe_is_not_reported(text: str) -> None:
    assert list(sending.mistakes(f"{text}\n")) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples/filters").glob("*.sh")), ids=lambda path: path.name
)
def test_example_filter_contains_no_pipe_mistakes(file: Path) -> None:
    assert list(sending.mistakes(file.read_text())) == []


COPY = """\
#!/bin/sh
SENDMAIL="/usr/sbin/sendmail -G -i"
if grep -q virus "$EMAIL"; then echo '550 5.7.1 No' >&2; exit 1; fi
{ echo 'X-A: b'; cat "$EMAIL"; } | $SENDMAIL -f "$SENDER" -- "$RECIPIENT" || exit 75
exit 0
"""


def test_marked_copy_is_written_to_outfile_instead_of_sent() -> None:
    (found,) = sending.mistakes(COPY)
    assert found.kind == Kind.RESENT
    sed = subprocess.run(
        ["/bin/sed", found.correction], input=COPY, capture_output=True, text=True, check=True
    )
    assert '{ echo \'X-A: b\'; cat "$EMAIL"; } > "$OUTFILE" || exit 2\n' in sed.stdout
    assert list(sending.mistakes(sed.stdout)) == []


NOTICE = """\
#!/bin/sh
if grep -q virus "$EMAIL"; then
    {
        echo "Subject: a virus"
        echo
        cat "$EMAIL"
    } | /usr/sbin/sendmail -i root
    echo '550 5.7.1 No' >&2
    exit 1
fi
"""


@pytest.mark.parametrize(
    ("notice", "kind"),
    [
        ("/usr/sbin/sendmail root <<END\nSubject: Virus\n\nA virus.\nEND", "announced"),
        ('{\necho "Subject: a Virus"\necho\n} | /usr/sbin/sendmail root', "announced"),
        ("printf 'Subject: Virus\\n\\n' | sendmail root", "announced"),
        ('echo "from $SENDER" | mail -s "Virus found" root', "announced"),
        ("/usr/sbin/sendmail root <<END\nSubject: Found\nEND", ""),
        ("logger -t mail-filter 'a Virus'", ""),
        ("echo 'A virus'", ""),
    ],
)
def test_notice_with_searched_word_is_corrected(notice: str, kind: str) -> None:
    script = f'#!/bin/sh\nif grep -qi virus "$EMAIL"; then\n{notice}\nexit 1\nfi\n'
    found = list(sending.mistakes(script))
    assert [each.kind for each in found] == [kind] * bool(kind)
    for each in found:
        sed = subprocess.run(
            ["/bin/sed", each.correction], input=script, capture_output=True, text=True, check=True
        )
        assert list(sending.mistakes(sed.stdout)) == []


def test_notice_contains_only_the_header_of_the_message() -> None:
    (found,) = sending.mistakes(NOTICE)
    assert (found.kind, found.number) == (Kind.ECHOED, 6)
    sed = subprocess.run(
        ["/bin/sed", found.correction], input=NOTICE, capture_output=True, text=True, check=True
    )
    assert '        sed "/^$/q" "$EMAIL"\n    } | /usr/sbin/sendmail' in sed.stdout
    assert list(sending.mistakes(sed.stdout)) == []


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("message=$(cat)", 'message=$(cat "$EMAIL")'),
        ('message="$(cat -)";', 'message="$(cat "$EMAIL")";'),
        ('cat > "$MSG"', 'cat "$EMAIL" > "$MSG"'),
        ("cat > $MSG || exit 2", 'cat "$EMAIL" > $MSG || exit 2'),
        ('message=$(cat "$EMAIL")', ""),
        ('grep x "$EMAIL" |\ncat > "$MSG"', ""),
        ('exec < "$EMAIL"\nmessage=$(cat)', ""),
        ("if true; then\nmessage=$(cat)\nfi", ""),
    ],
)
def test_read_of_standard_input_is_replaced_with_email(line: str, new: str) -> None:
    script = f'#!/bin/sh\n{line}\ncp "$EMAIL" "$OUTFILE" || exit 2\nexit 0\n'
    found = [each for each in shell.mistakes(script) if each.kind == Kind.INPUT]
    assert len(found) == bool(new)
    for each in found:
        sed = ["/bin/sed", each.correction]
        done = subprocess.run(sed, input=script, capture_output=True, text=True, check=True)
        assert done.stdout == script.replace(line, new)


def test_marked_copy_on_two_lines_becomes_the_result() -> None:
    script = (
        '#!/bin/sh\n{ echo "X-A: b"; cat "$EMAIL"; } |\n'
        '    /usr/sbin/sendmail -G -i -f "$SENDER" -- $RECIPIENTS || exit 75\nexit 0\n'
    )
    (found,) = sending.mistakes(script)
    assert found.kind == Kind.RESENT
    sed = ["/bin/sed", found.correction]
    done = subprocess.run(sed, input=script, capture_output=True, text=True, check=True)
    assert done.stdout == (
        '#!/bin/sh\n{ echo "X-A: b"; cat "$EMAIL"; } > "$OUTFILE" || exit 2\nexit 0\n'
    )


def test_result_is_not_also_sent() -> None:
    script = (
        '#!/bin/sh\n{ echo "X-A: b"; cat "$EMAIL"; } > "$OUTFILE" || exit 2\n'
        '/usr/sbin/sendmail -G -i -f "$SENDER" -- $RECIPIENTS < "$OUTFILE" || exit 75\n'
    )
    (found,) = sending.mistakes(script)
    assert (found.kind, found.number) == (Kind.RESENT, 3)
    assert found.correction == "3s/.*/exit 0/"
