"""The keywords that transcripts, result files and reports share.

Rule: each list is defined only here, in display order.
"""

from __future__ import annotations

#: The levels of requirements and of their transcripts, strictest first.
LEVELS = ("must", "should", "may")
#: The kinds of harm to a message or its confidentiality that a violation can cause, worst first.
MAIL_HARMS = ("lost", "duplicated", "unfiltered", "altered", "exposed")
#: All kinds of harm that a violation can cause, worst first.
HARMS = (*MAIL_HARMS, "stalled", "misreported", "inconvenient")
#: The profiles of programs to which a requirement can apply, widest first.
BINDS = ("relay", "transparent", "synchronous", "filter", "postprox")
#: A program's policies for bare LF in content: deliver it unchanged, deliver it as CRLF, or refuse
#: it.
BARE_LF_POLICIES = ("pass", "normalise", "refuse")
#: The first words of a requirement's sources.
SOURCES = ("manual", "RFC", "CVE", "Postfix", "safety")
#: The modes in which a transcript can be run.
MODES = ("stdio", "listen", "command")
#: The outcomes of one transcript in one mode.
OUTCOMES = ("passed", "failed", "diverged", "stale", "skipped")
#: The reasons for a known divergence of an implementation.
KINDS = ("bug", "wontfix", "unclear")
#: The transcript folders, which are "recorded" and the first words of all clauses.
GROUPS = ("cli", "relay", "data", "filter", "files", "listen", "log", "recorded")

#: The environment variables of the filter that contain the envelope (filter.env).
ENVELOPE_VARIABLES = ("SENDER", "RECIPIENT", "REMOTEIP", "HELO")
#: All environment variables of the filter. EMAIL and OUTFILE are paths and differ in each run.
FILTER_VARIABLES = ("EMAIL", "OUTFILE", *ENVELOPE_VARIABLES)

#: Prefixes of the names of results that are not transcripts.
PROPERTY_PREFIX = "properties/"
INVARIANT_PREFIX = "invariant/"
#: The former INVARIANT_PREFIX, in result files of format 1 and in older implementation files.
OLD_INVARIANT_PREFIX = "unasked/"


def current_name(name: str) -> str:
    """Return the current name of the result *name*, which may be a former name."""
    if name.startswith(OLD_INVARIANT_PREFIX):
        return INVARIANT_PREFIX + name.removeprefix(OLD_INVARIANT_PREFIX)
    return name
