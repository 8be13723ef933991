"""The closed lists of words that transcripts, result files and reports share.

Rule: each list stands here once, in the order in which it is shown.
"""

from __future__ import annotations

#: How much a clause, and a transcript about it, demands.
LEVELS = ("must", "should", "may")
#: In which ways a transcript is played.
MODES = ("stdio", "listen", "command")
#: What a transcript came to.
OUTCOMES = ("passed", "failed", "diverged", "stale", "skipped")
#: Why an implementation is known to diverge.
KINDS = ("bug", "wontfix", "unclear")
#: The folders of transcripts: the first words of clauses, and what was recorded.
GROUPS = ("cli", "relay", "data", "filter", "files", "listen", "log", "recorded")

#: What the filter is told of a message (filter.env) ...
ENVELOPE_VARIABLES = ("SENDER", "RECIPIENT", "REMOTEIP", "HELO")
#: ... and where it finds it; these are paths, others in every run.
FILTER_VARIABLES = ("EMAIL", "OUTFILE", *ENVELOPE_VARIABLES)

#: The first part of the names of results that are no transcripts.
PROPERTY_PREFIX = "properties/"
INVARIANT_PREFIX = "invariant/"
#: INVARIANT_PREFIX in result files of format 1 and in descriptions written for them.
OLD_INVARIANT_PREFIX = "unasked/"


def current_name(name: str) -> str:
    """Return the name that a result called `name` has today."""
    if name.startswith(OLD_INVARIANT_PREFIX):
        return INVARIANT_PREFIX + name.removeprefix(OLD_INVARIANT_PREFIX)
    return name
