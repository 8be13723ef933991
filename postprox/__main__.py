"""The `postprox` command, which runs either one session on standard input and output or a server.

Rule: this module only starts the session or the server and reports command-line errors.
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

# Under spawn(8), descriptor 2 is also connected to the client. This code runs before anything else
# can fail, because the client must not receive a traceback.
try:
    add_standard_descriptors()
    if is_socket(STDIN):
        silence(STDERR)
except OSError as error:  # exit, because the next file to be opened could get descriptor 2
    try:
        if is_socket(STDIN):
            from .core import replies

            posix.write(STDOUT, replies.INTERNAL_ERROR)
        else:
            posix.write(STDERR, f"postprox: cannot open /dev/null: {error.strerror}\n".encode())
    except OSError:
        pass  # the descriptor is closed
    posix._exit(1)

from .core import limits, options, replies

USAGE_STATUS = 2


def main() -> int:
    """Run the command and return its exit status (cli.exit)."""
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
    except (OSError, ImportError):  # no descriptor is free, so logging would also fail
        return _refuse(replies.INTERNAL_ERROR, 1)


def _serve_standard_input(wanted: options.Options) -> int:
    from .shell.connection import Connection
    from .shell.loop import STOPPING, Loop
    from .shell.stream import Stream

    silence(STDERR)  # a session never uses standard error (cli.stderr-silent)
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
    # A session does not import the log module before it logs its first line.
    if log := sys.modules.get(f"{__package__}.shell.log"):
        log.destination.flush_and_close()
    # There is nothing to clean up, so a normal interpreter exit would only waste time.
    posix._exit(connection.session.exit_status)


def _absolute(directory: str) -> str:
    """Make `directory` an absolute path, because the filter may change its working directory."""
    try:
        return directory if directory.startswith("/") else f"{posix.getcwd()}/{directory}"
    except OSError:
        raise options.UsageError(
            f"-d {directory!r}: must be an absolute path, because the working directory does not "
            "exist"
        ) from None


def _report_usage(error: str) -> int:
    """Report a usage error to the user, or to the log and the SMTP client (cli.errors)."""
    line = f"{error} (see postprox --help)"
    if is_socket(STDIN):
        from .core import log_levels
        from .shell import log

        log.write(log_levels.ERROR, f"invalid command line: {line}")
        return _refuse(replies.MISCONFIGURED, USAGE_STATUS)
    if file := environ.get(options.ENVIRONMENT_FILE):
        line = _with_file(error, file)
    posix.write(STDERR, f"postprox: {line}\n".encode("utf-8", "backslashreplace"))
    return USAGE_STATUS


def _with_file(error: str, file: bytes) -> str:
    """Return an error line that refers to the options file of the systemd unit.

    If the file cannot be found, the line reports this problem and does not contain `error`.
    """
    name = file.decode("utf-8", "backslashreplace")
    try:
        posix.stat(file)
    except OSError as missing:
        required = "the file must set POSTPROX_UPSTREAM and POSTPROX_OPTIONS"
        return f"{name}: {missing.strerror}; {required}"
    return f"{error} (see {name} and postprox --help)"


def _refuse(reply: bytes, status: int) -> int:
    """Send the client a reply instead of starting a session, and return `status`."""
    try:
        posix.write(STDOUT, reply)
    except OSError:
        pass  # the client has disconnected
    return status


if __name__ == "__main__":
    sys.exit(main())
