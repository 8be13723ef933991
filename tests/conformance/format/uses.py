"""Determines which capabilities a transcript's steps use without an entry in the header.

Rule: each capability in DERIVED has a module that detects its use.
"""

from __future__ import annotations

from .extensions import SHOWN_BY_EHLO, extensions
from .nodes import Transcript
from .pipelining import pipelines
from .quit_on_eof import requires_quit_on_eof

PIPELINING, QUIT_ON_EOF = "pipelining", "quit-on-eof"
#: The capabilities that `uses` detects.
DERIVED = frozenset((*SHOWN_BY_EHLO.values(), PIPELINING, QUIT_ON_EOF))


def uses(transcript: Transcript) -> list[str]:
    """Return the capabilities in DERIVED that are required to complete *transcript*."""
    found = {*extensions(transcript)}
    if pipelines(transcript.steps):
        found.add(PIPELINING)
    if requires_quit_on_eof(transcript.steps):
        found.add(QUIT_ON_EOF)
    return sorted(found)
