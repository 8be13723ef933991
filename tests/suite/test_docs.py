"""The documents about the suite mention only existing transcripts, parts and modules."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from docs import implementations, parts
from tests.conformance.format.requirements import specification
from tests.conformance.format.vocabulary import GROUPS
from tests.conformance.paths import IMPLEMENTATIONS, PACKAGE, ROOT, TRANSCRIPTS
from tests.conformance.run.results import Known, Result

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


def test_table_of_included_parts_is_current() -> None:
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
        ("relay/one.smtp [stdio]", "[relay/one](../transcripts/relay/one.smtp) [stdio]"),
        (
            "unasked/stop [listen]",
            "[unasked/stop](transcripts.md#true-of-every-transcript) [listen]",
        ),
        (
            "invariant/stop [listen]",
            "[invariant/stop](transcripts.md#true-of-every-transcript) [listen]",
        ),
        (
            "properties/crowds [listen]",
            "[properties/crowds](conformance.md#properties) [listen]",
        ),
    ],
)
def test_failure_links_to_its_report(name: str, link: str) -> None:
    assert implementations._link(name) == link


def test_implementation_failures_are_grouped_by_reason() -> None:
    def result(name: str, outcome: str, known: Known | None = None) -> Result:
        clauses = ("data.end", "data.no-smuggling")
        return Result(name, "stdio", "t", clauses, "must", outcome, divergence=known)

    hangs, by_choice = Known("bug", "It hangs."), Known("wontfix", "It is so.")
    results = [
        result("data/a.smtp", "passed"),
        result("data/b.smtp", "diverged", hangs),
        result("data/c.smtp", "diverged", by_choice),
        result("data/d.smtp", "failed"),
        result("data/e.smtp", "diverged", hangs),
    ]
    assert implementations.about(results, ("data.end", "data.no-smuggling")) == {
        "judged": 5,
        "missed": {
            "It hangs.": ["data/b.smtp [stdio]", "data/e.smtp [stdio]"],
            "(by choice) It is so.": ["data/c.smtp [stdio]"],
            "(unclear) Nobody has said why.": ["data/d.smtp [stdio]"],
        },
    }
    assert implementations.about(results, ("files.gone",))["judged"] == 0


def test_failure_for_different_reason_does_not_violate_criterion() -> None:
    wish = implementations.Wish(("files.gone",), ("A file stays",))
    stays, words = (
        Result(name, "stdio", "t", ("files.gone",), "should", "diverged", divergence=known)
        for name, known in (
            ("files/a.smtp", Known("wontfix", "A file stays for a day.")),
            ("files/b.smtp", Known("wontfix", "Its replies have other words.")),
        )
    )
    assert implementations.granted([stays, words], wish) == {
        "judged": 1,
        "missed": {"(by choice) A file stays for a day.": ["files/a.smtp [stdio]"]},
        "silent": 1,
    }


def test_criteria_refer_to_existing_clauses_and_reasons() -> None:
    texts = [path.read_text("utf-8") for path in IMPLEMENTATIONS.glob("*.toml")]
    reasons = {
        known["reason"] for text in texts for known in tomllib.loads(text).get("divergence", [])
    }
    families = {family.name for family in specification().families}
    for wish in implementations.wishes().values():
        assert set(wish.clauses) <= families
        for beginning in wish.broken_by:
            assert any(reason.startswith(beginning) for reason in reasons), beginning
