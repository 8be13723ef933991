"""Who tests the tests: every wrong proxy of tests/fixtures is caught by a transcript of its clause.

Rule: only a difference that the transcript is about counts. So a wrong proxy must start, must not
break down, and must pass a transcript that its broken rule does not touch; and the right proxy
passes every transcript that a wrong one is caught by, with the same timeout.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from postprox.core import replies
from tests import fixtures
from tests.conformance.format.clauses import load_clauses
from tests.conformance.format.loader import load_transcript
from tests.conformance.paths import SPECIFICATION, TRANSCRIPTS
from tests.conformance.play.engine import play
from tests.conformance.play.harness import Harness, Settings
from tests.conformance.play.implementation import REFERENCE, find_implementation
from tests.conformance.play.needs import missing_need
from tests.conformance.play.observers import StepFailedError
from tests.conformance.play.process import adopt_orphans
from tests.conformance.play.timeouts import AdaptiveTimeout
from tests.conformance.run.items import suite_of

FIXTURES = Path(fixtures.__file__).parent
LEAST = 40
#: Lines of the longest wrong proxy: one mistake, to be read in one look.
LONGEST = 45
#: What a wrong proxy passes unless it names another: a session with one message.
USUAL = "filter/accept.smtp"
#: Seconds; nothing comes where something is due: not waited for as long as if it were to come.
TIMEOUT = 2.0
#: Who does not read has tens of megabytes of replies made before the kernel has no room for more:
#: that alone takes the right proxy more than a second, and longer beside other work.
TIMEOUT_WITH_UNREAD = 10.0
UNREAD = {
    "listen/hostile-never-reads.smtp",
    "relay/idle-client-never-reads.smtp",
    "relay/idle-processor-unread.smtp",
}

UNASKED = "what holds unasked"

#: Parts of clauses that no wrong proxy can break, each with the reason.
UNBREAKABLE = {
    ("cli.strict", "may"): "who does not have the option is not wrong",
    ("files.stale", "should"): "no transcript can age a file",
    ("filter.env-more", "may"): "who sets no further variables is not wrong",
    ("listen.metrics", "may"): "who writes no metrics is not wrong",
    ("listen.pid-file", "may"): "who writes no process id is not wrong",
    ("log.stderr", "may"): "a proxy without --log is not wrong",
    ("relay.lockstep", "may"): "a proxy that has several commands outstanding is not wrong",
}


@dataclass(frozen=True)
class WrongProxy:
    """What a module of tests/fixtures says of itself; it is read, for to import it is to run it."""

    name: str
    docstring: str
    clause: str
    caught_by: str
    passes: str
    code: str
    lines: int


def read_wrong_proxy(path: Path) -> WrongProxy:
    text = path.read_text()
    module = ast.parse(text)
    said = {}
    code = []
    for statement in module.body:
        match statement:
            case ast.Assign([ast.Name("CLAUSE" | "CAUGHT_BY" | "PASSES" as name)], value):
                said[name] = ast.literal_eval(value)
            case ast.Expr(ast.Constant()):
                pass
            case _:
                code.append(ast.unparse(statement))
    return WrongProxy(
        name=path.stem,
        docstring=ast.get_docstring(module) or "",
        clause=said.get("CLAUSE", ""),
        caught_by=said.get("CAUGHT_BY", ""),
        passes=said.get("PASSES", USUAL),
        code="\n".join(code),
        lines=text.count("\n"),
    )


WRONG_PROXIES = [
    read_wrong_proxy(path) for path in sorted(FIXTURES.glob("*.py")) if path.stem != "__init__"
]
CLAUSES = {clause.name: clause for clause in load_clauses(SPECIFICATION.read_text())}


def settings_of(wrong: WrongProxy, config: pytest.Config) -> Settings:
    """As for the reference, but for the module that is run."""
    argv = (sys.executable, "-S", "-m", f"{fixtures.__name__}.{wrong.name}")
    implementation = replace(find_implementation(REFERENCE), name=wrong.name, argv=argv)
    return replace(
        suite_of(config).settings,
        implementation=implementation,
        broken=set(),
        timeouts=AdaptiveTimeout(),
    )


def with_short_timeout(settings: Settings, name: str) -> Settings:
    """*settings* for transcript *name*, with a timeout that the right proxy passes with."""
    return replace(settings, timeout=TIMEOUT_WITH_UNREAD if name in UNREAD else TIMEOUT)


def difference(name: str, settings: Settings) -> str:
    """Where the implementation and the transcript (in its first mode) differ; "" for nowhere.

    What holds unasked, and has a clause of its own, is told behind these words: UNASKED.
    """
    transcript = load_transcript(TRANSCRIPTS / name)
    mode = transcript.header.modes[0]
    reason = missing_need(transcript, mode, settings)
    if reason:
        pytest.skip(reason)
    harness = Harness(transcript, mode, settings)
    try:
        observed = play(harness)
    except StepFailedError as error:
        assert signs_of_a_breakdown(harness) == []
        return str(error)
    finally:
        harness.close()
    return next((f"{UNASKED}: {one.expected}" for one in observed if not one.kept), "")


def signs_of_a_breakdown(harness: Harness) -> list[str]:
    """What the process says when it breaks down, instead of following a wrong rule to the end."""
    said = [*harness.dialogue.lines(), harness.output("stderr").decode("utf-8", "backslashreplace")]
    signs = ("Traceback", "internal error", replies.INTERNAL_ERROR.decode().strip())
    return [line for line in said if any(sign in line for sign in signs)]


@pytest.mark.parametrize("name", sorted({wrong.caught_by for wrong in WRONG_PROXIES}))
def test_right_proxy_passes_with_short_timeout(name: str, request: pytest.FixtureRequest) -> None:
    adopt_orphans()
    right = find_implementation(REFERENCE)
    settings = replace(suite_of(request.config).settings, implementation=right)
    assert difference(name, with_short_timeout(settings, name)) == ""


@pytest.mark.parametrize("wrong", WRONG_PROXIES, ids=lambda wrong: wrong.name)
def test_a_wrong_proxy_is_caught(wrong: WrongProxy, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--implementation") not in (None, REFERENCE):
        pytest.skip("the wrong proxies are this checkout's: they judge the suite")
    adopt_orphans()
    settings = settings_of(wrong, request.config)
    assert difference(wrong.passes, settings) == "", "more than one rule is broken"
    caught = difference(wrong.caught_by, with_short_timeout(settings, wrong.caught_by))
    assert caught.removeprefix(UNASKED) == caught != "", f"{wrong.caught_by} does not catch it"


def test_there_are_enough_wrong_proxies() -> None:
    assert len(WRONG_PROXIES) >= LEAST


def test_every_part_of_every_clause_that_can_be_broken_is_broken() -> None:
    parts = {(clause.name, level) for clause in CLAUSES.values() for level in clause.parts}
    broken = {(wrong.clause, level_of(wrong.caught_by)) for wrong in WRONG_PROXIES}
    assert sorted(parts - broken) == sorted(UNBREAKABLE)


def level_of(name: str) -> str:
    return load_transcript(TRANSCRIPTS / name).header.level


def test_every_wrong_proxy_breaks_the_clause_that_its_name_begins_with() -> None:
    assert [
        wrong.name
        for wrong in WRONG_PROXIES
        if wrong.clause not in CLAUSES
        or wrong.name.partition("__")[0] != wrong.clause.replace(".", "_").replace("-", "_")
    ] == []


def test_every_wrong_proxy_is_caught_by_a_transcript_of_its_clause() -> None:
    assert [
        f"{wrong.name}: {wrong.caught_by}"
        for wrong in WRONG_PROXIES
        if not judges(wrong.caught_by, wrong.clause)
    ] == []


def judges(name: str, clause: str) -> bool:
    """Whether the transcript is there, is about the clause, and fails where it is not kept."""
    path = TRANSCRIPTS / name
    if not (name and path.is_file()):
        return False
    header = load_transcript(path).header
    return clause in header.clauses and header.level != "may"


def test_every_wrong_proxy_says_which_rule_is_broken() -> None:
    assert [
        wrong.name
        for wrong in WRONG_PROXIES
        if not wrong.docstring.partition("\n")[0].startswith(f"{wrong.clause}: ")
    ] == []


def test_no_two_wrong_proxies_are_alike() -> None:
    assert repeated(wrong.docstring for wrong in WRONG_PROXIES) == []
    assert repeated(wrong.code for wrong in WRONG_PROXIES) == []


def repeated(texts: Iterable[str]) -> list[str]:
    return [text for text, count in Counter(texts).items() if count > 1]


def test_every_wrong_proxy_is_small() -> None:
    assert [wrong.name for wrong in WRONG_PROXIES if wrong.lines > LONGEST] == []


def test_what_is_not_there_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        fixtures.replace(replies, "NO_SUCH_REPLY", b"")
