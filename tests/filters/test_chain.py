"""chain.py runs several filters, each of which reads the output of the previous filter."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import FILTERS, MESSAGE, Filter, command
from .daemons import EICAR

pytestmark = pytest.mark.any_account


def append(word: str) -> str:
    """Return a filter that adds a line."""
    return f'{{ cat "$EMAIL"; echo {word}; }} >"$OUTFILE"'


def chain(*commands: str) -> str:
    return command("chain.py", *commands)


@pytest.mark.parametrize("length", range(1, 6))
def test_each_filter_reads_output_of_previous_filter(run: Filter, length: int) -> None:
    words = ["one", "two", "three", "four", "five"][:length]
    ended = run(chain(*map(append, words)))
    assert ended.status == 0
    assert ended.written == MESSAGE + "".join(f"{word}\n" for word in words).encode()


@pytest.mark.parametrize(
    ("commands", "added"),
    [
        (["true", "true"], None),
        ([append("one"), "true"], "one"),
        (["true", append("one")], "one"),
        ([append("one"), "true", append("two")], "one two"),
        ([append("one"), append("two"), "true"], "one two"),
    ],
)
def test_filter_without_output_leaves_message_unchanged(
    run: Filter, commands: list[str], added: str | None
) -> None:
    written = run(chain(*commands)).written
    expected = b"" if added is None else MESSAGE + added.replace(" ", "\n").encode() + b"\n"
    assert written == expected


def test_first_rejection_ends_chain_and_determines_reply(run: Filter) -> None:
    ended = run(chain("true", "echo 550 5.7.1 no >&2; exit 1", "exit 2"))
    assert (ended.status, ended.reply) == (1, "550 5.7.1 no")


def test_chain_ends_at_failed_filter_and_reports_duration(run: Filter) -> None:
    ended = run(chain("true", "/usr/bin/env sh -c 'echo broken >&2; exit 3'", "exit 1"))
    assert ended.status == 2
    pattern = r"chain\.py: env failed with status 3 after \d+\.\d\d s: broken"
    assert re.fullmatch(pattern, ended.reply)


def test_filter_crash_with_status_1_results_in_status_2(run: Filter) -> None:
    ended = run(chain("python3 -c 'raise ValueError'"))
    assert ended.status == 2
    assert "python3 failed with status 1 and no code after" in ended.reply


def test_missing_filter_results_in_status_2(run: Filter) -> None:
    assert "nosuch failed with status 127" in run(chain("/nonexistent/nosuch")).reply


def test_each_filter_is_logged_with_its_run_time(run: Filter) -> None:
    said = run(chain("true", "echo 550 5.7.1 no >&2; exit 1")).said
    said = re.sub(r"\d+\.\d\d", "N", said)
    assert said.splitlines() == [
        "chain.py: true, after N s",
        "chain.py: true passed after N s",
        "chain.py: echo, after N s",
        "chain.py: echo rejected after N s",
        "550 5.7.1 no",
    ]


def test_timeout_log_line_identifies_slow_filter(tmp_path: Path) -> None:
    for name in ("email", "outfile"):
        (tmp_path / name).touch()
    files = {"EMAIL": str(tmp_path / "email"), "OUTFILE": str(tmp_path / "outfile")}
    with subprocess.Popen(
        ["/bin/sh", "-c", chain("true", "/bin/sleep 60")],
        env={"PATH": "/usr/bin:/bin", **files},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        os.killpg(process.pid, signal.SIGKILL)
    assert lines[-1].startswith(b"chain.py: sleep, after ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["email", "outfile"]


def test_chain_does_not_wait_for_background_child(run: Filter) -> None:
    assert run(chain("sleep 50 & true", append("one"))).written == MESSAGE + b"one\n"


def test_crlf_is_converted_to_lf_for_next_filter(run: Filter) -> None:
    written = run(chain(r'printf "a\r\nb\r\n" >"$OUTFILE"', append("c"))).written
    assert written == b"a\nb\nc\n"


@pytest.mark.parametrize(
    "first",
    [
        'mv "$EMAIL" "$OUTFILE"',
        'cp "$EMAIL" "$OUTFILE.new"; mv "$OUTFILE.new" "$OUTFILE"',
    ],
)
def test_file_renamed_over_outfile_is_read(run: Filter, first: str) -> None:
    assert run(chain(first, append("one"))).written == MESSAGE + b"one\n"


def test_removed_outfile_is_recreated_for_next_filter(run: Filter) -> None:
    assert run(chain('rm "$OUTFILE"', '[ -f "$OUTFILE" ]')).status == 0


def test_read_only_message_is_accepted(run: Filter) -> None:
    run.email.write_bytes(MESSAGE)
    run.email.chmod(0o400)
    assert run.again(chain(append("one"), append("two"))).written == MESSAGE + b"one\ntwo\n"


def test_directory_as_outfile_results_in_status_2(run: Filter) -> None:
    assert run(chain('rm "$OUTFILE"; mkdir "$OUTFILE"', "true")).status == 2


@pytest.mark.parametrize("broken", ["", " ", "'", "(", "\udcff"])
def test_invalid_command_results_in_status_2(run: Filter, broken: str) -> None:
    assert run(chain("true", broken)).status == 2


@pytest.mark.parametrize("name", ["with a space", "-dash", "qu'ote", "$(id)"])
def test_filter_name_may_contain_any_character(run: Filter, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('#!/bin/sh\n{ cat "$EMAIL"; echo one; } >"$OUTFILE"\n')
    path.chmod(0o755)
    ended = run(chain(command(str(path)), append("two")))
    assert (ended.status, ended.written) == (0, MESSAGE + b"one\ntwo\n")
    assert f"chain.py: {name} passed after " in ended.said


@pytest.mark.parametrize("message", [b"", b"\0", b"\nno header\n", b"A: " + b"x" * 999_999, b"a\r"])
def test_arbitrary_message_reaches_second_filter_unchanged(run: Filter, message: bytes) -> None:
    ended = run(chain(append("one"), append("two")), message)
    assert (ended.status, ended.written) == (0, message + b"one\ntwo\n")


def test_full_disk_results_in_status_2(run: Filter) -> None:
    # The limit permits only files of one block, so copying the message fails.
    copies = 'cat "$EMAIL" >"$OUTFILE" 2>/dev/null || { echo the disk is full >&2; exit 2; }'
    ended = run(f"trap '' XFSZ; ulimit -f 1; exec {chain(copies, copies)}", b"x" * 100_000)
    assert ended.status == 2


@pytest.mark.parametrize("missing", ["EMAIL", "OUTFILE"])
def test_missing_variable_results_in_status_2(run: Filter, missing: str) -> None:
    assert run(f"unset {missing}; {chain('true')}").status == 2


def test_binary_filter_output_does_not_affect_exit_status(run: Filter) -> None:
    assert run(chain(r"printf '\377\0\n' >&2; exit 3")).status == 2
    assert run(chain(r"printf '550 5.7.1 no\rmore\n' >&2; exit 1")).status == 1
    assert run(chain(r"printf '550 \377\n250 ok\n550 5.7.1 \377\n' >&2; exit 1")).reply.startswith(
        "550"
    )


def test_empty_chain_results_in_status_2(run: Filter) -> None:
    assert run(chain()).status == 2


def test_chain_of_scanners_marks_spam_and_rejects_virus(
    run: Filter, clamd: Path, spamd: Path
) -> None:
    filters = [
        command("size-limit.sh", 100_000),
        command("clamav.sh", clamd),
        command("spamassassin.sh", 15, "-U", spamd),
    ]
    passed = run(chain(*filters), MESSAGE + b"cheap pills\n")
    assert (passed.status, b"X-Spam-Flag: YES" in passed.written) == (0, True)
    virus = run(chain(*filters), MESSAGE + EICAR.encode() + b"\n")
    assert virus.reply.startswith("550 5.7.1 The message contains a virus: ")


def test_stopped_scanner_makes_chain_fail(run: Filter, stopped_clamd: Path) -> None:
    ended = run(chain(command("size-limit.sh", 100_000), f"{FILTERS}/clamav.sh {stopped_clamd}"))
    assert (ended.status, "chain.py: clamav.sh failed" in ended.reply) == (2, True)
