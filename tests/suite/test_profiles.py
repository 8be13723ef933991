"""The profiles: their requirements, their transcripts and their effect on the tests of steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conformance.__main__ import main
from tests.conformance.format.by_profile import for_profile
from tests.conformance.format.loader import load_transcript, transcript_paths
from tests.conformance.format.nodes import (
    Either,
    Include,
    Node,
    Note,
    ReplyPattern,
    Step,
    Transcript,
    walk,
)
from tests.conformance.format.profiles import POSTPROX, Profile
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.format.vocabulary import BINDS
from tests.conformance.format.writer import write_step
from tests.conformance.paths import TRANSCRIPTS
from tests.conformance.play.implementation import ImplementationError, parse_implementation
from tests.conformance.play.preflight import SMOKE
from tests.conformance.report.badge import badge_json, badge_svg
from tests.conformance.report.matrix import build
from tests.conformance.report.render import html, markdown
from tests.conformance.report.results import Run, parse_run
from tests.conformance.run.verdict import judge

pytestmark = pytest.mark.any_account

#: A profile of all classes except postprox.
FILTER = Profile.of("transparent,synchronous,filter")
SCRIPT = """\
+++
title = "t"
requires = ["data.end-1", "cli.exit-2", "data.final-reply-1"]
filter = "exit 0"
+++
"""


@cache
def transcripts() -> tuple[Transcript, ...]:
    return tuple(map(load_transcript, transcript_paths()))


def script(steps: str, profile: Profile = FILTER) -> list[str]:
    """Return the lines of *steps* as *profile* tests them."""
    transcript = for_profile(parse_transcript(SCRIPT + steps, "t"), profile)
    return [write_step(step) for step in walk(transcript.steps)]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((one, one) for one in BINDS),
        ("filter,transparent", "transparent,filter"),
        ("relay,synchronous", "synchronous"),
        ("relay,postprox", "postprox"),
    ],
)
def test_profile_has_canonical_name(text: str, name: str) -> None:
    assert Profile.of(text).name == name


def test_unknown_profile_is_reported_with_suggestion() -> None:
    with pytest.raises(ValueError, match=r"not 'rely'.*relay"):
        Profile.of("rely")


def test_implementation_file_specifies_profile() -> None:
    table = {"name": "x", "argv": ["x"], "profile": "synchronous"}
    assert parse_implementation(table, TRANSCRIPTS).profile == Profile.of("synchronous")


def test_default_profile_is_postprox() -> None:
    assert parse_implementation({"name": "x", "argv": ["x"]}, TRANSCRIPTS).profile == POSTPROX


def test_unknown_profile_in_implementation_file_is_reported() -> None:
    with pytest.raises(ImplementationError, match="profile must be one of relay, "):
        parse_implementation({"name": "x", "argv": ["x"], "profile": "rely"}, TRANSCRIPTS)


# --- requirements ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BINDS[:-1])
def test_profile_contains_relay_and_profile_specific_requirements(name: str) -> None:
    has = Profile.of(name).has
    binds = {one.binds for one in specification().requirements.values() if has(one)}
    assert binds == {"relay", name}


def test_postprox_profile_contains_every_requirement() -> None:
    assert all(map(POSTPROX.has, specification().requirements.values()))


@pytest.mark.parametrize("name", BINDS)
def test_every_profile_requirement_is_cited_by_a_transcript(name: str) -> None:
    profile = Profile.of(name)
    cited = {
        one
        for transcript in transcripts()
        if profile.has(transcript.subject)
        for one in for_profile(transcript, profile).header.requires
    }
    known = specification().requirements
    everywhere = {one for transcript in transcripts() for one in transcript.header.requires}
    tested = [one for one in everywhere if known[one].level != "may"]
    assert set(profile.counted(tuple(tested))) <= cited


def test_requirement_outside_profile_is_not_cited() -> None:
    adapted = for_profile(parse_transcript(SCRIPT, "t"), Profile.of("relay"))
    assert adapted.header.requires == ("data.end-1",)


@pytest.mark.parametrize("name", BINDS)
def test_smoke_test_belongs_to_every_profile(name: str) -> None:
    profile = Profile.of(name)
    assert profile.has(for_profile(load_transcript(TRANSCRIPTS / SMOKE), profile).subject)


def test_list_command_omits_transcripts_outside_profile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "data.end", "--profile", "relay"]) == 0
    listed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    named = {one.name for one in transcripts() if "data.end" in one.families}
    binds = {one.name: one.subject.binds for one in transcripts()}
    assert {name for name, *_ in listed} == {name for name in named if binds[name] == "relay"}
    known = specification().requirements
    cited = {one for *_, requires, _ in listed for one in requires.split(",")}
    assert {known[one].binds for one in cited} == {"relay"}


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "outside"),
    [
        ("C? 451 4.3.0", ["C? 4xx"]),
        ("C? 503|554", ["C? 5xx"]),
        ("C? 421|50x", ["C? 4xx|5xx"]),
        ("C? 354", ["C? 3xx"]),
        ("P< exit 75", ["P< exit any"]),
        ("P< syslog contains x", []),
        ("P< stderr empty", []),
        ("F< env SENDER=x", []),
        ("F< unset SENDER", []),
        ("F< email-mode private", []),
        ("F< outfile empty", []),
        ("P< tmp empty", []),
        ("P< tmp private", ["P< tmp private"]),
        ("C< 250 ok", ["C< 250 ok"]),
        ("U< DATA", ["U< DATA"]),
        ("F< run", ["F< run"]),
    ],
)
def test_step_is_tested_as_profile_requires(step: str, outside: list[str]) -> None:
    assert script(f"{step}\n") == outside
    assert script(f"{step}\n", POSTPROX) == [step]


def test_profile_also_changes_steps_in_alternatives() -> None:
    steps = script("either\nC? 451\nP< exit 75\nor\nC< @eof\nend\n")
    assert steps == ["C? 4xx", "P< exit any", "C< @eof"]


#: A dialogue up to the final reply. The greeting and the final reply are the upstream server's.
RELAYED = "C< 220 up\nC> DATA\nC? 354\nC> .\nC< 250 ok\n"


@pytest.mark.parametrize(
    ("profile", "greeting", "final"),
    [
        ("transparent", "C< 220 up", "C< 250 ok"),
        ("synchronous", "C? 2xx", "C< 250 ok"),
        ("filter", "C? 2xx", "C? 2xx"),
    ],
)
def test_reply_is_compared_as_profile_requires(profile: str, greeting: str, final: str) -> None:
    lines = script(RELAYED, Profile.of(profile))
    assert lines == [greeting, "C> DATA", "C? 3xx", "C> .", final]


@pytest.mark.parametrize(
    ("steps", "own"),
    [
        ("C< 250-a\\r\\n250 b\\r\\n550 c\n", ["C? 2xx", "C? 5xx"]),
        ("C< 250-a\neither\nC< 250-b\nor\nend\nC< 250 c\nC< 354 d\n", ["C? 2xx", "C? 3xx"]),
        ("C< 250-a\nC< 250 b\\r\\n550 c\n", ["C? 2xx", "C? 5xx"]),
        ("C< 999 no reply\n", ["C< 999 no reply"]),
        ("C< @eof\n", ["C< @eof"]),
        ("U< 250 b\n", ["U< 250 b"]),
    ],
)
def test_multiline_proxy_reply_becomes_single_pattern(steps: str, own: list[str]) -> None:
    assert script(steps, Profile.of("relay")) == own


def alternatives(nodes: tuple[Node, ...]) -> Iterator[Either]:
    for node in nodes:
        match node:
            case Either(branches):
                yield node
                for branch in branches:
                    yield from alternatives(branch)
            case Include():
                yield from alternatives(node.steps)


def beginnings(either: Either) -> list[Step]:
    """Return the first step of each alternative."""
    branches = ([one for one in branch if not isinstance(one, Note)] for branch in either.branches)
    firsts = [branch[0] for branch in branches if branch]
    steps = [one for one in firsts if isinstance(one, Step)]
    assert steps == firsts
    return steps


def have_common_class(steps: list[Step]) -> bool:
    """Return whether the patterns of two steps have a common reply code."""
    patterns = [one.argument for one in steps if isinstance(one.argument, ReplyPattern)]
    codes = [code for pattern in patterns for code in pattern.codes]
    return len(codes) != len(set(codes))


@pytest.mark.parametrize("name", ["relay", "synchronous", "filter", FILTER.name])
def test_alternatives_remain_distinct_in_profile(name: str) -> None:
    profile = Profile.of(name)
    for transcript in transcripts():
        if profile.has(transcript.subject):
            for either in alternatives(for_profile(transcript, profile).steps):
                steps = beginnings(either)
                assert steps, transcript.name
                assert all(step.observes for step in steps), transcript.name
                assert not have_common_class(steps), transcript.name


# --- reports --------------------------------------------------------------------------------------


@pytest.fixture
def run() -> Run:
    """A run with one result in profile transparent."""
    machine = {"system": "s", "architecture": "a", "processors": 2}
    lines: list[dict[str, object]] = [
        {
            "type": "header", "format": 4, "started": "2025-11-22T14:31:07+00:00", "level": "may",
            "implementation": {"name": "p", "version": "1", "argv": ["p"]}, "python": "3",
            "suite": {"transcripts": 1, "version": "7", "specification": "2"}, "root": False,
            "modes": ["stdio", "listen", "command"], "profile": "transparent", "source": "",
            "machine": machine, "time_scale": 1.0,
        },
        {
            "type": "result", "transcript": "relay/a.smtp", "mode": "stdio", "title": "t",
            "requirements": ["relay.eof-1"], "clauses": ["relay.eof"], "level": "should",
            "harm": "stalled", "outcome": "passed", "seconds": 0.1, "message": "",
            "divergence": None, "cause": "", "text": "", "requirement": "", "sentence": "",
        },
        {"type": "footer", "passed": 1, "failed": 0, "diverged": 0, "stale": 0, "skipped": 0,
         "exit_status": 0, "stopped": ""},
    ]  # fmt: skip
    return parse_run("".join(json.dumps(line) + "\n" for line in lines).encode(), "r.jsonl")


def test_verdict_contains_profile_name() -> None:
    verdict = judge((), 0, (), profile="relay")
    assert verdict.sentence.endswith(" (profile relay)")


def test_badges_contain_profile_name(run: Run) -> None:
    assert json.loads(badge_json(run))["label"] == "postprox suite 7, profile transparent"
    assert "postprox suite 7, profile transparent" in badge_svg(run)


def test_html_report_contains_profile_name(run: Run) -> None:
    page = html(build(specification().families, [run]))
    assert "<dt>profile</dt><dd>transparent</dd>" in page


def test_markdown_report_contains_profile_name(run: Run) -> None:
    assert "\n| profile | transparent |\n" in markdown(build(specification().families, [run]))
