"""The files of one message.

Rule: the message itself is stored where nobody else can reach it: a file in DIR that has lost its
name already. The filter gets a copy under a name (EMAIL) and an empty file (OUTFILE); these two
exist only while it runs, so nothing else can ever be left behind (files.gone).
"""

from .. import TYPE_CHECKING
from ..core import limits
from .system import is_regular, keep_freed_memory, posix

if TYPE_CHECKING:
    from collections.abc import Iterator

#: OUTFILE must not lead elsewhere, nor block (a FIFO): see `replacement`.
_SAFE_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_CREATE = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC

keep_freed_memory()  # from the first message on


class NotAFileError(Exception):
    """OUTFILE has been replaced by something that is no regular file."""


class Spool:
    """The spool of one message in `directory`.

    Raises:
        OSError: the spool cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._stem = f"{directory}/postprox-{posix.urandom(8).hex()}"
        self._content = posix.open(f"{self._stem}.spool", _CREATE, 0o600)
        posix.unlink(f"{self._stem}.spool")
        self._error: OSError | None = None
        self._named: list[str] = []

    @property
    def email(self) -> str:
        """The path that the filter knows as EMAIL."""
        return f"{self._stem}.email"

    @property
    def outfile(self) -> str:
        """The path that the filter knows as OUTFILE."""
        return f"{self._stem}.out"

    def store(self, content: bytes) -> None:
        """Append `content`; the first failure frees the space and is raised by `seal`."""
        if self._error is None:
            try:
                _write(self._content, content)
            except OSError as error:
                self._error = error
                posix.ftruncate(self._content, 0)

    def seal(self) -> None:
        """Raise the OSError of a `store` that failed, if one did."""
        if self._error is not None:
            raise self._error

    def offer(self) -> "Iterator[None]":
        """Make EMAIL, a copy of the message, and the empty OUTFILE; yield to others in between.

        Raises:
            OSError: one of them cannot be made.
        """
        posix.close(self._create(self.outfile))
        copy = self._create(self.email)
        try:
            for number, block in enumerate(blocks(self._content), 1):
                _write(copy, block)
                if number % limits.COPY_TURN == 0:
                    yield
        finally:
            posix.close(copy)

    def replacement(self) -> int | None:
        """Return a descriptor of OUTFILE as the filter left it, None if it is empty or gone.

        Raises:
            NotAFileError: it is no regular file.
            OSError: it cannot be read.
        """
        try:
            descriptor = posix.open(self.outfile, _SAFE_READ)
        except FileNotFoundError:
            return None
        status = posix.fstat(descriptor)
        if is_regular(status) and status.st_size:
            return descriptor
        posix.close(descriptor)
        if not is_regular(status):
            raise NotAFileError("OUTFILE is no regular file")
        return None

    @property
    def original(self) -> int:
        """A descriptor of the message as it was received."""
        return self._content

    def withdraw(self) -> None:
        """Remove EMAIL and OUTFILE, whatever the filter has made of them."""
        while self._named:
            _remove(self._named.pop())

    def remove(self) -> None:
        """Remove everything."""
        self.withdraw()
        posix.close(self._content)

    def _create(self, path: str) -> int:
        descriptor = posix.open(path, _CREATE, 0o600)
        self._named.append(path)
        return descriptor


def blocks(descriptor: int) -> "Iterator[bytes]":
    """Yield the contents of a file from its start, in blocks."""
    offset = 0
    while block := posix.pread(descriptor, limits.COPY_SIZE, offset):
        offset += len(block)
        yield block


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[posix.write(descriptor, view) :]


def _remove(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass  # the filter removed it
    except OSError:
        _remove_directory(path)


def _remove_directory(path: str) -> None:
    try:
        posix.rmdir(path)
    except OSError:
        pass  # a filter that puts a full directory in its place keeps it
