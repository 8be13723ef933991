"""The verdict depends on level MUST, counts level SHOULD and never covers skipped results."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from tests.conformance.format.vocabulary import MODES
from tests.conformance.report.badge import badge_json, badge_svg
from tests.conformance.report.results import Run, parse_run
from tests.conformance.run.results import Result
from tests.conformance.run.verdict import Verdict, judge


def result(name: str, outcome: str = "passed", level: str = "must", message: str = "") -> Result:
    return Result(f"relay/{name}.smtp", "stdio", "t", ("relay.eof",), level, outcome, 0.0, message)


def verdict(*results: Result, of: int | None = None) -> Verdict:
    return judge(results, len(results) if of is None else of, MODES)


ALL = (result("a"), result("b", level="should"))


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (ALL, "conformant: all 1 passed at level MUST, all 1 passed at level SHOULD"),
        (
            (result("a"), result("b", "failed", "should")),
            "conformant, not strict: all 1 passed at level MUST, 1 of 1 failed at level SHOULD",
        ),
        (
            (result("a", "failed"), result("b", level="should")),
            "not conformant: 1 of 1 failed at level MUST, all 1 passed at level SHOULD",
        ),
        ((result("a", "diverged"),), "not conformant: 1 of 1 failed at level MUST"),
        (
            (result("a", "failed", "should"), result("b", level="should")),
            "not tested at level MUST: 1 of 2 failed at level SHOULD",
        ),
        (
            (result("a", "skipped"),),
            "not tested: no transcript at level MUST or SHOULD was completed",
        ),
    ],
    ids=[
        *("all passed", "should failed", "must failed"),
        *("known divergence", "no must result", "no result"),
    ],
)  # fmt: skip
def test_verdict_is_one_sentence(results: tuple[Result, ...], sentence: str) -> None:
    assert verdict(*results).sentence == sentence


def test_optional_requirement_is_not_counted_as_missed() -> None:
    permitted = result("c", "skipped", "may", "permitted: expected 250; got 251")
    assert list(verdict(*ALL, permitted).lines()) == [f"verdict: {verdict(*ALL).sentence}"]


def test_skipped_result_is_listed_with_its_level() -> None:
    skipped = result("c", "skipped", message="needs to be run as root")
    assert "  not tested: 1 result, 1 of them at level MUST: needs to be run as root" in list(
        verdict(*ALL, skipped).lines()
    )


def test_selection_is_reported() -> None:
    assert "  only a selection was tested: 2 of 9 transcripts" in list(verdict(*ALL, of=9).lines())


def test_failure_without_known_divergence_is_unexpected() -> None:
    assert not verdict(result("a", "diverged")).unexpected
    assert verdict(result("a", "failed")).unexpected


def test_stale_divergence_is_unexpected_but_still_conformant() -> None:
    stale = verdict(*ALL, result("c", "stale"), result("d", "stale", "should"))
    assert stale.sentence == "conformant: all 2 passed at level MUST, all 2 passed at level SHOULD"
    assert stale.unexpected
    assert list(stale.lines())[-1] == (
        "  2 known divergences in the implementation file now pass; remove the entries for: "
        "relay/c.smtp [stdio], relay/d.smtp [stdio]"
    )


# --- the badge ------------------------------------------------------------------------------------


def run(*results: Result, transcripts: int = 1) -> Run:
    lines: list[dict[str, object]] = [
        {
            "type": "header", "format": 1, "started": "2025-11-22T14:31:07+00:00", "level": "may",
            "implementation": {"name": "<p>", "version": "1", "argv": ["p"]},
            "suite": {"transcripts": transcripts, "version": "7"}, "modes": list(MODES),
        },
        *({"type": "result", **one.__dict__} for one in results),
        {"type": "footer", "passed": 1, "failed": 0, "diverged": 0, "skipped": 0, "exit_status": 0},
    ]  # fmt: skip
    return parse_run("".join(json.dumps(line) + "\n" for line in lines).encode(), "r.jsonl")


def test_shields_badge_contains_suite_version_and_verdict() -> None:
    assert json.loads(badge_json(run(result("a")))) == {
        "schemaVersion": 1,
        "label": "postprox suite 7",
        "message": "conformant",
        "color": "brightgreen",
    }


@pytest.mark.parametrize(
    ("outcome", "level", "message", "colour"),
    [
        ("passed", "must", "conformant (in part)", "lightgrey"),
        ("failed", "must", "not conformant (in part)", "red"),
        ("passed", "should", "not tested at level MUST (in part)", "lightgrey"),
        ("skipped", "must", "not tested (in part)", "lightgrey"),
    ],
)
def test_badge_of_partial_run_is_marked_and_not_green(
    outcome: str, level: str, message: str, colour: str
) -> None:
    badge = json.loads(badge_json(run(result("a", outcome, level), transcripts=9)))
    assert (badge["message"], badge["color"]) == (message, colour)


def test_badge_is_grey_without_results_for_mandatory_requirements() -> None:
    badge = json.loads(badge_json(run(result("a", level="should"))))
    assert (badge["message"], badge["color"]) == ("not tested at level MUST", "lightgrey")


def test_svg_badge_contains_label_and_verdict() -> None:
    picture = ET.fromstring(badge_svg(run(result("a"))))  # noqa: S314  (our own)
    assert picture.get("aria-label") == "postprox suite 7: conformant"
