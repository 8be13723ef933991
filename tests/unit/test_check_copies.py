"""Mistakes of a filter that damage messages, mix them up or run text from the SMTP session."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postprox.check.scripts import shell
from postprox.check.scripts.mistake import Kind, Mistake

pytestmark = pytest.mark.any_account

EXAMPLES = Path(__file__).parents[2] / "examples/filters"
PIPED = """\
grep virus "$EMAIL" | while read -r line; do
found=1
done
if [ -n "$found" ]; then echo 550 no >&2; exit 1; fi
"""
CORRECTED_LOOP = """\
while read -r line; do [ -n "$line" ] || continue
found=1
done <<END
$(grep virus "$EMAIL")
END
if [ -n "$found" ]; then echo 550 no >&2; exit 1; fi
"""
COPY = 'echo "X-A: b"\nwhile read line; do\necho $line\ndone < "$EMAIL"\n'
BLANK = 'echo "X-A: b"\necho\ncat "$EMAIL"\n'
FIXED = 'cp "$EMAIL" /tmp/mail || exit 2\ngrep -q x /tmp/mail && exit 2\nexit 0\n'
GROUP = '{ echo "X-A: b"; cat "$EMAIL"; } > /tmp/mail\ngrep -q x /tmp/mail && exit 2\nexit 0\n'
TEMPORARY = "copy=$(mktemp) || exit 2; trap 'rm -f \"$copy\"' EXIT\n"


def found_in(script: str) -> list[Mistake]:
    """Return the mistakes in a script for sh(1)."""
    return list(shell.mistakes(f"#!/bin/sh\n{script}"))


def corrected(script: str, found: Mistake) -> str:
    """Return a script for sh(1) after a correction by sed(1)."""
    command, text = ["sed", found.correction], f"#!/bin/sh\n{script}"
    sed = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return sed.stdout


@pytest.mark.parametrize(
    ("script", "kind", "new"),
    [
        (PIPED, Kind.SUBSHELL, CORRECTED_LOOP),
        (COPY, Kind.READ, 'echo "X-A: b"\ncat "$EMAIL"\n'),
        (BLANK, Kind.BLANK, 'echo "X-A: b"\ncat "$EMAIL"\n'),
        (FIXED, Kind.SHARED, TEMPORARY + FIXED.replace("/tmp/mail", '"$copy"')),
        (GROUP, Kind.SHARED, TEMPORARY + GROUP.replace("/tmp/mail", '"$copy"')),
        (
            'sh -c "echo $HELO >> /srv/log"\n',
            Kind.INJECTION,
            "sh -c 'echo $HELO >> /srv/log'\n",
        ),
    ],
)
def test_mistake_is_corrected(script: str, kind: str, new: str) -> None:
    (found,) = found_in(script)
    assert found.kind == kind
    assert corrected(script, found) == f"#!/bin/sh\n{new}"
    assert found_in(new) == []
    assert "\n" not in found.correction


@pytest.mark.parametrize("word", ["virus", "nothing"])
def test_corrected_loop_finds_only_viruses(tmp_path: Path, word: str) -> None:
    mail = tmp_path / "mail"
    mail.write_text(f"Subject: x\n\n{word}\n")
    ended = subprocess.run(
        ["/bin/sh", "-c", CORRECTED_LOOP],
        env={"EMAIL": str(mail)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == (word == "virus")


NAMED = """\
IN=/tmp/mail.in
OUT="/var/tmp/mail.out"
LOG=/tmp/log
cp "$EMAIL" $IN || exit 2
echo x >> $LOG
echo 'X-A: b' > $OUT
cat ${IN} >> "$OUT"
cp "$OUT" "$OUTFILE" || exit 2
"""
OWN = """\
IN=$(mktemp) || exit 2
OUT=$(mktemp) || exit 2
trap 'rm -f "$IN" "$OUT"' EXIT
LOG=/tmp/log
"""


def test_corrected_filter_has_own_temporary_files(tmp_path: Path) -> None:
    (found,) = found_in(NAMED)
    assert (found.kind, found.number) == (Kind.SHARED, 5)
    script = corrected(NAMED, found).partition("\n")[2]
    assert script == OWN + NAMED.partition("log\n")[2]
    assert found_in(script) == []
    mail, out, files = tmp_path / "mail", tmp_path / "out", tmp_path / "files"
    mail.write_text("Subject: x\n\nx\n")
    files.mkdir()
    names = {"EMAIL": str(mail), "OUTFILE": str(out), "TMPDIR": str(files)}
    script = script.replace("/tmp/log", str(tmp_path / "log"))
    subprocess.run(["/bin/sh", "-c", script], env=names, check=True)
    assert out.read_text() == "X-A: b\nSubject: x\n\nx\n"
    assert list(files.iterdir()) == []


def test_corrected_filter_keeps_its_trap() -> None:
    (found,) = found_in(f"C=/tmp/a/b\ntrap 'rm -f $C' EXIT\n{FIXED.replace('/tmp/mail', '$C')}")
    assert found.correction == "2s,C=.*,C=$(mktemp) || exit 2,"


EXIT = 'grep -n -e virus "$EMAIL" | while read -r hit; do\necho 550 no >&2\nexit 1\ndone\n'


@pytest.mark.parametrize("rest", ["exit 0\n", 'cat "$EMAIL" > /dev/null || exit 2\n'])
@pytest.mark.parametrize("word", ["virus", "nothing"])
def test_corrected_exit_ends_script(tmp_path: Path, rest: str, word: str) -> None:
    (found,) = found_in(EXIT + rest)
    assert found.kind == Kind.LOOP_EXIT
    script = corrected(EXIT + rest, found)
    assert found_in(script.partition("\n")[2]) == []
    mail = tmp_path / "mail"
    mail.write_text(f"Subject: x\n\n{word}\n")
    command = ["/bin/sh", "-c", script]
    ended = subprocess.run(command, env={"EMAIL": str(mail)}, capture_output=True, check=False)
    assert ended.returncode == (word == "virus")


@pytest.mark.parametrize(
    "script",
    [
        EXIT,
        f"{EXIT}[ $? = 0 ] || exit 1\nexit 0\n",
        f"{EXIT}exit\n",
        f"if true; then\n{EXIT}fi\n",
        f"set -e\n{EXIT}exit 0\n",
        f"shopt -s lastpipe\n{EXIT}exit 0\n",
        f"{EXIT.strip()} || exit 1\nexit 0\n",
        f"{EXIT.replace('exit 1', 'break')}exit 0\n",
        f"{EXIT.replace('exit 1', 'touch x; exit 1')}[ ! -e x ] || exit 1\n",
        f"{EXIT.replace(' >&2', '')}exit 0\n",
        f"bad() {{\n{EXIT}}}\nbad || exit 1\nexit 0\n",
    ],
)
def test_exit_that_ends_script_is_not_reported(script: str) -> None:
    assert found_in(script) == []


def test_eval_of_command_has_no_correction() -> None:
    (found,) = found_in('eval "logger $SENDER"\n')
    assert (found.kind, found.correction) == (Kind.INJECTION, "")


#: A text that runs a command if a shell evaluates it as code.
HOSTILE = '"$(touch pwned)"`touch pwned`;touch pwned #@example.com'


@pytest.mark.parametrize(
    "line",
    [
        r'log() { sh -c "printf %s \"from=$SENDER $1\""; }; log a',
        'sh -c "printf %s $SENDER"',
        'from=$SENDER; x=1; bash -ec "printf %s \\"$from ${x}\\""',
        '/bin/sh -c "printf \'%s\' \\"it\'s ${HELO}\\""',
        'eval "x=$SENDER"; printf %s "$x"',
    ],
)
def test_corrected_line_runs_no_remote_command(tmp_path: Path, line: str) -> None:
    (found,) = found_in(f"{line}\n")
    assert found.kind == Kind.INJECTION
    new = corrected(f"{line}\n", found)
    assert found_in(new) == []
    values = {"SENDER": HOSTILE, "HELO": HOSTILE, "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        ["/bin/sh", "-c", new],
        env=values,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "touch" in ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval 'x=$SENDER'",
        'sh -c "logger ${SENDER@Q}"',
        'sh -c "logger \\$SENDER"',
        'from=$(printf %s "$SENDER" | tr -cd a-z)\nsh -c "logger $from"',
        'case $SENDER in *[!a-z@.]*) exit 2 ;; esac\nsh -c "logger $SENDER"',
        "echo 'sh -c \"logger $SENDER\"'",
        'sh -c "logger $REMOTEIP"',
    ],
)
def test_text_that_no_shell_evaluates_is_not_reported(line: str) -> None:
    assert [each for each in found_in(f"{line}\n") if each.kind == Kind.INJECTION] == []


GROUP = '{{ {}; cat "$EMAIL"; }} > "$OUTFILE"\n'


@pytest.mark.parametrize(
    "script",
    [
        GROUP.format('echo "X-A: b\\n"'),
        GROUP.format("printf 'X-A: b\\n\\n'"),
        GROUP.format("printf 'X-A: %s\\n\\n' \"$HELO\""),
        GROUP.format('echo "X-A: b"; echo'),
        GROUP.format('echo -e "X-A: b"'),
        GROUP.format("echo 'X-B: b'; echo -e 'X-A: b\\n'"),
        '{\necho "X-A: b\\n"\ncat "$EMAIL"\n} > "$OUTFILE"\n',
        '(echo "X-A: b"\necho ""\ncat "$EMAIL") > "$OUTFILE"\n',
    ],
)
def test_corrected_filter_keeps_header(tmp_path: Path, script: str) -> None:
    (found,) = found_in(script)
    assert found.kind == Kind.BLANK
    new = corrected(script, found)
    assert found_in(new) == []
    (tmp_path / "mail").write_text("Subject: x\n\nbody\n")
    names = {"EMAIL": f"{tmp_path}/mail", "OUTFILE": f"{tmp_path}/out", "HELO": "b"}
    subprocess.run(["/bin/dash", "-c", new], env=names, check=True)
    header = "X-B: b\nX-A: b\n" if "X-B" in script else "X-A: b\n"
    assert (tmp_path / "out").read_text() == f"{header}Subject: x\n\nbody\n"


@pytest.mark.parametrize(
    ("script", "is_dash"),
    [
        (GROUP.format('echo "X-A: b\\n"'), False),
        (GROUP.format('echo -e "X-A: b"'), False),
        (GROUP.format('echo "X-A: b\\\\n"'), True),
        (GROUP.format("printf 'X-A: b\\n'"), True),
        ('{ echo "Subject: a"; echo; cat "$EMAIL"; } | mail admin\n', True),
        ('{ echo "Subject: a"; echo; cat "$EMAIL"; } > /srv/report\n', True),
    ],
)
def test_line_that_keeps_header_is_not_reported(script: str, is_dash: bool) -> None:
    assert list(shell.mistakes(f"#!/bin/sh\n{script}", echo_expands=is_dash)) == []


CONVERTED = '{ echo X; iconv -f UTF-8 -t UTF-8 "$EMAIL"; } > "$OUTFILE"\n'


@pytest.mark.parametrize(
    "script",
    [
        f"{CONVERTED}exit 0\n",
        'iconv -f UTF-8 -t UTF-8 < "$EMAIL" > "$OUTFILE"\nexit 0\n',
        'cat "$EMAIL" | iconv -f UTF-8 -t UTF-8 > "$OUTFILE"; exit 0\n',
        '{\necho X\niconv -f UTF-8 -t UTF-8 "$EMAIL"\n} > "$OUTFILE"\nexit 0\n',
        '{ iconv -f UTF-8 -t UTF-8 "$EMAIL" 2>/dev/null; echo X; } > "$OUTFILE"\nexit 0\n',
    ],
)
@pytest.mark.parametrize(("body", "status"), [(b"plain\n", 0), (b"Gr\xfc\xdfe\nrest\n", 2)])
def test_corrected_filter_fails_if_converter_fails(
    tmp_path: Path, script: str, body: bytes, status: int
) -> None:
    (found,) = found_in(script)
    assert found.kind == Kind.PARTIAL
    new = corrected(script, found)
    assert found_in(new) == []
    (tmp_path / "mail").write_bytes(body)
    names = {"EMAIL": f"{tmp_path}/mail", "OUTFILE": f"{tmp_path}/out", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(["/bin/sh", "-c", new], env=names, capture_output=True, check=False)
    assert ended.returncode == status


@pytest.mark.parametrize(
    "script",
    [
        CONVERTED,
        f"set -e\n{CONVERTED}exit 0\n",
        CONVERTED.replace(">", "|| exit 2 >") + "exit 0\n",
        f"{CONVERTED[:-1]} || exit 2\nexit 0\n",
        f"{CONVERTED}[ $? = 0 ] || exit 2\n",
        f'iconv -f UTF-8 -t UTF-8 "$EMAIL" > /dev/null || exit 0\n{CONVERTED}exit 0\n',
        f"{CONVERTED.replace('iconv', 'iconv -c')}exit 0\n",
        f"if {CONVERTED[:-1]}; then exit 0; fi\nexit 2\n",
        f'{CONVERTED}[ -s "$OUTFILE" ] || exit 2\nexit 0\n',
        f"{CONVERTED.replace('OUTFILE', 'ARCHIVE')}exit 0\n",
    ],
)
def test_converter_whose_status_is_used_is_not_reported(script: str) -> None:
    assert found_in(script) == []


DISCARDED = """\
if grep -q virus "$EMAIL"; then
    cp "$EMAIL" "$QUARANTINE/$$.eml"
    echo '250 2.0.0 Ok: quarantined' >&2
    exit 1
fi
"""


@pytest.mark.parametrize(
    "script",
    [
        DISCARDED,
        DISCARDED.replace("    echo", "    logger saved\n    echo"),
        'grep -q virus "$EMAIL" && { cat $EMAIL > $QUARANTINE/x; echo 250 ok >&2; exit 1; }\n',
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_corrected_filter_discards_only_saved_message(
    tmp_path: Path, script: str, is_open: bool
) -> None:
    found = next(each for each in found_in(script) if each.kind == Kind.UNSAVED)
    new = corrected(script, found)
    assert [each for each in found_in(new) if each.kind == Kind.UNSAVED] == []
    (tmp_path / "mail").write_text("virus\n")
    names = {
        "EMAIL": f"{tmp_path}/mail",
        "QUARANTINE": f"{tmp_path}{'' if is_open else '/missing'}",
        "PATH": "/usr/bin:/bin",
    }
    text = f"logger() {{ :; }}\n{new}"
    ended = subprocess.run(["/bin/sh", "-c", text], env=names, capture_output=True, check=False)
    assert ended.returncode == (1 if is_open else 2)


@pytest.mark.parametrize(
    "script",
    [
        f"set -e\n{DISCARDED}",
        DISCARDED.replace('.eml"', '.eml" || exit 2'),
        DISCARDED.replace("250 2", "550 5"),
        DISCARDED.replace("    echo", '    [ -s "$QUARANTINE/$$.eml" ] || exit 2\n    echo'),
        DISCARDED.replace("    cp", "    if cp").replace('.eml"\n', '.eml"; then\n') + "fi\n",
        'cp "$EMAIL" "$OUTFILE"\nexit 0\n',
    ],
)
def test_discard_of_saved_message_is_not_reported(script: str) -> None:
    assert [each for each in found_in(script) if each.kind == Kind.UNSAVED] == []


@pytest.mark.parametrize(
    "script",
    [
        'grep virus "$EMAIL" | while read -r line; do\nlogger "$line"\ndone\nexit 0\n',
        'while read line; do\ncase $line in x) exit 1;; esac\ndone < "$EMAIL"\n',
        'echo "X-A: b"\ncat "$EMAIL"\n',
        'echo "$(date)" > /tmp/last\n',
        "{ id; } > /tmp/id\nlogger -f /tmp/id\n",
        'grep -c x "$EMAIL" 2> /tmp/errors\ncat /tmp/errors\n',
        'F=/tmp/last\ncp "$EMAIL" $F\nchmod 644 $F\n',
        'L=/tmp/l\nexec 9> $L\nflock 9\nF=/tmp/m\ncp "$EMAIL" $F\ngrep x $F\n',
        'while ! mkdir /tmp/l; do check_age; done\nF=/tmp/m\ncp "$EMAIL" $F\ngrep x $F\n',
        'F=/tmp/m.$$\ncp "$EMAIL" $F\ngrep x $F\n',
        'F=$(mktemp /tmp/m.XXXX)\ncp "$EMAIL" $F\ngrep x $F\nrm $F\n',
        "sh -c 'echo $HELO'\n",
        'logger "$HELO"\n',
    ],
)
def test_harmless_script_is_not_reported(script: str) -> None:
    assert found_in(script) == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sh")), ids=lambda file: str(file.name))
def test_example_filter_contains_no_mistakes(file: Path) -> None:
    assert list(shell.mistakes(file.read_text())) == []


def test_each_filter_gets_its_own_directory() -> None:
    script = "W=/tmp/work\nrm -rf $W\nmkdir -p $W || exit 2\nunpack $EMAIL $W\n"
    (found,) = found_in(script)
    assert found.kind == Kind.SHARED
    new = corrected(script, found)
    assert "W=$(mktemp -d) || exit 2; trap 'rm -rf \"$W\"' EXIT\n" in new


@pytest.mark.parametrize(
    "script",
    [
        "W=$(mktemp -d)\nrm -rf $W\nmkdir -p $W\n",
        "Q=/var/spool/quarantine\nmkdir -p $Q\ncp $EMAIL $Q/$$\n",
        "W=/tmp/work\nexec 9>/run/lock\nflock 9\nrm -rf $W\nmkdir -p $W\n",
    ],
)
def test_directory_safe_for_parallel_filters_is_accepted(script: str) -> None:
    assert list(shell.mistakes(f"#!/bin/sh\n{script}")) == []


def test_remedy_sends_log_entry_to_logger() -> None:
    script = 'echo "clean: $SENDER" >> "$OUTFILE"\nexit 0\n'
    (found,) = found_in(script)
    assert found.kind == Kind.LOGGED
    new = corrected(script, found)
    assert new.splitlines()[1] == 'echo "clean: $SENDER" | logger -t mail-filter'


def test_text_appended_to_the_message_is_accepted() -> None:
    script = '#!/bin/sh\ncat "$EMAIL" > "$OUTFILE" || exit 2\necho "Footer" >> "$OUTFILE"\n'
    assert list(shell.mistakes(script)) == []


def test_corrected_loop_keeps_blanks_and_backslashes(tmp_path: Path) -> None:
    script = (
        'while read line; do\ncase "$line" in\nX-Old:*) ;;\n*) echo "$line" ;;\nesac\n'
        'done < "$EMAIL" > "$OUTFILE"\n'
    )
    (found,) = found_in(script)
    assert found.kind == Kind.READ
    mail, out = tmp_path / "mail", tmp_path / "out"
    mail.write_text("X-Old: a\nX-New: b\\n\n  two blanks  \nlast")
    environment = {"EMAIL": str(mail), "OUTFILE": str(out)}
    subprocess.run(["/bin/sh", "-c", corrected(script, found)], env=environment, check=True)
    assert out.read_text() == "X-New: b\\n\n  two blanks  \nlast\n"
    assert found_in(corrected(script, found).removeprefix("#!/bin/sh\n")) == []


@pytest.mark.parametrize(
    "script",
    [
        'while IFS= read -r line; do\necho "$line"\ndone < "$EMAIL" > "$OUTFILE"\n',
        'while read line; do\ncount=$((count + 1))\ndone < "$EMAIL"\n',
        'while read line; do\necho "$line"\nbreak\ndone < /etc/list\n',
    ],
)
def test_loop_that_changes_no_message_is_accepted(script: str) -> None:
    assert found_in(script) == []
