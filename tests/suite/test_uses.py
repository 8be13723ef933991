"""The capabilities used by steps are derived from the text and match an actual run."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.conformance.format.bare_lf import bare_lf_policies
from tests.conformance.format.client_side import ClientSide, reply_codes
from tests.conformance.format.header import IMPLEMENTATION_CAPABILITIES
from tests.conformance.format.line_length import longest_line
from tests.conformance.format.loader import load_transcript, transcript_paths
from tests.conformance.format.nodes import Transcript
from tests.conformance.format.payload import parse_payload
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.uses import DERIVED, uses
from tests.conformance.format.vocabulary import BARE_LF_POLICIES
from tests.conformance.format.writer import write_unfolded
from tests.conformance.paths import SUFFIX, TRANSCRIPTS
from tests.conformance.play.engine import play
from tests.conformance.play.harness import Harness
from tests.conformance.play.implementation import (
    ImplementationError,
    default_implementation,
    parse_implementation,
)
from tests.conformance.play.needs import missing_need, needs
from tests.conformance.play.offers import contradictions_of
from tests.conformance.play.process import adopt_orphans
from tests.conformance.run.items import suite_of

pytestmark = pytest.mark.any_account

HEADER = '+++\ntitle = "t"\nrequires = ["data.end-1"]\n+++\n'
GREETED = "C< 220 up\nC> EHLO c\nC< 250 up\n"
IN_DATA = GREETED + "C> DATA\nU< DATA\nU> 354 go\nC? 354\n"


def read(steps: str) -> Transcript:
    return parse_transcript(HEADER + steps, "t")


@cache
def transcripts() -> tuple[Transcript, ...]:
    return tuple(map(load_transcript, transcript_paths()))


# --- extensions, pipelining and QUIT --------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "used"),
    [
        (GREETED + "C> NOOP\nC? 250\nC> NOOP\n", []),
        (GREETED + "C> NOOP\nC+ NOOP\n", ["pipelining"]),
        (GREETED + "C> NOOP\nC> NOOP\n", ["pipelining"]),
        ("C> EHLO c\n", ["pipelining"]),
        (GREETED + "C> NO\\\nC> OP\n", []),
        (IN_DATA + "C> a\nC> b\nC> .\n", []),
        (IN_DATA + "C> a\nC> .\nC+ QUIT\n", ["pipelining"]),
        (IN_DATA + "C> a\\r\\n.\\\nC> \\r\\nQUIT\n", ["pipelining"]),
        (GREETED + "C> DATA\nC? 451\nC> NOOP\nC? 250\n", []),
        (GREETED + "C> MAIL FROM:<a@b> BODY=8BITMIME\n", ["8bitmime"]),
        (GREETED + "C> MAIL FROM:<a@b> SIZE=9 BODY=7BIT\n", ["size"]),
        (GREETED + "C> MAIL FROM:<SIZE=9@b>\n", []),
        (IN_DATA + "C> MAIL FROM:<a@b> SIZE=9\n", []),
        ("C< 220 up\nC> EHLO c\nC< 250-up\\r\\n250-SIZE 9\\r\\n250 PIPELINING\n",
         ["pipelining", "size"]),
        ("C< 220 up\nC> EHLO c\nC< 250-up\neither\nC< 250-SIZE\nor\nend\nC< 250 X\n", []),
        ("C< 220 up\nC> HELP\nC< 250 SIZE\n", []),
        (GREETED + "C> NOOP\nC? 451 4.3.0\n", ["enhanced-codes"]),
        (GREETED + "C> @eof\nU< QUIT\n", ["quit-on-eof"]),
        (GREETED + "C> @close\neither\nU< QUIT\nor\nU< @eof\nend\n", []),
        (GREETED + "C> QUIT\nC> @eof\nU< QUIT\n", []),
        (GREETED + "U< QUIT\nC> @eof\n", []),
    ],
)  # fmt: skip
def test_capabilities_used_by_steps_are_found(steps: str, used: list[str]) -> None:
    assert uses(read(steps)) == used


def test_ehlo_keywords_in_relay_ehlo_transcript_are_ignored() -> None:
    header = HEADER.replace("data.end-1", "relay.ehlo-7")
    steps = "C< 220 up\nC> EHLO c\nC< 250-up\\r\\n250 SIZE\n"
    assert uses(parse_transcript(header + steps, "t")) == []


def test_transcript_headers_omit_derived_capabilities() -> None:
    repeated = [one.name for one in transcripts() if DERIVED & {*one.header.needs}]
    assert repeated == []


@pytest.mark.parametrize(
    ("header", "steps"),
    [
        ('tmp = "missing"', ""),
        ("limits = { fsize = 65536 }", ""),
        ("", "P< tmp private\n"),
        ("filter = 'ls $suite_tmp'", ""),
    ],
)
def test_transcript_inspecting_spool_requires_spool_dir_capability(header: str, steps: str) -> None:
    text = HEADER.replace("\n+++\n", f"\n{header}\n+++\n") + GREETED + steps
    assert "spool-dir" in needs(parse_transcript(text, "t"), "stdio")
    assert "spool-dir" not in needs(read(GREETED), "stdio")


@pytest.mark.parametrize("mode", ["stdio", "listen"])
def test_transcript_requires_capability_of_its_mode(mode: str) -> None:
    assert {"stdio", "listen"} & {*needs(read(GREETED), mode)} == {mode}


def test_derived_capabilities_can_be_declared() -> None:
    assert {*IMPLEMENTATION_CAPABILITIES} >= DERIVED


# --- the suite's transcripts ----------------------------------------------------------------------

PARAMETER = re.compile(r"C[2-9]?[>+] MAIL FROM:.* (?:BODY=8BITMIME|SIZE=)", re.IGNORECASE)


def test_every_mail_parameter_is_found() -> None:
    """Compare the result with a text search in the transcripts, independent of the steps."""
    found = {one.name for one in transcripts() if {"8bitmime", "size"} & {*uses(one)}}
    named = {one.name for one in transcripts() if PARAMETER.search(write_unfolded(one))}
    about_ehlo = {one.name for one in transcripts() if one.subject.family == "relay.ehlo"}
    assert named - found - about_ehlo == set()


SAMPLE = sorted(
    path.relative_to(TRANSCRIPTS).as_posix()
    for pattern in ("order-*", "auth-*", "eof-client-*", "refused-bdat-*")
    for path in (TRANSCRIPTS / "relay").glob(pattern + SUFFIX)
)


def most_due(lines: list[str]) -> int:
    """Return the maximum number of outstanding replies in a dialogue."""
    due, most, content = 1, 1, False
    for line in lines:
        who, _, text = line.partition(" ")
        if who == "C>" and text.endswith("\\n"):
            content = content and text != ".\\r\\n"
            due += not content
            most = max(most, due)
        elif who == "C<" and text[3:4] != "-":
            due, content = due - 1, text.startswith("354")
    return most


@pytest.mark.parametrize("name", SAMPLE)
def test_derived_pipelining_capability_matches_dialogue(
    name: str, request: pytest.FixtureRequest
) -> None:
    transcript = load_transcript(TRANSCRIPTS / name)
    if "stdio" not in transcript.header.modes or "\\{" in write_unfolded(transcript):
        pytest.skip("the recorded dialogue is incomplete")
    settings = suite_of(request.config).settings
    if reason := missing_need(transcript, "stdio", settings):
        pytest.skip(reason)
    adopt_orphans()
    harness = Harness(transcript, "stdio", settings)
    try:
        play(harness)
        lines = harness.dialogue.lines()
    finally:
        harness.close()
    assert (most_due(lines) > 1) == ("pipelining" in uses(transcript))


def test_sample_includes_sessions_with_and_without_pipelining() -> None:
    pipelining = ["pipelining" in uses(load_transcript(TRANSCRIPTS / name)) for name in SAMPLE]
    assert sum(pipelining) >= 10
    assert sum(pipelining) <= len(SAMPLE) - 10


def test_reference_has_every_capability_used_by_transcripts() -> None:
    reference = default_implementation()
    assert reference.capabilities >= DERIVED
    assert reference.line_max is None
    refused = [one for one in transcripts() if reference.bare_lf not in bare_lf_policies(one.steps)]
    assert [one.name for one in refused] == []


# --- bare LF --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "policies"),
    [
        (IN_DATA + "C> a\nC> .\nC? 250\n", BARE_LF_POLICIES),
        (IN_DATA + "C> a\\n\nC> .\nC? 5xx\n", BARE_LF_POLICIES),
        (IN_DATA + "C> a\\n\nC> .\nC? 250\n", ("pass", "normalise")),
        (IN_DATA + "C> a\\r\\\nC> \\nb\nC> .\nC? 250\n", BARE_LF_POLICIES),
        (GREETED + "C> NOOP\\n\\\nC? 5xx\n", ("pass", "normalise")),
    ],
)
def test_permitted_bare_lf_policies_are_derived_from_steps(
    steps: str, policies: tuple[str, ...]
) -> None:
    assert bare_lf_policies(read(steps).steps) == {*policies}


@pytest.mark.parametrize(
    ("upstream", "policies"),
    [
        ("U< a\\nb\n", {"pass"}),
        ("U< a\\r\\nb\n", {"normalise"}),
        ("U< @message\n", {"pass", "normalise"}),
        ("either\nU< a\\nb\nor\nU< a\\r\\nb\nend\n", {"pass", "normalise"}),
    ],
)
def test_bare_lf_policies_are_derived_from_expected_upstream_content(
    upstream: str, policies: set[str]
) -> None:
    sent = IN_DATA.replace("U< DATA\nU> 354 go\n", "") + "C> a\\nb\nC> .\n"
    steps = sent + "U> 220 up\nU< DATA\nU> 354 go\n" + upstream
    assert bare_lf_policies(read(steps).steps) == policies


# --- line lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "octets"),
    [
        (GREETED, len("EHLO c\r\n")),
        (GREETED + "C> \\{1000*x}\n", 1002),
        (GREETED + "C> \\{1000*x}\\\nC> \\{1000*x}\n", 2002),
        (GREETED + "C> \\{131071*x}\n", len("EHLO c\r\n")),
        (IN_DATA + "C> \\{131071*x}\n", 131073),
        (GREETED + "either\nC< @eof\nor\nC? 500\nC> \\{1000*x}\nend\n", len("EHLO c\r\n")),
    ],
)
def test_longest_transcript_line_is_measured(steps: str, octets: int) -> None:
    assert longest_line(read(steps).steps) == octets


# --- the client's side ----------------------------------------------------------------------------


def test_content_before_354_is_not_read_as_command() -> None:
    side = ClientSide(()).sent(b"DATA\r\nhello\r\n.\r\nNOOP\r\n").replied(b"354")
    assert side.due == (b".", b"NOOP")


def test_dot_directly_after_354_is_end_of_data() -> None:
    side = ClientSide(()).sent(b"DATA\r\n").replied(b"354").sent(b".\r\n")
    assert side.awaits_final_reply


@pytest.mark.parametrize(
    ("octets", "codes"),
    [
        (b"250 a\r\n", (b"250",)),
        (b"250-a\r\n250 b\r\n354 c\r\n", (b"250", b"354")),
        (b"250-a\r\n", ()),
        (b"nonsense\r\n", ()),
    ],
)
def test_codes_of_complete_replies_are_found(octets: bytes, codes: tuple[bytes, ...]) -> None:
    assert reply_codes(octets) == codes


def test_abridged_payload_still_exceeds_128_kib() -> None:
    assert len(parse_payload("\\{50000000*x}", b"").abridged()) in range(131073, 1 << 20)


# --- declarations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bare-lf", "drop", "bare-lf must be one of pass, normalise, refuse, not 'drop'"),
        ("line-max", 0, "line-max must be at least 1, not 0"),
    ],
)
def test_invalid_declaration_is_an_error(key: str, value: object, message: str) -> None:
    with pytest.raises(ImplementationError) as caught:
        parse_implementation({"name": "x", "argv": ["x"], key: value}, TRANSCRIPTS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("capabilities", "reply", "texts"),
    [
        (["size"], b"250-up\r\n250 SIZE 1000\r\n", []),
        (["size"], b"250-up\r\n250 size\r\n", []),
        (
            ["size"],
            b"250 up\r\n",
            ["capability 'size' is declared, but the reply to EHLO lacks SIZE"],
        ),
        (
            [],
            b"250-up\r\n250 PIPELINING\r\n",
            ["capability 'pipelining' is missing, but the reply to EHLO offers PIPELINING"],
        ),
    ],
)
def test_contradictions_between_ehlo_reply_and_capabilities_are_found(
    capabilities: list[str], reply: bytes, texts: list[str]
) -> None:
    table = {"name": "x", "argv": ["x"], "capabilities": capabilities}
    assert contradictions_of(parse_implementation(table, TRANSCRIPTS), reply) == texts
