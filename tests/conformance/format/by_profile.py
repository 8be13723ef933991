"""The form of a transcript for a profile: without requirements and steps of other profiles.

Rule: outside profile postprox, a reply of the program's own is tested by class, and its log, exit
status, environment of the filter and files are not tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .nodes import Either, Include, Node, Note, ReplyPattern, Step, Transcript
from .own_words import in_own_words
from .profiles import Profile

#: Steps about the behaviour of profile postprox only.
_POSTPROX_STEPS = {
    "F": ("env", "unset", "email-mode", "outfile"),
    "P": ("syslog", "stdout", "stderr"),
}
#: States of the spool directory that only files.gone and the like require.
_POSTPROX_FILES = ("empty", "filled")


def for_profile(transcript: Transcript, profile: Profile) -> Transcript:
    """Return the part of *transcript* that a program of *profile* must satisfy."""
    if profile.is_whole:
        return transcript
    header = replace(transcript.header, requires=profile.counted(transcript.header.requires))
    steps = in_own_words(tuple(_nodes(transcript.steps)), profile)
    return replace(transcript, header=header, steps=steps)


def _nodes(nodes: tuple[Node, ...]) -> Iterator[Node]:
    for node in nodes:
        match node:
            case Step() if not _is_postprox_only(node):
                yield _step(node)
            case Either(branches):
                yield replace(node, branches=tuple(tuple(_nodes(branch)) for branch in branches))
            case Include(_):
                yield replace(node, steps=tuple(_nodes(node.steps)))
            case Note():
                yield node


def _is_postprox_only(step: Step) -> bool:
    if step.verb == "tmp":
        return step.argument in _POSTPROX_FILES
    return step.verb in _POSTPROX_STEPS.get(step.kind, ())


def _step(step: Step) -> Step:
    if isinstance(step.argument, ReplyPattern):
        return replace(step, argument=_by_class(step.argument), source="")
    if (step.kind, step.verb) == ("P", "exit"):
        return replace(step, argument="any", source="")
    return step


def _by_class(pattern: ReplyPattern) -> ReplyPattern:
    """Return the pattern of all codes that have the first digit of a code of *pattern*."""
    return ReplyPattern(tuple(dict.fromkeys(f"{code[0]}xx" for code in pattern.codes)))
