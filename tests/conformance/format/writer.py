"""Writes nodes as the text of a transcript.

Rule: parsing the text again results in an equal transcript.
"""

from __future__ import annotations

from .grammar import FENCE, GRAMMAR
from .header import write_header
from .nodes import Either, Include, Node, Note, Step, Transcript


def write_transcript(transcript: Transcript) -> str:
    """Return the text of *transcript*."""
    body = "".join(f"{line}\n" for line in _node_lines(transcript.steps))
    return f"{FENCE}\n{write_header(transcript.header)}{FENCE}\n{body}"


def write_unfolded(transcript: Transcript) -> str:
    """Return the text of *transcript* with included steps expanded and indented."""
    body = "".join(f"{line}\n" for line in unfolded_lines(transcript.steps))
    return f"{FENCE}\n{write_header(transcript.header)}{FENCE}\n{body}"


def unfolded_lines(nodes: tuple[Node, ...]) -> list[str]:
    """Return the lines of *nodes*. Lines of included files begin with a vertical bar."""
    lines: list[str] = []
    for node in nodes:
        match node:
            case Include(name):
                lines.append(f"@include {name}")
                lines += [f"  | {line}".rstrip() for line in unfolded_lines(node.steps)]
            case Either(branches):
                for position, branch in enumerate(branches):
                    lines += ["or" if position else "either", *unfolded_lines(branch)]
                lines.append("end")
            case Step() | Note():
                lines += _node_lines((node,))
    return lines


def _node_lines(nodes: tuple[Node, ...]) -> list[str]:
    lines: list[str] = []
    for node in nodes:
        match node:
            case Note(text):
                lines.append(text)
            case Include(name):
                lines.append(f"@include {name}")
            case Step():
                lines.append(write_step(node))
            case Either(branches):
                for position, branch in enumerate(branches):
                    lines += ["or" if position else "either", *_node_lines(branch)]
                lines.append("end")
    return lines


def write_step(step: Step) -> str:
    """Return the text of one step."""
    kind = GRAMMAR[step.kind + step.mark][step.verb]
    words = (step.actor + step.mark, step.verb, kind.write(step.argument))
    return " ".join(word for word in words if word)
