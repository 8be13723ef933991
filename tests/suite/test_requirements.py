"""The specification's tables: each row is a requirement, and errors name the row's line."""

from __future__ import annotations

import re

import pytest

from tests.conformance.format.requirements import level_of, parse_specification, specification
from tests.conformance.paths import SPECIFICATION

TEXT = SPECIFICATION.read_text("utf-8")
KEYWORD = re.compile(r"\b(?:MUST|SHOULD|MAY)\b")
IDENTIFIER = re.compile(r"\b(?:cli|relay|data|filter|files|listen|log)\.[a-z][a-z0-9-]*[a-z0-9]\b")
#: Identifiers of removed requirements, which must not be reused.
REMOVED = {"data.held-4"}
#: Phrases that refer to an earlier row. A failure report quotes a requirement without its context.
BACKWARD = re.compile(
    r"(?i)\b(?:either case|that (?:line|warning|period|EHLO)|these (?:words|keywords|10 s)|"
    r"after this 421|this line|the line should)\b"
)
ROW = "| cli.x-1 | MUST | lost | relay | manual | The proxy MUST do x. |"
HEADINGS = "| id | level | harm | binds | source | requirement |"


def document(*rows: str, headings: str = HEADINGS, below: str = "", version: str = "3.1") -> str:
    return "\n".join(
        (
            f"Version {version}.",
            "## cli: x",
            "### cli.x",
            headings,
            "|---|---|---|---|---|---|",
            *rows,
            "",
            below,
        )
    )


def test_groups_are_in_document_order() -> None:
    groups = dict.fromkeys(family.group for family in specification().families)
    assert list(groups) == ["cli", "relay", "data", "filter", "files", "listen", "log"]


def test_every_table_row_is_read() -> None:
    rows = re.findall(r"^\| ([a-z]+\.[a-z0-9-]+-[0-9]+) \|", TEXT, re.M)
    assert list(specification().requirements) == rows


def test_requirement_contains_its_level_keyword_once() -> None:
    wrong = [
        one.id
        for one in specification().requirements.values()
        if KEYWORD.findall(one.sentence) != [one.level.upper()]
    ]
    assert wrong == []


def test_requirement_does_not_refer_to_other_rows() -> None:
    sentences = {one.id: one.sentence for one in specification().requirements.values()}
    assert [name for name, sentence in sentences.items() if BACKWARD.search(sentence)] == []
    assert len(set(sentences.values())) == len(sentences)


def test_every_identifier_in_text_exists() -> None:
    known = {*specification().requirements, *(one.name for one in specification().families)}
    assert REMOVED.isdisjoint(known)
    assert set(IDENTIFIER.findall(TEXT)) - known == REMOVED


def test_table_row_is_parsed_as_requirement() -> None:
    row = "| cli.x-2 | SHOULD | stalled | filter | RFC 5321 4.5, Postfix | `a \\| b` SHOULD stay. |"
    (family,) = parse_specification(document(ROW, row)).families
    second = family.requirements[1]
    assert (second.id, second.family, second.level) == ("cli.x-2", "cli.x", "should")
    assert (second.harm, second.binds) == ("stalled", "filter")
    assert second.sources == ("RFC 5321 4.5", "Postfix")
    assert second.sentence == "`a | b` SHOULD stay."
    assert family.levels == ("must", "should")


def test_family_has_rationale_source_and_reference() -> None:
    below = "*Rationale.* It is\nneeded.\n\n*Source.* RFC 1047.\n\n*Reference.* 9 s."
    (family,) = parse_specification(document(ROW, below=below)).families
    assert family.rationale == "It is\nneeded."
    assert (family.source, family.reference) == ("RFC 1047.", "9 s.")


def test_table_without_requirements_is_ignored() -> None:
    text = document(ROW, below="| word | meaning |\n|---|---|\n| client | a client |")
    assert list(parse_specification(text).requirements) == ["cli.x-1"]


def test_specification_version_is_read_from_document() -> None:
    assert parse_specification(document(ROW, version="3.1")).version == "3.1"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Version 1.\n\nno table", "missing table of requirements"),
        (document(ROW).replace("Version", "Edition"), "missing line 'Version N'"),
        (document(ROW, headings="| id | level |"), "line 4: the headings must be id, level, harm"),
        (document(ROW[:-24] + "|"), "line 6: a row must have 6 cells, not 5"),
        (document(ROW.replace("MUST", "must")), "line 6: level 'must' must be one of MUST"),
        (document(ROW.replace("lost", "gone")), "line 6: harm 'gone' must be one of lost"),
        (document(ROW.replace("relay", "proxy")), "line 6: binds 'proxy' must be one of relay"),
        (document(ROW.replace("manual", "folklore")), "line 6: source 'folklore' must begin with"),
        (document(ROW.replace("cli.x", "cli.y")), "line 6: 'cli.y-1' must be 'cli.x-N'"),
        (document(ROW.replace("cli.x-1", "cli.x")), "line 6: 'cli.x' must be 'cli.x-N'"),
        (document(ROW, ROW), "line 7: cli.x-1 must have a higher number than cli.x-1"),
        (
            document(ROW.replace("| MUST", "| SHOULD")),
            "line 6: the level of cli.x-1 must be MUST, not",
        ),
        (
            document(ROW.replace("The proxy MUST do x.", "")),
            "line 6: cli.x-1: the requirement is empty",
        ),
    ],
)
def test_error_about_invalid_table_contains_line_number(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        parse_specification(text)


@pytest.mark.parametrize(
    ("harm", "sources", "level"),
    [
        ("lost", ("safety",), "must"),
        ("exposed", ("RFC 3207",), "must"),
        ("stalled", ("RFC 5321 4.5.3.2",), "should"),
        ("stalled", ("RFC 5321", "manual"), "must"),
        ("inconvenient", ("Postfix",), "should"),
        ("", ("manual",), "may"),
    ],
)
def test_level_depends_on_harm_and_source(harm: str, sources: tuple[str, ...], level: str) -> None:
    assert level_of(harm, sources) == level


@pytest.mark.parametrize(
    ("source", "is_from"), [("manual", True), ("RFC", True), ("CVE", False), ("Postfix", False)]
)
def test_source_is_identified_by_its_first_word(source: str, is_from: bool) -> None:
    row = ROW.replace("manual", "RFC 5321 4.1.1.4, manual")
    requirement = parse_specification(document(row)).requirements["cli.x-1"]
    assert requirement.is_from(source) is is_from
