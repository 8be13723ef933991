"""The capabilities that the steps of a transcript use, without an entry in its header.

Rule: each capability of DERIVED has a module that finds its uses.
"""

from __future__ import annotations

from .extensions import SHOWN_BY_EHLO, extensions
from .nodes import Transcript
from .pipelining import pipelines
from .quit_on_eof import requires_quit_on_eof

PIPELINING, QUIT_ON_EOF = "pipelining", "quit-on-eof"
#: The capabilities that `uses` finds.
DERIVED = frozenset((*SHOWN_BY_EHLO.values(), PIPELINING, QUIT_ON_EOF))


def uses(transcript: Transcript) -> list[str]:
    """Return the capabilities of DERIVED without which *transcript* cannot be played to its end."""
    found = {*extensions(transcript)}
    if pipelines(transcript.steps):
        found.add(PIPELINING)
    if requires_quit_on_eof(transcript.steps):
        found.add(QUIT_ON_EOF)
    return sorted(found)
