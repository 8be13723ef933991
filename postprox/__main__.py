"""The command `postprox`: one session on standard input and output, or a listening server.

Rule: nothing is decided here but which of the two, and how a wrong command line is reported.
"""

import sys

from .shell.system import (
    STDERR,
    STDIN,
    STDOUT,
    add_standard_descriptors,
    environ,
    is_socket,
    posix,
    silence,
)

# Before anything else can fail: spawn(8) connects descriptor 2 to the client, too, and not a word
# may get there, no traceback of a start that a signal or a broken installation ends either.
try:
    add_standard_descriptors()
    if is_socket(STDIN):
        silence(STDERR)
except OSError as error:  # no /dev/null: the next file would be descriptor 2
    try:
        if is_socket(STDIN):
            from .core import replies

            posix.write(STDOUT, replies.INTERNAL_ERROR)
        else:
            posix.write(STDERR, f"postprox: cannot open /dev/null: {error.strerror}\n".encode())
    except OSError:
        pass  # there is no descriptor to write to
    posix._exit(1)

from .core import limits, options, replies

USAGE_STATUS = 2


def main() -> int:
    """Run the command; return its exit status (cli.exit)."""
    if sys.implementation.name != "cpython":
        return _report_usage(f"{sys.implementation.name} is not supported; CPython is required")
    try:
        wanted = options.parse(sys.argv[1:], environ.get(options.CLOCK_SPEED, b""))
        wanted.directory = _absolute(wanted.directory)
    except options.UsageError as error:
        return _report_usage(str(error))
    if wanted.information:
        from .help_text import TEXTS

        posix.write(STDOUT, TEXTS[wanted.information].encode())
        return 0
    if wanted.listen is not None:
        from .shell.listen import serve

        return serve(wanted)
    try:
        return _serve_standard_input(wanted)
    except (OSError, ImportError):  # not a descriptor is left to begin with, nor to tell the log
        return _refuse(replies.INTERNAL_ERROR, 1)


def _serve_standard_input(wanted: options.Options) -> int:
    from .shell.connection import Connection
    from .shell.loop import STOPPING, Loop
    from .shell.stream import Stream

    silence(STDERR)  # whatever it is: while proxying, nothing is written there (cli.stderr-silent)
    loop = Loop(wanted.clock_speed)
    finished: list[Connection] = []
    connection = Connection(loop, wanted, Stream(STDIN, STDOUT), finished.append)

    def stop() -> None:
        loop.on_signals(STOPPING, stop_again)
        connection.terminate(limits.STOP_FINAL)

    def stop_again() -> None:
        connection.terminate(limits.STOP_FINAL_AGAIN)

    loop.on_signals(STOPPING, stop)
    connection.start()
    while not finished:
        loop.run_once()
    # Imported if there was anything to say.
    if log := sys.modules.get(f"{__package__}.shell.log"):
        log.destination.flush_and_close()
    # Nothing is left that the interpreter's own way out would do; it only takes time.
    posix._exit(connection.session.exit_status)


def _absolute(directory: str) -> str:
    """Return `directory` as seen from the root: the filter may change its working directory."""
    try:
        return directory if directory.startswith("/") else f"{posix.getcwd()}/{directory}"
    except OSError:
        raise options.UsageError(
            f"-d {directory!r}: must be absolute; the working directory does not exist"
        ) from None


def _report_usage(error: str) -> int:
    """Tell whoever is there: the administrator, or the log and an SMTP client (cli.errors)."""
    line = f"{error} (see postprox --help)"
    if is_socket(STDIN):
        from .core import log_levels
        from .shell import log

        log.write(log_levels.ERROR, f"wrong command line: {line}")
        return _refuse(replies.MISCONFIGURED, USAGE_STATUS)
    posix.write(STDERR, f"postprox: {line}\n".encode("utf-8", "backslashreplace"))
    return USAGE_STATUS


def _refuse(reply: bytes, status: int) -> int:
    """Tell the client why no session begins; return `status`, with which the process ends."""
    try:
        posix.write(STDOUT, reply)
    except OSError:
        pass  # it is gone
    return status


if __name__ == "__main__":
    sys.exit(main())
