"""The documents about the suite mention only existing transcripts, parts and modules."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from docs import implementations, parts
from tests.conformance.format.vocabulary import GROUPS
from tests.conformance.paths import PACKAGE, ROOT, TRANSCRIPTS
from tests.conformance.play.implementation import Divergence, Implementation
from tests.conformance.report.results import Run
from tests.conformance.run.results import Result

PAGES = [
    ROOT / "README.md",
    TRANSCRIPTS / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NAME = re.compile(rf"\b(?:{'|'.join(GROUPS)}|include)/[a-z0-9-]+\.smtp(?:-part)?\b")
QUIT = parts.first_comment(TRANSCRIPTS / "include" / "quit.smtp-part")
#: Names that a page uses only as examples.
MADE_UP = {"recorded/my-server-accept.smtp"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_transcript_mentioned_in_docs_exists(page: Path) -> None:
    names = set(NAME.findall(page.read_text("utf-8"))) - MADE_UP
    assert sorted(name for name in names if not (TRANSCRIPTS / name).is_file()) == []


def test_docs_mention_at_least_one_transcript() -> None:
    assert sum(len(NAME.findall(page.read_text("utf-8"))) for page in PAGES) > 5


def test_contributing_lists_every_suite_module() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = page[page.index("| `tests/conformance/` |") :].partition("\n\n")[0]
    modules = {path.name for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    assert set(re.findall(r"`(\w+\.py)`", rows)) == modules - {
        "test_properties.py",
        "test_comparison.py",
    }


def test_readme_table_of_transcript_parts_is_current() -> None:
    text = parts.README.read_text("utf-8")
    assert f"| `include/quit.smtp-part` | {QUIT} |" in text
    assert parts.with_table(text) == text, "run python3 -m docs.parts to update it"


def test_example_transcript_in_readme_is_current() -> None:
    shown = parts.README.read_text("utf-8").split("```\n")[1]
    assert shown == (TRANSCRIPTS / "filter" / "reject-prefix.smtp").read_text("ascii")


def test_implementations_page_is_current() -> None:
    text = implementations.PAGE.read_text("utf-8")
    assert implementations.all_kept()[0]["name"] == "postprox"
    assert implementations.with_tables(text) == text, (
        "run python3 -m docs.implementations to update it"
    )


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("relay/one [stdio]", "[relay/one](../transcripts/relay/one.smtp) [stdio]"),
        ("invariant/stop [x]", "[invariant/stop](transcripts.md#true-of-every-transcript) [x]"),
    ],
)
def test_failure_links_to_its_transcript(name: str, link: str) -> None:
    assert implementations._link(name) == link


def failure(requirement: str, step: str, observed: str, *dialogue: str) -> Result:
    text = "\n".join(
        (
            f"data/a.smtp:1 [listen] expected x; got {observed}",
            f">>> {step}",
            "dialogue (>: sent by the suite):",
            *(f"    {line}" for line in dialogue),
            "{tmp}: empty",
        )
    )
    requirements = (requirement,)
    return Result(
        "data/a.smtp", "listen", "t", (), "must", "failed", text=text, requirements=requirements
    )


@pytest.mark.parametrize(
    ("requirement", "step", "observed", "last", "is_shown"),
    [
        ("data.upstream-lost-1", "C< @no-2yz", "250 OK", "C< 250 OK", True),
        ("data.upstream-lost-1", "C? 451", "421 no", "C< 421 no", False),
        ("data.upstream-lost-1", "C? 451", "nothing (waited 10 s)", "C> .", False),
        ("relay.refused-1", "C? 50x", "nothing", "U< STARTTLS\\r\\n", True),
        ("relay.refused-1", "C? 50x", "nothing", "U< QUIT\\r\\n", False),
        ("data.end-1", "U< DATA", "nothing (waited 10 s)", "C> .", False),
        ("data.upstream-lost-2", "C? 451", "@eof", "U> -- @close", True),
        ("relay.commands-1", "C> x", "connection refused; exited", "", False),
        ("log.verdict-16", "C? 451", "@eof", "C< -- @eof", False),
        ("log.verdict-16", "P< syslog matches .", "nothing in syslog", "", True),
        ("files.gone-2", "C? 451", "421 no", "C< 421 no", False),
        ("filter.env-reset-1", "F< env SENDER=b@example", "'a@example'", "", True),
        ("filter.env-reset-1", "C? 452", "421 no", "C< 421 no", False),
    ],
)
def test_failure_counts_if_dialogue_shows_violation(
    requirement: str, step: str, observed: str, last: str, is_shown: bool
) -> None:
    result = failure(requirement, step, observed, last)
    assert bool(implementations.violated(result)) is is_shown


@pytest.mark.parametrize(
    ("requirement", "dialogue", "is_shown"),
    [
        ("relay.refused-6", ("C> RSET", "U< bdat 6 last\\r\\n", "U< RSET\\r\\n"), True),
        ("relay.refused-2", ("U<  BDAT 6\\r\\n", "U> 250 ok\\r\\n", "C< 250 ok\\r\\n"), True),
        ("relay.refused-2", ("U< BDATA 6\\r\\n", "U> 250 ok\\r\\n", "C< 250 ok\\r\\n"), False),
        ("relay.line-ends-4", ("C> NOOP\\r\\n", "U< DATA\\r", "U< NOOP\\r\\n"), True),
        ("relay.line-ends-4", ("C> NOOP\\r\\n", "U< DATA\\r\\n", "U< NOOP\\r\\n"), False),
        ("relay.line-ends-4", ("U< DATA\\r", "C> NOOP\\r\\n", "U< NOOP\\r\\n"), False),
    ],
)
def test_violation_before_last_line_of_dialogue_is_detected(
    requirement: str, dialogue: tuple[str, ...], is_shown: bool
) -> None:
    result = failure(requirement, "C? 2xx", "nothing", *dialogue)
    assert bool(implementations.violated(result)) is is_shown


def a_run(*results: Result) -> Run:
    return Run(
        **dict.fromkeys(("source", "control", "suite_version", "by_source", "environment"), ""),
        name="x",
        version="1",
        argv=(),
        suite_transcripts=2,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        level=None,
        modes=("listen",),
        profile="relay",
        specification_version="",
        results=results,
        exit_status=1,
        gaps=(),
    )


def test_start_failure_counts_as_not_tested() -> None:
    result = failure("data.spool-error-3", "U> 220 a", "connection refused; the process exited")
    text = result.text.replace("expected x", "expected a connection to 127.0.0.1:25")
    listed = (Divergence("data/a.smtp", None, "unclear", "It requires its directory."),)
    described = Implementation("x", (), divergences=listed)
    kept = implementations.condensed(a_run(replace(result, text=text)), described)
    assert kept["unexplained"] == []
    assert kept["tested"] == []
    assert kept["not tested"][-1] == "1 result, 1 of them at level MUST: It requires its directory."


@pytest.mark.parametrize(("name", "counts"), [("haproxy", False), ("x", True)])
def test_harm_unfiltered_requires_filter(name: str, counts: bool) -> None:
    result = failure("relay.refused-2", "C? 50x", "nothing", "U< BDAT 6\\r\\n")
    listed = (Divergence("data/a.smtp", None, "wontfix", "It relays octets."),)
    kept = implementations.condensed(a_run(result), Implementation(name, (), divergences=listed))
    assert list(kept["broken"]) == ["relay.refused-2"] * counts
    assert kept["tested"] == ["relay.refused-2"] * counts
    assert kept["without filter"] == ["data/a [listen]"] * (not counts)


@pytest.mark.parametrize(
    ("word", "spelling", "plain", "other"),
    [
        ("relay.refused-1", "relay.refused-6", "U< STARTTLS\\r\\n", "U< starttls\\r\\n"),
        ("relay.refused-2", "relay.refused-7", "U< BDAT 6\\r\\n", "U< \\tBDAT 6\\r\\n"),
        ("relay.ehlo-11", "relay.ehlo-6", "C< 250-PRDR\\r\\n", "C< 250 prdr\\r\\n"),
        ("relay.ehlo-1", "relay.ehlo-9", "C< 250-STARTTLS\\r\\n", "C< 250 STARTTLS\\r\\n"),
    ],
)
@pytest.mark.parametrize("relays_plain", [True, False])
def test_variant_failure_counts_only_if_usual_spelling_passes(
    word: str, spelling: str, plain: str, other: str, relays_plain: bool
) -> None:
    results = [failure(spelling, "C? 5xx", "250 ok", other)]
    if relays_plain:
        results.append(failure(word, "C? 5xx", "250 ok", plain))
    listed = (Divergence("data/a.smtp", None, "bug", "It relays the word."),)
    described = Implementation("x", (), divergences=listed)
    kept = implementations.condensed(a_run(*results), described)
    assert list(kept["broken"]) == [word if relays_plain else spelling]


def test_example_is_a_transcript_about_the_requirement() -> None:
    about = failure("relay.refused-1", "C? 50x", "250 ok", "U< STARTTLS\\r\\n", "C< 250 ok")
    shorter = replace(
        failure("relay.refused-8", "C? 50x", "250 ok", "U< STARTTLS\\r\\n"),
        transcript="data/b.smtp",
        requirement="relay.refused-1",
    )
    listed = tuple(
        Divergence(f"data/{name}.smtp", None, "bug", "It relays the word.") for name in "ab"
    )
    described = Implementation("x", (), divergences=listed)
    kept = implementations.condensed(a_run(shorter, about), described)
    assert kept["broken"]["relay.refused-1"]["failures"] == 2
    assert kept["broken"]["relay.refused-1"]["example"] == "data/a [listen]"


def test_failure_without_listed_divergence_is_not_counted() -> None:
    run = a_run(
        *(
            replace(
                failure("data.upstream-lost-1", "C< @no-2yz", "250 OK", "C< 250 OK"),
                transcript=f"data/{name}.smtp",
            )
            for name in "ab"
        )
    )
    listed = (Divergence("data/a.smtp", None, "bug", "It replies 250."),)
    kept = implementations.condensed(run, Implementation("x", (), divergences=listed))
    assert kept["unexplained"] == ["data/b [listen]"]
    assert kept["verdict"].startswith("not conformant: 1 of 1 failed at level MUST")
    assert kept["verdict with all failures"].startswith("not conformant: 2 of 2 failed")
    assert kept["broken"]["data.upstream-lost-1"] == {
        "failures": 1,
        "example": "data/a [listen]",
        "observed": "expected x; got 250 OK",
        "dialogue": ["C< 250 OK"],
        "reasons": ["It replies 250."],
    }
