"""Adapts a transcript to a profile by removing the requirements and steps of other profiles.

Rule: outside the profile postprox, only the class of the program's own replies is tested. Its log,
exit status, filter environment and files are not tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .nodes import Either, Include, Node, Note, ReplyPattern, Step, Transcript
from .own_words import in_own_words
from .profiles import Profile

#: Steps that only apply to the profile postprox.
_POSTPROX_STEPS = {
    "F": ("env", "unset", "email-mode", "outfile"),
    "P": ("syslog", "stdout", "stderr"),
}
#: States of the spool directory that only requirements such as files.gone specify.
_POSTPROX_FILES = ("empty", "filled")


def for_profile(transcript: Transcript, profile: Profile) -> Transcript:
    """Return the part of *transcript* that applies to programs of *profile*."""
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
    """Return a pattern for all codes with the same first digits as the codes of *pattern*."""
    return ReplyPattern(tuple(dict.fromkeys(f"{code[0]}xx" for code in pattern.codes)))
