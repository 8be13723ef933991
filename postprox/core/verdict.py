"""The verdict on a message: a pure function of how the filter ended.

Rule: whether a message passes, is replaced or is refused, and with which words, is decided here.
"""

from . import limits, replies

#: What the filter wants done with the message; the words that the log uses.
NONE = "none"  # it has not decided: there is none, or something else ended the message
ACCEPT = "accept"
REWRITE = "rewrite"
REJECT = "reject"
DISCARD = "discard"
FAIL_OPEN = "fail-open"  # it has failed, and the message passes
FAIL = "fail"  # it has failed, and the message does not pass

#: What the shell means by these exit statuses.
_SHELL_STATUS_MEANING = {
    126: " (the command cannot be executed)",
    127: " (the command was not found)",
}

_PRINTABLE = bytes(octet if 32 <= octet < 127 else ord("?") for octet in range(256))


class Outcome:
    """How a run of the filter ended.

    status: the exit status, None if there is none.
    last_stderr_line: the last line of standard error that says something, without its line end.
    failure: why there is no exit status, or "".
    replaced: whether OUTFILE holds anything (looked at after status 0 only).
    out_of_resources: whether the proxy could not start the filter or read OUTFILE
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
    """What is done with the message.

    action: one of this module's words.
    reply: the complete reply line for the client; b"" if the message goes upstream.
    reason: for the log, why the filter counts as failed, or "".
    said: the filter's last line of standard error, as it came, without its line end.
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
        """Whether OUTFILE goes upstream in the message's place."""
        return self.action == REWRITE


def judge(outcome: Outcome, *, reject_failures: bool, strict: bool = False) -> Verdict:
    """Decide what the filter's end means for the message.

    reject_failures: ``-r``: a failure refuses the message.
    strict: ``--strict``: a rejection without a reply code is a failure (cli.strict).
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
    """Return why a filter that did not end with status 0 has failed, "" if it rejects."""
    if outcome.failure:
        return outcome.failure
    if outcome.status != 1:
        return f"exit status {outcome.status}{_SHELL_STATUS_MEANING.get(outcome.status or 0, '')}"
    if strict and not _begins_with_final_code(outcome.last_stderr_line):
        return "exit status 1 without a reply code (--strict)"
    return ""


def _begins_with_final_code(line: bytes) -> bool:
    """Whether `line` begins with the code of a reply that ends a message: 2yz, 4yz or 5yz."""
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
    """The last line that says something, of a text that may be of any size."""

    __slots__ = ("_complete", "_current")

    def __init__(self) -> None:
        self._complete = b""
        self._current = b""

    def feed(self, data: bytes) -> None:
        """Take the next octets of the text."""
        ended, newline, begun = data.rpartition(b"\n")
        if newline:
            self._complete = _last_saying(self._current + ended) or self._complete
            self._current = b""
        self._extend(begun)

    def _extend(self, data: bytes) -> None:
        room = limits.FILTER_LINE - len(self._current)
        self._current += data[:room]

    @property
    def value(self) -> bytes:
        """The last line so far that is not blank, without its line end; b"" if there is none."""
        return self._current if self._current.strip() else self._complete


def _last_saying(text: bytes) -> bytes:
    """Return the last line of `text` that is not blank, b"" if there is none.

    Found from the end, because a filter may write megabytes of lines.
    """
    said = text.rstrip()
    begin = said.rfind(b"\n") + 1
    return text[begin:].partition(b"\n")[0][: limits.FILTER_LINE] if said else b""
