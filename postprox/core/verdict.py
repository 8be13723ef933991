"""The verdict on a message, which `judge` derives from the filter's exit status.

Rule: only this module decides whether a message passes, is replaced or is refused, and with which
reply. `judge` is a pure function.
"""

from . import limits, replies

#: The possible actions of a verdict, with their values in the log.
NONE = "none"  # there is no filter, or the message was aborted before the filter exited
ACCEPT = "accept"
REWRITE = "rewrite"
REJECT = "reject"
DISCARD = "discard"
FAIL_OPEN = "fail-open"  # the filter failed, and the message passes
FAIL = "fail"  # the filter failed, and the message is refused

#: The meanings of the exit statuses that sh(1) sets.
_SHELL_STATUS_MEANING = {
    126: " (the command cannot be executed)",
    127: " (the command was not found)",
}

_PRINTABLE = bytes(octet if 32 <= octet < 127 else ord("?") for octet in range(256))


class Outcome:
    """The outcome of one run of the filter.

    status: the exit status, or None if there is none.
    last_stderr_line: the last non-blank line of standard error, without its newline.
    failure: the reason why there is no exit status, or "".
    replaced: true if OUTFILE has content. OUTFILE matters only if the exit status is 0.
    out_of_resources: true if the proxy lacked the resources to start the filter or to read OUTFILE
        (filter.no-resources).
    """

    __slots__ = ("failure", "last_stderr_line", "out_of_resources", "replaced", "status")

    def __init__(
        self,
        status: int | None = None,
        last_stderr_line: bytes = b"",
        failure: str = "",
        replaced: bool = False,
        out_of_resources: bool = False,
    ) -> None:
        self.out_of_resources = out_of_resources
        self.status = status
        self.last_stderr_line = last_stderr_line
        self.failure = failure
        self.replaced = replaced


class Verdict:
    """The verdict on a message.

    action: one of this module's constants.
    reply: the complete reply line for the client, or b"" if the message passes.
    reason: the cause of a filter failure, for the log, or "".
    said: the last non-blank line of the filter's standard error, without its newline.
    """

    __slots__ = ("action", "reason", "reply", "said")

    def __init__(
        self, action: str, reply: bytes = b"", reason: str = "", said: bytes = b""
    ) -> None:
        self.action = action
        self.reply = reply
        self.reason = reason
        self.said = said

    @property
    def rewrites(self) -> bool:
        """Whether OUTFILE replaces the message."""
        return self.action == REWRITE


def judge(outcome: Outcome, *, reject_failures: bool, strict: bool = False) -> Verdict:
    """Derive the verdict on a message from the outcome of the filter.

    reject_failures: true if the message is refused when the filter fails (``-r``).
    strict: true if a rejection without a reply code counts as a failure (``--strict``, cli.strict).
    """
    said = outcome.last_stderr_line
    if outcome.status == 0 and not outcome.failure:
        return Verdict(REWRITE if outcome.replaced else ACCEPT, said=said)
    reason = _failure(outcome, strict=strict)
    if not reason:
        reply = rejection(said)
        return Verdict(DISCARD if reply[:1] == b"2" else REJECT, reply, said=said)
    if reject_failures or outcome.out_of_resources:
        return Verdict(FAIL, replies.FILTER_FAILED, reason, said)
    return Verdict(FAIL_OPEN, b"", reason, said)


def _failure(outcome: Outcome, *, strict: bool) -> str:
    """Return the cause of a filter failure, or "" for a rejection.

    The exit status must not be 0.
    """
    if outcome.failure:
        return outcome.failure
    if outcome.status != 1:
        return f"exit status {outcome.status}{_SHELL_STATUS_MEANING.get(outcome.status or 0, '')}"
    if strict and not _begins_with_final_code(outcome.last_stderr_line):
        return "exit status 1 without a reply code (--strict)"
    return ""


def _begins_with_final_code(line: bytes) -> bool:
    """Return whether `line` begins with a reply code that ends a message: 2yz, 4yz or 5yz."""
    return line[:1] in (b"2", b"4", b"5") and line[:3].isdigit() and line[3:4] == b" "


def rejection(last_stderr_line: bytes) -> bytes:
    """Return the reply line for a rejection (filter.reject-prefix, filter.reject-line)."""
    text = last_stderr_line.removesuffix(b"\r")
    if not text:
        text = replies.REJECTED.rstrip()
    elif not (text[:3].isdigit() and text[3:4] == b" "):
        text = b"554 " + text
    return text.translate(_PRINTABLE)[: limits.REPLY_LINE - 2] + b"\r\n"


class LastLine:
    """Finds the last non-blank line of a text of any size."""

    __slots__ = ("_complete", "_current")

    def __init__(self) -> None:
        self._complete = b""
        self._current = b""

    def feed(self, data: bytes) -> None:
        """Process more octets of the text."""
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            self._complete = _last_nonblank(self._current + complete) or self._complete
            self._current = b""
        self._extend(rest)

    def _extend(self, data: bytes) -> None:
        free = limits.FILTER_LINE - len(self._current)
        self._current += data[:free]

    @property
    def value(self) -> bytes:
        """The last non-blank line without its newline, or b"" if all lines are blank."""
        return self._current if self._current.strip() else self._complete


def _last_nonblank(text: bytes) -> bytes:
    """Return the last non-blank line of `text`, or b"" if there is none.

    The search starts at the end, because a filter may write megabytes.
    """
    stripped = text.rstrip()
    begin = stripped.rfind(b"\n") + 1
    return text[begin:].partition(b"\n")[0][: limits.FILTER_LINE] if stripped else b""
