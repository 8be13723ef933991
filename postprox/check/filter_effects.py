"""What happens to mail if the filter fails.

Rule: each function is pure.
"""

from __future__ import annotations

from ..core.options import Options


def effect_of_failure(wanted: Options) -> str:
    """Return the effect of a filter that always fails."""
    return "all mail is deferred" if wanted.reject else "all mail passes unfiltered"


def effect_of_lost_reply(wanted: Options) -> str:
    """Return the effect of a reply that does not reach the proxy."""
    if wanted.strict:
        return "mail that the filter rejects is deferred (451) until senders give up"
    return "senders do not learn why their mail is refused"
