"""Determines which SMTP extensions a transcript uses. The program must offer them.

Rule: a transcript uses an extension if its client sends one of the extension's parameters, or if it
requires the keyword in the EHLO reply. A transcript that tests the EHLO reply does not use the
extension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .alternatives import final_states
from .dialogue_state import NO_SIDES, Sides, commands_of, octets_of
from .nodes import Group, ReplyPattern, Transcript

#: The capability that each keyword in the EHLO reply indicates.
SHOWN_BY_EHLO = {
    b"PIPELINING": "pipelining",
    b"ENHANCEDSTATUSCODES": "enhanced-codes",
    b"8BITMIME": "8bitmime",
    b"SIZE": "size",
}
_PARAMETERS = {
    "8bitmime": re.compile(rb"^MAIL FROM:[^\n]* BODY=8BITMIME\b", re.IGNORECASE | re.MULTILINE),
    "size": re.compile(rb"^MAIL FROM:[^\n]* SIZE=", re.IGNORECASE | re.MULTILINE),
}
_EHLO = b"EHLO"
_ABOUT_EHLO = "relay.ehlo"
_KEYWORD = re.compile(rb"^250[- ]([^ \r\n]+)", re.MULTILINE)


@dataclass(frozen=True)
class _State:
    sides: Sides = NO_SIDES
    used: frozenset[str] = frozenset()

    def after(self, group: Group) -> _State:
        side = self.sides.of(group[0].actor)
        return _State(self.sides.after(group), self.used | _used(group, side.due, side.is_content))


def keywords(reply: bytes) -> set[bytes]:
    """Return the keywords in an EHLO *reply* that indicate a capability."""
    return SHOWN_BY_EHLO.keys() & {word.upper() for word in _KEYWORD.findall(reply)}


def _used(group: Group, due: tuple[bytes, ...], is_content: bool) -> set[str]:
    step = group[0]
    if step.kind != "C":
        return set()
    if isinstance(step.argument, ReplyPattern):
        return {"enhanced-codes"} if step.argument.enhanced else set()
    if step.mark == "<":
        words = keywords(octets_of(group)) if due[:1] == (_EHLO,) else ()
        return {SHOWN_BY_EHLO[word] for word in words}
    commands = b"" if is_content else commands_of(group)
    return {name for name, found in _PARAMETERS.items() if found.search(commands)}


def extensions(transcript: Transcript) -> frozenset[str]:
    """Return the capabilities that all paths through *transcript* use."""
    if transcript.subject.family == _ABOUT_EHLO:
        return frozenset()
    states = final_states(transcript.steps, _State(), _State.after)
    return frozenset.intersection(*(state.used for state in states))
