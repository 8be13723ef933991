"""The suite detects each broken proxy with a transcript that cites the broken requirement.

Rule: only the broken rule counts. A broken proxy must start, must not crash, and must pass a
transcript that does not touch the rule. The unbroken proxy must pass each detecting transcript with
the same timeout.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from postprox.core import replies
from tests import fixtures
from tests.conformance.format.loader import load_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.paths import ROOT, TRANSCRIPTS
from tests.conformance.play.engine import play
from tests.conformance.play.harness import Harness, Settings
from tests.conformance.play.implementation import REFERENCE, find_implementation
from tests.conformance.play.needs import ROOT_ONLY, missing_need, needs
from tests.conformance.play.observers import StepFailedError
from tests.conformance.play.process import adopt_orphans
from tests.conformance.play.timeouts import AdaptiveTimeout
from tests.conformance.run.items import suite_of
from tests.fixtures import BrokenProxy
from tests.suite.broken_proxies import BROKEN_PROXIES, GROUPS
from tests.support.accounts import skip_if_passed_as_user

LEAST = 40
#: The maximum number of lines in a broken proxy, whose one bug must be easy to see.
LONGEST = 30
#: Seconds. A missing observation costs the whole timeout, so it is shorter than in other runs.
TIMEOUT = 2.0
#: Seconds. A client that does not read gets tens of megabytes of replies until the kernel's
#: buffers are full. This takes the unbroken proxy more than 1 s, and longer on a loaded machine.
TIMEOUT_WITH_UNREAD = 10.0
UNREAD = {
    "listen/hostile-never-reads.smtp",
    "relay/idle-client-never-reads.smtp",
    "relay/idle-processor-unread.smtp",
}

INVARIANT = "invariant"

REQUIREMENTS = set(specification().requirements)
#: Code that imports every module that a session with one message loads.
SESSION_IMPORTS = (
    "import tests.fixtures; from postprox.shell import connection, filter, spool; "
    "from postprox.core import envelope, message"
)


def settings_of(name: str, config: pytest.Config) -> Settings:
    """Return the settings of the reference, with the broken proxy *name* as implementation."""
    argv = (sys.executable, "-S", "-m", fixtures.__name__, name)
    implementation = replace(find_implementation(REFERENCE), name=name, argv=argv)
    return replace(
        suite_of(config).settings,
        implementation=implementation,
        broken=set(),
        timeouts=AdaptiveTimeout(),
    )


def with_short_timeout(settings: Settings, name: str) -> Settings:
    """Return *settings* with the timeout of the transcript *name*."""
    return replace(settings, timeout=TIMEOUT_WITH_UNREAD if name in UNREAD else TIMEOUT)


def run_once_in_gate(*names: str) -> None:
    """Skip a test that has passed as an ordinary user if its transcripts do not need root."""
    transcripts = [load_transcript(TRANSCRIPTS / name) for name in names]
    if not any(ROOT_ONLY & {*needs(one, one.header.modes[0])} for one in transcripts):
        skip_if_passed_as_user()


def difference(name: str, settings: Settings) -> str:
    """Return the implementation's first deviation from the transcript in its first mode, or "".

    The text starts with INVARIANT for a broken invariant, which has its own requirements.
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
        assert signs_of_a_crash(harness) == []
        return str(error)
    finally:
        harness.close()
    return next((f"{INVARIANT}: {one.expected}" for one in observed if not one.kept), "")


def signs_of_a_crash(harness: Harness) -> list[str]:
    """Return the lines that show a crash of the process instead of a broken rule."""
    stderr = harness.output("stderr").decode("utf-8", "backslashreplace")
    signs = ("Traceback", "internal error", replies.INTERNAL_ERROR.decode().strip())
    lines = [*harness.dialogue.lines(), stderr]
    return [line for line in lines if any(sign in line for sign in signs)]


@pytest.mark.parametrize(
    "name", sorted({name for proxy in BROKEN_PROXIES.values() for name in proxy.caught_by})
)
def test_unmodified_proxy_passes_with_short_timeout(
    name: str, request: pytest.FixtureRequest
) -> None:
    run_once_in_gate(name)
    adopt_orphans()
    reference = find_implementation(REFERENCE)
    settings = replace(suite_of(request.config).settings, implementation=reference)
    assert difference(name, with_short_timeout(settings, name)) == ""


@pytest.mark.parametrize("name", BROKEN_PROXIES)
def test_broken_proxy_is_detected(name: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--implementation") not in (None, REFERENCE):
        pytest.skip("the broken proxies are this checkout's and judge the suite")
    proxy = BROKEN_PROXIES[name]
    run_once_in_gate(proxy.passes, *proxy.caught_by)
    adopt_orphans()
    settings = settings_of(name, request.config)
    assert difference(proxy.passes, settings) == "", "more than one rule is broken"
    for transcript in proxy.caught_by:
        caught = difference(transcript, with_short_timeout(settings, transcript))
        assert caught, f"{transcript} does not detect it"
        assert not caught.startswith(INVARIANT), f"{transcript}: {caught}"


def test_at_least_40_broken_proxies_exist() -> None:
    assert len(BROKEN_PROXIES) >= LEAST


def test_requirement_exists_and_belongs_to_group() -> None:
    assert [
        f"{name}: {proxy.requirement}"
        for name, proxy in BROKEN_PROXIES.items()
        if proxy.requirement not in REQUIREMENTS or not in_group(name, proxy.requirement)
    ] == []


def in_group(name: str, requirement: str) -> bool:
    """Return whether the requirement is in the group (for example, relay.idle in relay_idle)."""
    group = name.partition(".")[0]
    return requirement.replace(".", "_").replace("-", "_").startswith(group)


def test_detecting_transcripts_exist_and_cite_violated_requirement() -> None:
    assert [
        name
        for name, proxy in BROKEN_PROXIES.items()
        if not proxy.caught_by or not all(judges(one, proxy.requirement) for one in proxy.caught_by)
    ] == []


def judges(name: str, requirement: str) -> bool:
    """Return whether the transcript exists, cites the requirement and can fail."""
    path = TRANSCRIPTS / name
    if not path.is_file():
        return False
    transcript = load_transcript(path)
    return requirement in transcript.header.requires and transcript.subject.level != "may"


def test_each_broken_proxy_passes_at_least_one_transcript() -> None:
    assert [
        name for name, proxy in BROKEN_PROXIES.items() if not (TRANSCRIPTS / proxy.passes).is_file()
    ] == []


def test_docstring_of_each_broken_proxy_is_one_sentence() -> None:
    texts = [docstring(proxy) for proxy in BROKEN_PROXIES.values()]
    assert [text for text in texts if not is_sentence(text)] == []


def is_sentence(text: str) -> bool:
    return text[:1].isupper() and text.endswith(".") and "\n" not in text


def docstring(proxy: BrokenProxy) -> str:
    return proxy.change.__doc__ or ""


def test_broken_proxies_are_distinct() -> None:
    assert repeated((p.requirement, docstring(p)) for p in BROKEN_PROXIES.values()) == []
    assert repeated(code(proxy) for proxy in BROKEN_PROXIES.values()) == []


def code(proxy: BrokenProxy) -> str:
    return inspect.getsource(proxy.change).partition(docstring(proxy))[2]


def repeated(texts: Iterable[object]) -> list[object]:
    return [text for text, count in Counter(texts).items() if count > 1]


def test_source_code_of_each_broken_proxy_is_short() -> None:
    assert [
        name
        for name, proxy in BROKEN_PROXIES.items()
        if inspect.getsource(proxy.change).count("\n") > LONGEST
    ] == []


@pytest.mark.parametrize("group", GROUPS)
def test_broken_proxies_import_no_additional_modules(group: str) -> None:
    imported = f"{fixtures.__name__}.{group}"
    script = (
        f"import sys; {SESSION_IMPORTS}; before = set(sys.modules); import {imported}; "
        "print(*(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [imported]


def test_replaced_name_must_exist() -> None:
    with pytest.raises(AttributeError):
        fixtures.replace(replies, "NO_SUCH_REPLY", b"")
