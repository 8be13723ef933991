"""From the matrix to text: the templates decide what is shown where, this what is safe to show."""

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

#: Colour is never the only sign of an outcome: these stand beside it everywhere.
SYMBOLS = {"passed": "✓", "failed": "✗", "diverged": "≠", "stale": "!", "skipped": "○", "none": "—"}

# What means something in the middle of a line; the templates put no text at the start of one.
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<|~&$])")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")


def html(matrix: Matrix) -> str:
    """One page that needs nothing beside itself."""
    script = (TEMPLATES / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The browser runs the script of this digest and no other, should escaping ever fail.
    return _render("report.html", matrix=matrix, script=Markup(script), script_digest=digest)  # noqa: S704


def markdown(matrix: Matrix) -> str:
    """The same as Markdown, for a README, an issue or a job's summary."""
    return _render("report.md", matrix=matrix)


def svg(label: str, message: str, colour: str) -> str:
    """A badge: two words side by side."""
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
    """*text* as it is, on one line, whatever Markdown or HTML would see in it."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _fence(text: str) -> str:
    """*text* as a code block, fenced by more backticks than it has anywhere."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _unfolded(name: str) -> str:
    """The transcript called *name*, with what it includes; nothing if this suite has none."""
    path = TRANSCRIPTS / name
    return write_unfolded(load_transcript(path)) if path.is_file() else ""


def _statement(text: str) -> Markup:
    """A clause's statement; the Markdown that the specification uses in its tables becomes HTML."""
    safe = _CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", safe))  # noqa: S704
