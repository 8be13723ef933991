"""The transcripts as a whole: each is valid, names are unique and every family is tested."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.conformance.format.loader import (
    included_names,
    load_transcript,
    transcript_name,
    transcript_paths,
)
from tests.conformance.format.nodes import Transcript, walk
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.format.vocabulary import GROUPS
from tests.conformance.format.writer import write_transcript
from tests.conformance.paths import PART_SUFFIX, TRANSCRIPTS
from tests.conformance.play.failure import states_exit_status

pytestmark = pytest.mark.any_account

PATH = re.compile(rf"({'|'.join(GROUPS)})/[a-z0-9]+(-[a-z0-9]+)*\.smtp")


@pytest.fixture(scope="module")
def corpus() -> list[Transcript]:
    return [load_transcript(path) for path in transcript_paths()]


def test_every_transcript_round_trips() -> None:
    read = {path: parse_transcript(path.read_text("ascii"), "it") for path in transcript_paths()}
    assert [
        transcript_name(path)
        for path, transcript in read.items()
        if parse_transcript(write_transcript(transcript), "it") != transcript
    ] == []


def test_transcript_names_consist_of_group_and_words() -> None:
    names = [transcript_name(path) for path in transcript_paths()]
    assert [name for name in names if not PATH.fullmatch(name)] == []


def test_transcript_titles_are_unique(corpus: list[Transcript]) -> None:
    titles = Counter(transcript.header.title for transcript in corpus)
    assert [title for title, count in titles.items() if count > 1] == []


def test_transcript_that_tests_exit_status_cites_matching_requirement(
    corpus: list[Transcript],
) -> None:
    assert [
        transcript.name
        for transcript in corpus
        if not any(states_exit_status(one) for one in transcript.requirements)
        for step in walk(transcript.steps)
        if (step.kind, step.verb) == ("P", "exit") and str(step.argument) != "any"
    ] == []


def test_memory_is_measured_only_in_transcripts_about_data_size(corpus: list[Transcript]) -> None:
    measured = {
        transcript.subject.family
        for transcript in corpus
        for step in walk(transcript.steps)
        if step.verb == "memory"
    }
    assert measured == {"data.size"}


#: Families that no transcript can test, with the reasons.
UNJUDGED = {"files.stale": "a transcript cannot create an old file"}


def test_every_family_has_transcript(corpus: list[Transcript]) -> None:
    judged = {name for transcript in corpus for name in transcript.families}
    families = {family.name for family in specification().families}
    assert families - judged == set(UNJUDGED)


def test_every_part_is_included(corpus: list[Transcript]) -> None:
    parts = {
        path.relative_to(TRANSCRIPTS).as_posix() for path in TRANSCRIPTS.rglob(f"*{PART_SUFFIX}")
    }
    included = {name for transcript in corpus for name in included_names(transcript.steps)}
    assert parts - included == set()


def test_every_transcript_part_begins_with_comment() -> None:
    parts = sorted(TRANSCRIPTS.rglob(f"*{PART_SUFFIX}"))
    assert [path.name for path in parts if not path.read_text("ascii").startswith("# ")] == []
