"""The transcript format: reading, writing, and errors with file and line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.format.header import Header
from tests.conformance.format.nodes import (
    Argument,
    Either,
    FormatError,
    Include,
    Named,
    Node,
    Note,
    ReplyPattern,
    Step,
    TextTest,
    Transcript,
    walk,
)
from tests.conformance.format.payload import (
    Part,
    Payload,
    PayloadError,
    Repeat,
    Variable,
    parse_payload,
    visible,
)
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.writer import write_transcript

HEADER = """\
+++
title = "a title"
requires = ["relay.commands-1"]
filter = "exit 0"
+++
"""
FIRST = HEADER.count("\n") + 1  # the line number of the script's first line


def steps(*lines: str) -> tuple[Node, ...]:
    text = HEADER + "".join(f"{line}\n" for line in lines)
    return parse_transcript(text, "x.smtp").steps


def step(line: str) -> Step:
    (only,) = steps(line)
    assert isinstance(only, Step)
    return only


def octets(text: str) -> bytes:
    payload = parse_payload(text, b"\r\n")
    return payload.octets({"tmp": b"/t"})


def error_of(text: str) -> FormatError:
    with pytest.raises(FormatError) as caught:
        parse_transcript(text, "filter/x.smtp")
    return caught.value


# --- octets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("NOOP", b"NOOP\r\n"),
        ("", b"\r\n"),
        (" DATA", b" DATA\r\n"),
        ("abc\\", b"abc"),
        ("abc\\\\", b"abc\\\r\n"),
        ("\\r\\n\\t\\0\\x0B\\xff\\@", b"\r\n\t\0\x0b\xff@\r\n"),
        ("a\\{3*xy}b", b"axyxyxyb\r\n"),
        ("\\{2*\\{2*ab}\\r\\n}\\", b"abab\r\nabab\r\n"),
        ("\\{2*\\}}", b"}}\r\n"),
        ("{3*x}", b"{3*x}\r\n"),
        ("in \\{tmp}", b"in /t\r\n"),
    ],
)
def test_payload_text_is_converted_to_octets(text: str, meant: bytes) -> None:
    assert octets(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a ", r"written as \\x20"),
        ("\\q", r"unknown escape \\q"),
        ("\\x4", "two hexadecimal digits"),
        ("\\{3*abc", "without a closing }"),
        ("\\{3*abc\\", "without a closing }"),
        ("\\{x*abc}", r"write a repetition as \\\{N\*text\}"),
        ("\\{tpm}", "did you mean 'tmp'"),
        ("\\{9999999999*x}", "must not exceed"),
        ("@include a", r"text that begins with @ must be written as \\@"),
    ],
)
def test_invalid_text_is_rejected(text: str, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        parse_payload(text, b"\r\n")


@given(st.binary(), st.booleans())
def test_written_octets_are_read_unchanged(content: bytes, ended: bool) -> None:
    payload = Payload((content,) if content else (), b"\r\n" if ended else b"")
    assert parse_payload(payload.text(b"\r\n"), b"\r\n") == payload


def joined(parts: list[Part]) -> tuple[Part, ...]:
    """Join adjacent octets into one part, as the parser does."""
    done: list[Part] = []
    for part in parts:
        before = done[-1] if done else None
        if isinstance(part, bytes) and isinstance(before, bytes):
            done[-1] = before + part
        else:
            done.append(part)
    return tuple(done)


LEAVES: st.SearchStrategy[Part] = st.binary(min_size=1) | st.just(Variable("tmp"))
PARTS: st.SearchStrategy[Part] = st.recursive(
    LEAVES,
    lambda inner: st.builds(Repeat, st.integers(0, 99), st.lists(inner, max_size=3).map(joined)),
    max_leaves=5,
)


@given(st.lists(PARTS, min_size=1, max_size=4).map(joined))
def test_repeats_are_unchanged_after_writing_and_reading(parts: tuple[Part, ...]) -> None:
    payload = Payload(parts, b"\r\n")
    assert parse_payload(payload.text(b"\r\n"), b"\r\n") == payload


@given(st.binary())
def test_octets_are_shown_as_printable_ascii(content: bytes) -> None:
    assert all(" " <= character <= "~" for character in visible(content))


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "actor", "mark", "verb", "argument"),
    [
        ("C> NOOP", "C", ">", "", Payload((b"NOOP",), b"\r\n")),
        ("C>", "C", ">", "", Payload((), b"\r\n")),
        ("C< 250 ok\\", "C", "<", "", Payload((b"250 ok",))),
        ("U> \\@eof", "U", ">", "", Payload((b"@eof",), b"\r\n")),
        ("C> @close", "C", ">", "@close", None),
        ("U< @message", "U", "<", "@message", None),
        ("U< @quiet", "U", "<", "@quiet", 0.1),
        ("U< @unfinished", "U", "<", "@unfinished", 0.1),
        ("C< @no-2yz 3s", "C", "<", "@no-2yz", 3.0),
        ("U2< @quiet 1.5s", "U2", "<", "@quiet", 1.5),
        ("U> @wait 5m", "U", ">", "@wait", 300.0),
        ("C? 354", "C", "?", "", ReplyPattern(("354",))),
        ("C? 503|55x 5.x", "C", "?", "", ReplyPattern(("503", "55x"), "5.x")),
        ("F< env A=b c", "F", "<", "env", Named("A", Payload((b"b c",)))),
        ("F< env A=", "F", "<", "env", Named("A", Payload(()))),
        ("F< email a\\n", "F", "<", "email", Payload((b"a\n",))),
        ("F> gate", "F", ">", "gate", ""),
        ("F> gate B", "F", ">", "gate", "B"),
        ("P> SIGTERM", "P", ">", "SIGTERM", None),
        ("P< exit nonzero", "P", "<", "exit", "nonzero"),
        ("P< syslog matches ^<2\\d>", "P", "<", "syslog", TextTest("matches", "^<2\\d>")),
        ("P< stderr empty", "P", "<", "stderr", TextTest("empty", Payload(()))),
        ("P< memory below 32M", "P", "<", "memory", 32 << 20),
    ],
)
def test_line_is_parsed_as_step(
    line: str, actor: str, mark: str, verb: str, argument: Argument
) -> None:
    assert step(line) == Step(actor, mark, verb, argument)


def test_alternatives_are_parsed_as_separate_steps() -> None:
    (either,) = steps("either", "U< QUIT", "U> 221", "or", "end")
    assert isinstance(either, Either)
    assert [len(branch) for branch in either.branches] == [2, 0]


def test_nested_alternatives_are_parsed() -> None:
    nodes = steps("either", "C? 250", "either", "U< A", "or", "U< B", "end", "or", "C? 4xx", "end")
    assert len(walk(nodes)) == 4


def test_comments_and_empty_lines_are_preserved() -> None:
    assert steps("# why", "") == (Note("# why"), Note(""))


def test_include_line_is_parsed() -> None:
    assert steps("@include include/x.smtp-part") == (Include("include/x.smtp-part"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("X> NOOP", "unknown step 'X>'"),
        ("eiter", "did you mean 'either'"),
        ("C>NOOP", "missing space after C>: 'C> NOOP'"),
        ("C> @cloze", r"unknown step '@cloze' \(did you mean '@close'\?\)"),
        ("P> SIGTREM", "did you mean 'SIGTERM'"),
        ("F< ennv A=b", "did you mean 'env'"),
        ("F? x", r"unknown step F\?; valid steps: F>, F<, F\+"),
        ("F2< run", "F2 must be F; only C and U can have a number"),
        ("C< @eof now", "unexpected text 'now'"),
        ("C< @quiet 200", "a time must look like 200ms, 1.5s or 5m"),
        ("C? 254ok", "a reply code must look like"),
        ("C? 250 ok", "an enhanced code must look like 4.3.0"),
        ("C> a\\zb", r"unknown escape \\z"),
        ("C> trailing ", r"written as \\x20"),
        ("P< exit 300", "a status"),
        ("P< exit", "a status"),
        ("P< stderr contain x", "did you mean 'contains'"),
        ("P< stderr contains", "'contains' must be followed by text"),
        ("P< stderr matches (", "invalid regular expression"),
        ("P< tmp clean", "one of empty, filled"),
        ("P< memory 32M", "'below 32M'"),
        ("F< env SENDER", "NAME=value"),
        ("F< outfile full", "one of empty"),
        ("or", "requires an 'either'"),
        ("@close", "other @-words follow an actor"),
        ("@include", "'@include FILE'"),
        ("C+ RCPT", r"must be C> or C\+"),
        ("F+ text", r"must be F< email or F\+"),
        ("C2> NOOP", r'several clients require modes = \["listen"\]'),
        ("P< stdout contains x", "stdout requires mode 'command'"),
        ("C> caf\u00e9", "printable ASCII"),
        ("C> a\tb", "printable ASCII"),
    ],
)
def test_invalid_line_is_reported_with_suggestion(line: str, message: str) -> None:
    error = error_of(f"{HEADER}# a comment\n{line}\n")
    assert (error.name, error.line) == ("filter/x.smtp", FIRST + 1)
    assert re.search(message, error.message)


def test_error_contains_file_name_line_number_and_text() -> None:
    assert str(error_of(f"{HEADER}nonsense\n")).startswith(
        f"filter/x.smtp:{FIRST}: unknown step 'nonsense'"
    )


@pytest.mark.parametrize(
    ("lines", "at", "message"),
    [
        (["either", "C? 250", "end"], 0, "requires at least one 'or'"),
        (["either", "C? 250", "or", "C? 251"], 0, "missing 'end' for this 'either'"),
        (["either", "C? 250", "or", "C> QUIT", "end"], 0, "must begin with a < or ? step"),
        (["C> @close", "C+ x"], 1, "continues the previous line"),
        (["C> a", "# between", "C+ b"], 2, "continues the previous line"),
        (["C> a", "U+ b"], 1, "continues the previous line"),
    ],
)
def test_inconsistent_lines_are_reported(lines: list[str], at: int, message: str) -> None:
    error = error_of(HEADER + "".join(f"{line}\n" for line in lines))
    assert error.line == FIRST + at
    assert message in error.message


def test_filter_steps_require_filter_key_in_header() -> None:
    text = '+++\ntitle = "t"\nrequires = ["a.b-1"]\n+++\nF< run\n'
    assert "requires 'filter' in the header" in error_of(text).message


def test_last_transcript_line_without_newline_is_rejected() -> None:
    assert error_of(HEADER + "C> NOOP").line == FIRST


# --- the header -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('titel = "x"', "unknown key 'titel' (did you mean 'title'?)"),
        ('level = "must"', "'level' is a key from format 1; use requires"),
        ('clauses = ["a.b"]', "'clauses' is a key from format 1; use requires"),
        ("requires = []", "must not be empty"),
        ('requires = "a.b-1"', "a list of strings"),
        ('title = ""', "a string with a visible character"),
        ('modes = ["command", "stdio"]', "cannot be combined"),
        ('modes = ["lisen"]', "did you mean 'listen'"),
        ('needs = ["ipv7"]', "did you mean 'ipv6'"),
        ("clock = 0", "a positive number"),
        ("takes = 2", "'takes' requires 'clock'"),
        ("format = 1", "format must be 2, not 1"),
        ("limits = { fsze = 1024 }", "did you mean 'fsize'"),
        ("limits = { fsize = 1000 }", "a multiple of 1024"),
        ("limits = { stack = 1000 }", "a multiple of 1024"),
        ("env = { A = 1 }", "a table of strings"),
        ('upstream = "down"', "one of listening"),
        ("background = true", 'requires modes = ["listen"]'),
        ('argv = ["{upstream}"]', "argv must contain {filter}"),
        ("title =", "the header is not TOML"),
    ],
)
def test_invalid_header_line_is_reported(line: str, message: str) -> None:
    key = line.partition(" ")[0]
    plain = [one for one in HEADER.splitlines() if not one.startswith(f"{key} =")]
    plain.insert(2, line)
    error = error_of("\n".join(plain) + "\n")
    assert error.line == 3
    assert message in error.message


@pytest.mark.parametrize("key", ["title", "requires"])
def test_missing_header_key_is_reported(key: str) -> None:
    lines = [one for one in HEADER.splitlines() if not one.startswith(f"{key} =")]
    assert f"missing key '{key}'" in error_of("\n".join(lines) + "\n").message


def test_missing_header_is_reported() -> None:
    assert "the first line must be +++" in error_of("C> NOOP\n").message


def test_unterminated_header_is_reported() -> None:
    assert "must be closed" in error_of("+++\ntitle = 'x'\n").message


def test_filter_key_determines_default_argv() -> None:
    header = parse_transcript(HEADER, "x").header
    assert header.arguments == ("-c", "{filter}", "-d", "{tmp}", "{upstream}")


def test_default_argv_without_filter_key_omits_filter_option() -> None:
    assert Header("t", ("a.b-1",)).arguments == ("-d", "{tmp}", "{upstream}")


# --- writing --------------------------------------------------------------------------------------


def test_every_step_kind_round_trips() -> None:
    lines = [
        "# a comment",
        "",
        "C>  two blanks\\x20",
        "C+ more\\",
        "C< \\{3*x\\r\\n}\\{tmp}",
        "C? 503|5xx 5.5.1",
        "U> @wait 200ms",
        "U< @quiet 2s",
        "U2< @connect",
        "@include include/x.smtp-part",
        "either",
        "U< QUIT",
        "or",
        "end",
        "F< run",
        "F< env SENDER=a b",
        "F< email text\\n",
        "F+ more\\n",
        "F> gate B",
        "P> SIGHUP",
        "P< syslog matches a\\d+ b$",
        "P< stderr empty",
        "P< memory below 32M",
        "P< exit 0",
    ]
    text = HEADER + "".join(f"{line}\n" for line in lines)
    assert write_transcript(parse_transcript(text, "x")) == text


def test_every_header_key_round_trips() -> None:
    header = Header(
        title='A "title" with \\ and \u00e9', requires=("a.b-1", "c.d-2"),
        modes=("listen",), needs=("ipv6", "syslog"), argv=("-c", "{filter}", "-l", "{listen}"),
        env={"A": "b c"}, files={"f.txt": "one\ntwo\n"}, limits={"fsize": 4096}, clock=100,
        takes=1.5, upstream="unix", tmp="missing", syslog="absent", background=True,
        filter="echo 'x'\necho \"y\" >&2\nexit 1\n",
    )  # fmt: skip
    written = write_transcript(Transcript("x", header, ()))
    assert parse_transcript(written, "x").header == header
