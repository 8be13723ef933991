"""Rendering of the matrix as text.

Rule: the templates define the layout. This module escapes text.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from ..format.loader import load_transcript
from ..format.vocabulary import OUTCOMES
from ..format.writer import write_unfolded
from ..paths import TEMPLATES, TRANSCRIPTS
from .matrix import Matrix

#: The symbols of the outcomes. Colour is never the only indication of an outcome.
SYMBOLS = {"passed": "✓", "failed": "✗", "diverged": "≠", "stale": "!", "skipped": "○", "none": "—"}

# The characters with a special meaning within a line. Templates never put text at the start of a
# line.
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<|~&$])")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")


def html(matrix: Matrix) -> str:
    """Return the report as a self-contained HTML page."""
    script = (TEMPLATES / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The browser only runs the script with this digest, even if the escaping is incorrect.
    return _render("report.html", matrix=matrix, script=Markup(script), script_digest=digest)  # noqa: S704


def markdown(matrix: Matrix) -> str:
    """Return the report as Markdown, for a README, an issue or a job summary."""
    return _render("report.md", matrix=matrix)


def svg(label: str, message: str, colour: str) -> str:
    """Return a badge with two texts side by side."""
    return _render("badge.svg", label=label, message=message, colour=colour)


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "command": shlex.join,
        "fence": _fence,
        "md": _markdown_text,
        "statement": _statement,
        "unfolded": _unfolded,
    }
    text = environment.get_template(template).render(symbols=SYMBOLS, outcomes=OUTCOMES, **values)
    return text.rstrip("\n") + "\n"


def _markdown_text(text: str) -> str:
    """Return *text* on one line, escaped for Markdown and HTML."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _fence(text: str) -> str:
    """Return *text* as a code block whose fence is longer than any backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _unfolded(name: str) -> str:
    """Return the transcript *name* with its includes expanded, or "" if it is not in this suite."""
    path = TRANSCRIPTS / name
    return write_unfolded(load_transcript(path)) if path.is_file() else ""


def _statement(text: str) -> Markup:
    """Convert a requirement's sentence from the specification's Markdown to HTML."""
    safe = _CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", safe))  # noqa: S704
