"""Performs the I/O of one session, as `core.session` requests.

Rule: this module does not interpret SMTP. A connection owns the descriptors, the files and the
filter of one session. A connection releases all its resources at the end, even after an internal
error.
"""

from .. import TYPE_CHECKING
from ..core import actions, limits, replies
from ..core.session import Session
from .connector import Connector
from .loop import READABLE, WRITABLE, report
from .stream import Stream
from .system import close, environ, file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.counters import Counters
    from ..core.options import Options
    from ..core.verdict import Outcome
    from .filter import Filter
    from .loop import Loop
    from .spool import Spool


class Connection:
    """A client connection, with its upstream connection, message and filter.

    finished: called exactly once with the connection, after everything has been released.
    counters: the server's counters, or None for a single session.
    """

    def __init__(
        self,
        loop: "Loop",
        options: "Options",
        client: Stream,
        finished: "Callable[[Connection], None]",
        counters: "Counters | None" = None,
    ) -> None:
        self._loop = loop
        self._options = options
        self._client = client
        self._finished = finished
        self._counters = counters
        #: A function that logs a line at most once a minute, or None if the process serves only one
        #: session.
        self.log_seldom: Callable[[int, str], None] | None = None
        self.session = Session(options, loop.clock)
        self._connector: Connector | None = None
        self._upstream: Stream | None = None
        self._body: Iterator[bytes] | None = None  # the message's blocks after `_block`
        self._block: bytes | None = None  # the next block to send
        self._spool: Spool | None = None
        self._replacement: int | None = None
        self._filter: Filter | None = None
        self._hanging_up = False
        self._lingering = False
        self._linger_end = limits.NEVER
        self._client_lost = False  # true after `client_lost` has been called on the session
        self._closed = False
        loop.add(self)

    def start(self) -> None:
        """Start the session."""
        self._guarded(self.session.start)

    def stop(self) -> None:
        """End the session as soon as no message is in progress."""
        self._guarded(self.session.stop)

    def terminate(self, timeout: float) -> None:
        """End the session now, and send only the output that the kernel accepts without blocking.

        timeout: the seconds to wait for the final reply, if the message was sent upstream.
        """
        self._guarded(self.session.terminate, timeout)
        if self.session.client_closed:
            self._close()

    @property
    def filtering(self) -> bool:
        """Whether a filter is running."""
        return self._filter is not None

    @property
    def deadline(self) -> float:
        """The time on the loop's clock at which `timer` must be called."""
        connecting = self._connector.deadline if self._connector is not None else limits.NEVER
        return min(self.session.deadline, connecting, self._linger_end)

    def timer(self) -> None:
        """Handle a deadline that has passed."""
        now = self._loop.now
        if now >= self._linger_end:
            self._guarded(self._close_client)
        elif self._connector is not None and now >= self._connector.deadline:
            self._guarded(self._connector.timer)
        else:
            self._guarded(self.session.timer, now)

    # Event handling.

    def _guarded(self, event: "Callable[..., None]", *arguments: object) -> None:
        """Handle an event and perform its actions. An exception ends only this session."""
        try:
            event(*arguments)
            self._run_actions()
        except Exception as error:
            self._crash(error)

    def _crash(self, error: Exception) -> None:
        report(error)
        try:
            self.session.crash()
            self._run_actions()
        except Exception as second:
            report(second)
            if not self.session.client_closed:  # otherwise the client already has its last reply
                self._client.write(replies.INTERNAL_ERROR)
        finally:
            self._close()

    def _run_actions(self) -> None:
        while (todo := self.session.take_actions()) or self._report_stream_failures():
            for action in todo:
                _PERFORM[type(action)](self, action)
            if self._body is not None:
                self._pump()
        if self._hanging_up and not self._client.unsent:
            self._end_client()
        if not self._client.open and self.session.finished:
            self._close()
        else:
            self._watch()
            self._loop.note_deadline(self.deadline)

    def _report_stream_failures(self) -> bool:
        """Report failed streams to the session. Return whether a stream has failed."""
        if self._upstream is not None and self._upstream.failed:
            self.session.upstream_received(self._upstream.read() or b"")
            return True
        if self._client.failed and not self._client_lost:
            self._client_lost = True
            self.session.client_lost()
            return True
        return False

    # The client.

    @property
    def _reads_client(self) -> bool:
        listens = len(self._client.unsent) < limits.UNREAD_REPLIES
        return self._client.open and ((self.session.reads_client and listens) or self._lingering)

    def _watch(self) -> None:
        client, upstream = self._client, self._upstream
        if client.open:
            reading = READABLE if self._reads_client else 0
            writing = WRITABLE if client.unsent else 0
            if client.reader == client.writer:
                self._loop.watch(client.reader, reading | writing, self._client_ready)
            else:
                self._loop.watch(client.reader, reading, self._client_ready)
                self._loop.watch(client.writer, writing, self._client_ready)
        if upstream is not None:
            reading = READABLE if self._reads_upstream else 0
            writing = WRITABLE if upstream.unsent or self._body is not None else 0
            self._loop.watch(upstream.reader, reading | writing, self._upstream_ready)

    @property
    def _read_size(self) -> int:
        """The size of the next read from the client.

        All clients share one limit per iteration of the loop.
        """
        alone = limits.MESSAGE_READ if self.session.receiving else limits.READ_SIZE
        return max(limits.MIN_READ, min(alone, limits.READ_PER_ITERATION // self._loop.ready_count))

    def _client_ready(self) -> None:
        self._guarded(self._serve_client)

    def _serve_client(self) -> None:
        self._client.flush()
        data = self._client.read(self._read_size) if self._reads_client else None
        if data is None:
            return
        if self._lingering:
            if not data:
                self._close_client()
        elif not self._client.failed:
            self.session.client_received(data)

    def _to_client(self, action: actions.SendToClient) -> None:
        self._client.write(action.data)

    def _hang_up(self, _: actions.CloseClient) -> None:
        self._hanging_up = True
        self._linger_end = (
            self._loop.clock() + limits.CLIENT_IDLE
        )  # the deadline for the client to read the remaining output

    def _end_client(self) -> None:
        """Close the client's connection.

        If the session ended early, linger so that the client can read the last reply.
        """
        self._hanging_up = False
        self._client.finish()
        if self.session.ended_early:
            self._lingering = True
            self._linger_end = self._loop.clock() + limits.LINGER
        else:
            self._close_client()

    def _close_client(self) -> None:
        self._lingering = False
        self._linger_end = limits.NEVER
        for descriptor in (self._client.reader, self._client.writer):
            self._loop.watch(descriptor, 0, self._client_ready)
        self._client.close()

    # Upstream.

    @property
    def _reads_upstream(self) -> bool:
        return len(self._client.unsent) < limits.UNREAD_REPLIES

    def _connect(self, _: actions.ConnectUpstream) -> None:
        self._connector = Connector(
            self._loop, self._options.target, self._connected, self._cannot_connect
        )
        self._connector.start()
        self._loop.note_deadline(self.deadline)

    def _connected(self, descriptor: int) -> None:
        self._connector = None
        self._guarded(self._begin_upstream, descriptor)

    def _begin_upstream(self, descriptor: int) -> None:
        try:
            self._upstream = Stream(descriptor, descriptor)
        except OSError:
            close(descriptor)
            raise
        self.session.upstream_connected()

    def _cannot_connect(self, reason: str) -> None:
        self._connector = None
        self._guarded(self.session.upstream_failed, reason)

    def _upstream_ready(self) -> None:
        self._guarded(self._serve_upstream)

    def _serve_upstream(self) -> None:
        if self._upstream is None:
            return
        # Read before sending the end of data: a reply that has already arrived is not the final
        # reply.
        data = self._upstream.read() if self._reads_upstream else None
        if data is not None:
            self.session.upstream_received(data)
            return
        self._upstream.flush()
        self._pump()

    def _to_upstream(self, action: actions.SendToUpstream) -> None:
        if self._upstream is not None:
            self._upstream.write(action.data)

    def _disconnect(self, _: actions.CloseUpstream) -> None:
        self._release_upstream()

    def _release_upstream(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        self._body = self._block = None
        if self._upstream is not None:
            self._loop.watch(self._upstream.reader, 0, self._upstream_ready)
            self._upstream.close()
            self._upstream = None

    # The message.

    def _open_spool(self, _: actions.OpenSpool) -> None:
        from .spool import Spool

        try:
            self._spool = Spool(
                self._options.directory, filtering=self._options.command is not None
            )
        except OSError as error:
            self._spool_failed(error)
        else:
            self.session.spool_opened()

    def _store(self, action: actions.WriteSpool) -> None:
        self._message_spool.store(action.data, action.wire)

    def _seal_spool(self, _: actions.FinishSpool) -> None:
        try:
            self._message_spool.check()
        except OSError as error:
            self._spool_failed(error)
        else:
            self.session.spool_sealed()

    def _spool_failed(self, error: OSError) -> None:
        self.session.spool_failed(f"{self._options.directory}: {error.strerror}")

    def _deliver(self, _: actions.Deliver) -> None:
        self._begin_delivery(self._message_spool.original_blocks())

    def _deliver_replacement(self, _: actions.DeliverReplacement) -> None:
        from ..core.data import encoded, normalized

        if self._replacement is not None:
            content = self._message_spool.replacement_blocks(self._replacement)
            self._begin_delivery(encoded(normalized(content)))

    def _begin_delivery(self, body: "Iterator[bytes]") -> None:
        self._body = body
        self._next_block()

    def _pump(self) -> None:
        """Send the next block of the message if the socket buffer is empty.

        After the last block, call `message_sent`.
        """
        if self._upstream is None or not self._upstream.has_sent_all():
            return
        if self._block is not None:
            self._upstream.write(self._block)
            self.session.message_progress()
            self._next_block()
        if self._body is not None and self._block is None and self._upstream.has_sent_all():
            self._body = None
            self.session.message_sent()

    def _next_block(self) -> None:
        try:
            self._block = next(self._body, None) if self._body is not None else None
        except OSError as error:
            self._body = self._block = None
            if self._replacement is not None:
                self.session.replacement_failed(f"OUTFILE: {error.strerror}")
            else:
                self._spool_failed(error)

    def _discard(self, _: actions.DiscardMessage) -> None:
        self._release_message()

    def _release_message(self) -> None:
        if self._filter is not None:
            self._kill(self._filter)
        if self._replacement is not None:
            from .spool import close_in_background

            close_in_background(self._replacement)
            self._replacement = None
        if self._spool is not None:
            self._spool.remove()
            self._spool = None

    @property
    def _message_spool(self) -> "Spool":
        if self._spool is None:
            raise AssertionError("no spool is open")
        return self._spool

    # The filter.

    def _run_filter(self, action: actions.RunFilter) -> None:
        try:
            self._message_spool.create_filter_files()
        except OSError as error:
            self._spool_failed(error)
            return
        from .filter import Filter

        environment = {
            **environ,
            **action.environment,
            b"EMAIL": file_name(self._message_spool.email),
            b"OUTFILE": file_name(self._message_spool.outfile),
        }
        try:
            self._filter = Filter(self._options.command or "", environment)
        except OSError as error:
            from ..core.verdict import Outcome

            reason = f"cannot be started: {error.strerror}"
            self.session.filter_finished(Outcome(failure=reason, out_of_resources=True))
            return
        self._loop.on_child_exit(self._filter.pid, self._filter_exited)
        self.session.filter_started()
        self._loop.watch(self._filter.stderr, READABLE, self._stderr_ready)

    def _stderr_ready(self) -> None:
        if self._filter is not None and self._filter.read_stderr() == b"":
            self._loop.watch(self._filter.stderr, 0, self._stderr_ready)

    def _filter_exited(self, code: int | None) -> None:
        self._guarded(self._on_filter_exit, code)

    def _on_filter_exit(self, code: int | None) -> None:
        ended = self._filter
        if ended is None:
            return
        try:
            if code is None:
                self._kill_process(ended)
            outcome = ended.outcome(code)
            if outcome.status == 0:
                self._open_outfile(outcome)
        finally:  # forget the filter even after an error, because its process ID may be reused
            self._end_filter(ended)
        self.session.filter_finished(outcome)

    def _open_outfile(self, outcome: "Outcome") -> None:
        from .spool import NotAFileError

        try:
            self._replacement = self._message_spool.open_outfile()
            outcome.replaced = self._replacement is not None
        except NotAFileError as error:
            outcome.failure = str(error)
        except OSError as error:
            outcome.failure = f"OUTFILE cannot be read: {error.strerror}"
            outcome.out_of_resources = True

    def _kill_filter(self, action: actions.KillFilter) -> None:
        from ..core.verdict import Outcome

        said = b""
        if self._filter is not None:
            said = self._filter.said
            self._kill(self._filter)
        self.session.filter_finished(Outcome(failure=action.reason, last_stderr_line=said))

    def _kill(self, running: "Filter") -> None:
        self._kill_process(running)
        self._end_filter(running)

    def _kill_process(self, running: "Filter") -> None:
        running.kill()
        self._loop.on_child_exit(running.pid, _reaped)

    def _end_filter(self, ended: "Filter") -> None:
        self._filter = None
        self._loop.watch(ended.stderr, 0, self._stderr_ready)
        ended.close()
        self._message_spool.remove_filter_files()

    # The end.

    def _let_go_of_client(self) -> None:
        if self._client.open:
            self._close_client()

    def _count(self, action: actions.CountMessage) -> None:
        if self._counters is not None:
            self._counters.count(action.verdict, action.result, action.size, action.seconds)

    def _write_log(self, action: actions.Log | actions.LogSeldom) -> None:
        try:
            from . import log
        except (OSError, ImportError):
            return  # if no descriptor is free, the module cannot be imported
        log.write(action.level, action.text)

    def _write_seldom(self, action: actions.LogSeldom) -> None:
        if self.log_seldom is None:
            self._write_log(action)
        else:
            self.log_seldom(action.level, action.text)

    def _close(self) -> None:
        """Release everything. Further calls have no effect."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove(self)
        for step in (self._release_upstream, self._release_message, self._let_go_of_client):
            try:
                step()
            except Exception as error:
                report(error)
        self._finished(self)


def _reaped(_: int | None) -> None:
    """Ignore the exit code of a filter that was killed."""


_PERFORM: "dict[type[actions.Action], Callable[..., None]]" = {
    actions.SendToClient: Connection._to_client,
    actions.CloseClient: Connection._hang_up,
    actions.ConnectUpstream: Connection._connect,
    actions.SendToUpstream: Connection._to_upstream,
    actions.CloseUpstream: Connection._disconnect,
    actions.OpenSpool: Connection._open_spool,
    actions.WriteSpool: Connection._store,
    actions.FinishSpool: Connection._seal_spool,
    actions.RunFilter: Connection._run_filter,
    actions.KillFilter: Connection._kill_filter,
    actions.Deliver: Connection._deliver,
    actions.DeliverReplacement: Connection._deliver_replacement,
    actions.DiscardMessage: Connection._discard,
    actions.CountMessage: Connection._count,
    actions.Log: Connection._write_log,
    actions.LogSeldom: Connection._write_seldom,
}
