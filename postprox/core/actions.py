"""The actions that a session asks the shell to perform, in order.

Rule: actions are data without behaviour. `connection` performs them. In a docstring, "Respond with"
names the `Session` method that the shell must then call.
"""


class Action:
    """One action. Tests rely on the equality of actions with the same type and attributes."""

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
    """Send octets to the client."""

    __slots__ = ()


class CloseClient(Action):
    """Close the client's connection after all pending output has been sent."""

    __slots__ = ()


class ConnectUpstream(Action):
    """Connect to the upstream server. Respond with `upstream_connected` or `upstream_failed`."""

    __slots__ = ()


class SendToUpstream(_WithData):
    """Send octets to the upstream server."""

    __slots__ = ()


class CloseUpstream(Action):
    """Immediately close the upstream connection or cancel the connection attempt."""

    __slots__ = ()


class OpenSpool(Action):
    """Open a spool for a message. Respond with `spool_opened` or `spool_failed`."""

    __slots__ = ()


class WriteSpool(_WithData):
    """Append content to the spool. Errors are reported after `FinishSpool`.

    wire: the content as encoded for the upstream server.
    """

    __slots__ = ("wire",)

    def __init__(self, data: bytes, wire: bytes) -> None:
        self.data = data
        self.wire = wire

    def _contents(self) -> tuple[object, ...]:
        return (self.data, self.wire)


class FinishSpool(Action):
    """Flush and check the spool. Respond with `spool_sealed` or `spool_failed`."""

    __slots__ = ()


class RunFilter(Action):
    """Run the filter on the spooled message.

    Respond with `filter_started`, and later with `filter_finished`. If the filter cannot be
    started, send a single response, either `filter_finished` or `spool_failed`.
    """

    __slots__ = ("environment",)

    def __init__(self, environment: dict[bytes, bytes]) -> None:
        self.environment = environment

    def _contents(self) -> tuple[object, ...]:
        return (self.environment,)


class KillFilter(Action):
    """Kill the filter's process group. Respond with `filter_finished` and the failure `reason`."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def _contents(self) -> tuple[object, ...]:
        return (self.reason,)


class Deliver(Action):
    """Send the original message and the end of data. Respond with `message_sent` or `spool_failed`.

    Call `message_progress` each time the upstream server has accepted a block.
    """

    __slots__ = ()


class DeliverReplacement(Action):
    """Send the encoded contents of OUTFILE and the end of data.

    Respond with `message_sent`, or with `replacement_failed` if an error occurs before the end of
    data.
    """

    __slots__ = ()


class DiscardMessage(Action):
    """Kill the filter if it is running, and remove all files of the message."""

    __slots__ = ()


class CountMessage(Action):
    """Count a message by its verdict and result.

    size: the size of the message in octets.
    seconds: the run time of the filter, or 0 if no filter ran.
    """

    __slots__ = ("result", "seconds", "size", "verdict")

    def __init__(self, verdict: str, result: str, size: int, seconds: float) -> None:
        self.verdict = verdict
        self.result = result
        self.size = size
        self.seconds = seconds

    def _contents(self) -> tuple[object, ...]:
        return (self.verdict, self.result, self.size, self.seconds)


class _Line(Action):
    """Write a line to the log at one of the levels in `log_levels`."""

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
    """Write a line to the log.

    A server repeats the line at most once every `limits.FULL_WARNING` seconds.
    """

    __slots__ = ()
