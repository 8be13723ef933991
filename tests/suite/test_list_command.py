"""The corpus as a corpus: every file can be read, every clause is judged, nothing is double."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.conformance.format.clauses import Clause, load_clauses
from tests.conformance.format.loader import (
    included_names,
    load_transcript,
    transcript_name,
    transcript_paths,
)
from tests.conformance.format.nodes import Transcript, walk
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.vocabulary import GROUPS
from tests.conformance.format.writer import write_transcript
from tests.conformance.paths import PART_SUFFIX, SPECIFICATION, TRANSCRIPTS
from tests.conformance.play.implementation import find_implementation

PATH = re.compile(rf"({'|'.join(GROUPS)})/[a-z0-9]+(-[a-z0-9]+)*\.smtp")


@pytest.fixture(scope="module")
def clauses() -> dict[str, Clause]:
    return {clause.name: clause for clause in load_clauses(SPECIFICATION.read_text())}


@pytest.fixture(scope="module")
def corpus() -> list[Transcript]:
    return [load_transcript(path) for path in transcript_paths()]


def test_every_transcript_written_again_reads_the_same() -> None:
    read = {path: parse_transcript(path.read_text("ascii"), "it") for path in transcript_paths()}
    assert [
        transcript_name(path)
        for path, transcript in read.items()
        if parse_transcript(write_transcript(transcript), "it") != transcript
    ] == []


def test_every_name_is_a_group_and_words() -> None:
    names = [transcript_name(path) for path in transcript_paths()]
    assert [name for name in names if not PATH.fullmatch(name)] == []


def test_no_two_transcripts_share_a_title(corpus: list[Transcript]) -> None:
    titles = Counter(transcript.header.title for transcript in corpus)
    assert [title for title, count in titles.items() if count > 1] == []


def test_every_clause_named_is_in_the_specification(
    corpus: list[Transcript], clauses: dict[str, Clause]
) -> None:
    unknown = [
        f"{transcript.name}: {name}"
        for transcript in corpus
        for name in transcript.header.clauses
        if name not in clauses
    ]
    assert unknown == []


def test_every_level_is_one_at_which_a_named_clause_speaks(
    corpus: list[Transcript], clauses: dict[str, Clause]
) -> None:
    wrong = [
        f"{transcript.name}: no {transcript.header.level} in {transcript.header.clauses}"
        for transcript in corpus
        if transcript.header.level != "may"  # whatever is left open can be observed
        and not any(
            transcript.header.level in clauses[name].parts
            for name in transcript.header.clauses
            if name in clauses
        )
    ]
    assert wrong == []


def test_no_transcript_at_must_names_a_clause_that_does_not_speak_at_must(
    corpus: list[Transcript], clauses: dict[str, Clause]
) -> None:
    wrong = [
        f"{transcript.name}: {name}"
        for transcript in corpus
        if transcript.header.level == "must"
        for name in transcript.header.clauses
        if name in clauses and "must" not in clauses[name].parts
    ]
    assert wrong == []


#: Whose exit status a clause at must gives: what cannot be reached, what only prints, -l.
EXIT_AT_MUST = {
    *("relay.connect-failed", "cli.help", "cli.license", "cli.version", "listen.background"),
}


def test_no_transcript_at_must_demands_what_clauses_at_should_alone_do(
    corpus: list[Transcript],
) -> None:
    wrong = [
        f"{transcript.name}: {step.source}"
        for transcript in corpus
        if transcript.header.level == "must"
        for step in walk(transcript.steps)
        if (step.kind, step.verb, str(step.argument)) == ("P", "tmp", "empty")
        or (step.kind == "P" and step.verb in ("memory", "growth"))
        or (
            (step.kind, step.verb) == ("P", "exit")
            and str(step.argument) != "any"
            and EXIT_AT_MUST.isdisjoint(transcript.header.clauses)
        )
    ]
    assert wrong == []


def test_only_the_clause_that_names_a_size_is_judged_by_one(corpus: list[Transcript]) -> None:
    measured = {
        transcript.header.clauses[0]
        for transcript in corpus
        for step in walk(transcript.steps)
        if step.verb == "memory"
    }
    assert measured == {"data.size"}


#: Parts of clauses that no transcript can judge, each with the reason.
UNJUDGED = {("files.stale", "should"): "no transcript can age a file"}


def test_every_part_of_every_clause_is_judged(
    corpus: list[Transcript], clauses: dict[str, Clause]
) -> None:
    judged = {
        (name, transcript.header.level)
        for transcript in corpus
        for name in transcript.header.clauses
    }
    parts = {(clause.name, level) for clause in clauses.values() for level in clause.parts}
    assert sorted(parts - judged) == sorted(UNJUDGED)


def test_every_included_file_is_included_somewhere(corpus: list[Transcript]) -> None:
    parts = {
        path.relative_to(TRANSCRIPTS).as_posix() for path in TRANSCRIPTS.rglob(f"*{PART_SUFFIX}")
    }
    included = {name for transcript in corpus for name in included_names(transcript.steps)}
    assert parts - included == set()


def test_every_part_says_first_what_it_is_for() -> None:
    parts = sorted(TRANSCRIPTS.rglob(f"*{PART_SUFFIX}"))
    assert [path.name for path in parts if not path.read_text("ascii").startswith("# ")] == []


def test_a_peer_written_from_the_specification_fails_nothing_at_must() -> None:
    peer = find_implementation("postprox-go")
    levels = {
        load_transcript(TRANSCRIPTS / one.transcript).header.level for one in peer.divergences
    }
    assert levels == {"should"}
