"""Problems that the mail log shows.

Rule: each check is a pure function. The log is a last resort, because it shows only the effect of a
problem. So a caller reports an error in the log only if no other finding can explain it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import fixes
from .facts import LogFacts, LoggedError
from .findings import Fault
from .setup import Setup

_EFFECTS = {
    LoggedError.STOPPED: "mail is delayed or deferred",
    LoggedError.BOUNCED: "mail is returned to its senders",
    LoggedError.DEFERRED: "mail is deferred",
    LoggedError.REFUSED: "mail is refused or deferred",
    LoggedError.UNFILTERED: "mail passed unfiltered",
}
_EVENTS = {
    LoggedError.STOPPED: "ended",
    LoggedError.BOUNCED: "could not deliver a message",
    LoggedError.DEFERRED: "could not deliver a message",
    LoggedError.REFUSED: "refused mail",
    LoggedError.UNFILTERED: "passed mail unfiltered",
}
#: The maximum length of quoted text in a problem.
_QUOTED = 200


def logged(setup: Setup) -> Iterator[Fault]:
    """Report the errors since the last change of the configuration, the worst kind first.

    Failures of filters do not count if the filters have just passed the test messages.
    """
    facts = setup.running.log if setup.running else LogFacts()
    has_tested = bool(setup.samples) and not any(s.unchecked for s in setup.samples.values())
    errors = [
        each
        for each in facts.errors
        if not (has_tested and _is_of_filter(each)) and not _is_of_answering_proxy(setup, each)
    ]
    kinds = list(_EFFECTS)
    for error in sorted(errors, key=lambda error: kinds.index(error.kind))[:1]:
        times = "once" if error.count == 1 else f"{error.count} times"
        cause = f" after {_quoted(error.warning)}" if error.warning else ""
        yield Fault(
            "log",
            "the mail log",
            f"{error.program} {_EVENTS[error.kind]} {times}, most recently at {error.time}: "
            f"{_quoted(error.text)}{cause}; {_EFFECTS[error.kind]}",
            (fixes.run(facts.command),),
        )


#: Warnings of smtpd(8) about the connection to a proxy.
_ABOUT_PROXY = re.compile(r"(lost connection with|timeout \w+ \w+|connect to) proxy")


def _is_of_answering_proxy(setup: Setup, error: LoggedError) -> bool:
    """Return whether an error concerns a connection to a proxy, but all proxies now respond.

    An error of cleanup(8) has the same text, but cleanup(8) also logs a reason.
    """
    sessions = setup.running.sessions if setup.running else {}
    places = [place for proxy in setup.proxies for place in proxy.endpoints]
    answers = [sessions[place].greeting for place in places if place in sessions]
    is_answering = bool(answers) and all(answer.startswith("220") for answer in answers)
    is_about_proxy = _ABOUT_PROXY.match(error.warning) or (
        not error.warning and "queue file write error" in error.text
    )
    return is_answering and bool(is_about_proxy)


def _is_of_filter(error: LoggedError) -> bool:
    return error.program == "postprox" or "The mail filter" in error.text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ...")
