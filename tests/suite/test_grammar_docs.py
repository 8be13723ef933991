"""The table of steps in docs/transcripts.md lists every word of the grammar and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.conformance.format.grammar import GRAMMAR, SIGNALS, TEXT_OPERATORS
from tests.conformance.format.header import CAPABILITIES, KEYS
from tests.conformance.format.reader import parse_part
from tests.conformance.paths import ROOT

PAGE = (ROOT / "docs" / "transcripts.md").read_text("utf-8")
#: A step in the table: the actor's letter, its mark, and the remaining text.
_STEP = re.compile(r"([CUFP])([>+<?])(?: (.*))?")
#: Words that the table uses as examples or as arguments, with the verb that each represents.
_EXAMPLES = {("C?", "5xx"): "", ("P>", "SIGTERM"): "*"}

#: Rows that name additional steps in their second column.
_FURTHER_STEPS = ("the corresponding steps of the upstream server", "`F+ text` on the next line")


def steps() -> Iterator[tuple[str, str]]:
    """Yield the actor and mark, and the verb, of every step in the table."""
    table = PAGE[PAGE.index("| step | meaning |") :].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        cell = re.split(r"(?<!\\)\|", row)[1]
        if any(words in row for words in _FURTHER_STEPS):
            cell = row
        for code in re.findall(r"`([^`]*)`", cell):
            if found := _STEP.fullmatch(code):
                yield from _verbs(found[1] + found[2], found[3] or "")


def _verbs(begin: str, rest: str) -> Iterator[tuple[str, str]]:
    words = rest.split()
    if words and words[0].startswith("@"):
        yield from ((begin, word) for word in words if word.startswith("@"))
    else:
        word = words[0] if words else ""
        yield begin, "" if word == "text" else _EXAMPLES.get((begin, word), word)


def known() -> set[tuple[str, str]]:
    every = {(begin, verb) for begin, verbs in GRAMMAR.items() for verb in verbs}
    return {("P>", "*") if verb in SIGNALS else (begin, verb) for begin, verb in every}


def test_every_grammar_step_is_documented() -> None:
    assert known() - set(steps()) == set()


def test_every_documented_step_is_in_grammar() -> None:
    assert set(steps()) - known() == set()


def test_every_text_comparison_is_documented() -> None:
    sentence = PAGE[PAGE.index("A TEST is") :].partition("\n\n")[0]
    words = {code.split()[0] for code in re.findall(r"`([^`]*)`", sentence)}
    assert words - {"^", "$"} == set(TEXT_OPERATORS)


def test_every_header_key_is_documented() -> None:
    table = PAGE[PAGE.index("| key | value | meaning |") :].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9_]+)`", table, re.MULTILINE)) == set(KEYS)


def test_every_capability_is_documented() -> None:
    paragraph = PAGE[PAGE.index("Capabilities an implementation may lack") :].partition("\n\n")[0]
    assert set(CAPABILITIES) <= set(re.findall(r"`([a-z0-9-]+)`", paragraph))


def test_structural_words_are_parsed_as_documented() -> None:
    text = "C> @connect\neither\nC< @eof\nor\nend\n@include include/quit.smtp-part\n"
    assert len(parse_part(text, "part")) == 3
    assert "`either` / `or` / `end`" in PAGE
    assert "`@include FILE`" in PAGE
