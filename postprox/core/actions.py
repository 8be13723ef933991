"""What a session asks its surroundings to do, in the order given.

Rule: actions carry data and do nothing; `connection` carries them out.
"""


class Action:
    """One thing to do. Equal when kind and contents are equal, so that tests can compare."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Action)
            and type(self) is type(other)
            and self._contents() == other._contents()
        )

    def __hash__(self) -> int:
        return hash((type(self), str(self._contents())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._contents()))})"

    def _contents(self) -> tuple[object, ...]:
        return ()


class _WithData(Action):
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def _contents(self) -> tuple[object, ...]:
        return (self.data,)


class SendToClient(_WithData):
    """Send these octets to the client."""

    __slots__ = ()


class CloseClient(Action):
    """Close the client's connection once everything for it is written."""

    __slots__ = ()


class ConnectUpstream(Action):
    """Connect to upstream; answer with `upstream_connected` or `upstream_failed`."""

    __slots__ = ()


class SendToUpstream(_WithData):
    """Send these octets upstream."""

    __slots__ = ()


class CloseUpstream(Action):
    """Close upstream's connection, or stop connecting, at once."""

    __slots__ = ()


class OpenSpool(Action):
    """Make a spool file; answer with `spool_opened` or `spool_failed`."""

    __slots__ = ()


class WriteSpool(_WithData):
    """Append this content to the spool; a failure shows at `FinishSpool`.

    wire: the same as it goes upstream.
    """

    __slots__ = ("wire",)

    def __init__(self, data: bytes, wire: bytes) -> None:
        self.data = data
        self.wire = wire

    def _contents(self) -> tuple[object, ...]:
        return (self.data, self.wire)


class FinishSpool(Action):
    """Make sure that all content is stored; answer with `spool_sealed` or `spool_failed`."""

    __slots__ = ()


class RunFilter(Action):
    """Run the filter on the spooled message.

    Answer with `filter_started` and later `filter_finished`, or with `filter_finished` or
    `spool_failed` alone if it cannot be started.
    """

    __slots__ = ("environment",)

    def __init__(self, environment: dict[bytes, bytes]) -> None:
        self.environment = environment

    def _contents(self) -> tuple[object, ...]:
        return (self.environment,)


class KillFilter(Action):
    """Kill the filter and all its process group; answer with `filter_finished`, for `reason`."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def _contents(self) -> tuple[object, ...]:
        return (self.reason,)


class Deliver(Action):
    """Send the original message and its end; answer with `message_sent` or `delivery_failed`."""

    __slots__ = ()


class DeliverReplacement(Action):
    """Send what the filter left in OUTFILE, encoded, and its end.

    Answer with `message_sent`, or with `delivery_failed` before its end.
    """

    __slots__ = ()


class DiscardMessage(Action):
    """Kill the filter if it runs and remove every file of the message."""

    __slots__ = ()


class CountMessage(Action):
    """Count a message: the filter's verdict, what became of it, how long its filter ran.

    seconds: 0 if no filter ran.
    """

    __slots__ = ("result", "seconds", "verdict")

    def __init__(self, verdict: str, result: str, seconds: float) -> None:
        self.verdict = verdict
        self.result = result
        self.seconds = seconds

    def _contents(self) -> tuple[object, ...]:
        return (self.verdict, self.result, self.seconds)


class _Line(Action):
    """Write a line to the log, at one of `log_levels`."""

    __slots__ = ("level", "text")

    def __init__(self, level: int, text: str) -> None:
        self.level = level
        self.text = text

    def _contents(self) -> tuple[object, ...]:
        return (self.level, self.text)


class Log(_Line):
    """Write a line to the log."""

    __slots__ = ()


class LogSeldom(_Line):
    """Write a line to the log; a server does not repeat it within `limits.FULL_WARNING`."""

    __slots__ = ()
