"""The files of one message.

Rule: the message is stored as it will go upstream, in a file without a name: no change to EMAIL or
OUTFILE changes it. (Processes of the same user still reach it through /proc, see SECURITY.md.) A
filter gets a copy (EMAIL), written while the message is received and named only when the filter
starts, and an empty file (OUTFILE). These two names exist only while it runs, so nothing else can
ever be left behind (files.gone).

EMAIL and OUTFILE are locked from their creation until the proxy closes them, so that `stale_files`
recognises the files of a killed proxy.
"""

from .. import TYPE_CHECKING
from ..core import limits
from .system import close, is_regular, keep_freed_memory, posix

if TYPE_CHECKING:
    from collections.abc import Iterator

#: OUTFILE must not lead elsewhere, nor block (a FIFO): see `open_outfile`.
_SAFE_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_FOLDER = _SAFE_READ | posix.O_DIRECTORY
_CREATE = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
#: A file without a name, where the system has such.
_NAMELESS = posix.O_RDWR | getattr(posix, "O_TMPFILE", posix.O_DIRECTORY) | posix.O_CLOEXEC

keep_freed_memory()  # from the first message on


class NotAFileError(Exception):
    """OUTFILE has been replaced by something that is no regular file."""


class ChangedError(OSError):
    """OUTFILE has changed while it was sent (filter.outfile-stable)."""


class Spool:
    """The spool of one message in `directory`.

    filtering: whether a filter will want EMAIL and OUTFILE.

    Raises:
        OSError: the spool cannot be made.
    """

    #: Whether this system may give a file without a name one. A seccomp filter may refuse it.
    _can_link = True

    def __init__(self, directory: str, *, filtering: bool) -> None:
        self._stem = f"{directory}/postprox-{posix.urandom(8).hex()}"
        self._created_paths: list[str] = []
        self._copy = -1
        self._empty_outfile = -1  # as it was made, and locked; a filter may replace it
        self._error: OSError | None = None
        self._replacement_state: tuple[int, int]
        self._size = 0
        self._content = self._open_tmpfile(directory)
        if filtering:
            try:
                self._copy = self._locked_email(directory)
            except OSError:
                self.remove()
                raise

    @property
    def email(self) -> str:
        """The path that the filter knows as EMAIL."""
        return f"{self._stem}.email"

    @property
    def outfile(self) -> str:
        """The path that the filter knows as OUTFILE."""
        return f"{self._stem}.out"

    def store(self, content: bytes, wire: bytes) -> None:
        """Append `content`, which goes upstream as `wire`.

        The first failure frees the space and is raised by `check`.
        """
        if self._error is not None:
            return
        try:
            _write(self._content, wire)
            self._size += len(wire)
            if self._copy >= 0:
                _write(self._copy, content)
        except OSError as error:
            self._error = error
            self.remove()

    def check(self) -> None:
        """Raise the OSError of a `store` that failed, if one did."""
        if self._error is not None:
            raise self._error

    def create_filter_files(self) -> None:
        """Give EMAIL its name, and make the empty OUTFILE.

        Raises:
            OSError: one of them cannot be made.
        """
        if self.email not in self._created_paths:
            self._name_email()
        self._empty_outfile = self._create(self.outfile)
        _lock(self._empty_outfile)

    def replacement_blocks(self, descriptor: int) -> "Iterator[bytes]":
        """Yield the contents of OUTFILE, which `open_outfile` has opened.

        Raises:
            ChangedError: after the last block, if it is not what it was when it was opened.
        """
        yield from blocks(descriptor)
        if _state(posix.fstat(descriptor)) != self._replacement_state:
            raise ChangedError(0, "OUTFILE has changed while it was sent")

    def open_outfile(self) -> int | None:
        """Return a descriptor of OUTFILE as the filter left it, None if it is empty or gone.

        It is opened once. If that fails, the error alone decides: under its name there may be
        another file by now.

        Raises:
            NotAFileError: it is no regular file.
            OSError: it cannot be read.
        """
        try:
            descriptor = posix.open(self.outfile, _SAFE_READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            from errno import ELOOP, ENXIO

            if error.errno not in (ELOOP, ENXIO):  # what a link, and a socket, cannot be opened for
                raise
            raise NotAFileError("OUTFILE is no regular file") from None
        status = posix.fstat(descriptor)
        if is_regular(status) and status.st_size:
            self._replacement_state = _state(status)
            return descriptor
        close(descriptor)
        if not is_regular(status):
            raise NotAFileError("OUTFILE is no regular file")
        return None

    @property
    def original(self) -> int:
        """A descriptor of the message as it goes upstream."""
        return self._content

    def original_blocks(self) -> "Iterator[bytes]":
        """Yield the message as it goes upstream; after the last block nothing can fail.

        Raises:
            OSError: it cannot be read, or not whole.
        """
        offset = 0
        while offset < self._size:
            block = posix.pread(self._content, limits.COPY_SIZE, offset)
            if not block:
                raise OSError(0, "the spool is shorter than what was stored")
            offset += len(block)
            yield block

    def remove_filter_files(self) -> None:
        """Remove EMAIL and OUTFILE, whatever the filter has made of them."""
        while self._created_paths:
            remove(self._created_paths.pop())
        for descriptor in (self._copy, self._empty_outfile):
            if descriptor >= 0:
                close_in_background(descriptor)
        self._copy = self._empty_outfile = -1

    def remove(self) -> None:
        """Remove everything."""
        self.remove_filter_files()
        if self._content >= 0:
            close_in_background(self._content)
            self._content = -1

    def _open_tmpfile(self, directory: str) -> int:
        try:
            return posix.open(directory, _NAMELESS, 0o600)
        except OSError:  # this file system has no such files; or the next step tells why not
            descriptor = self._create(f"{self._stem}.spool")
            remove(self._created_paths.pop())
            return descriptor

    def _locked_email(self, directory: str) -> int:
        descriptor = self._unnamed_email(directory) if Spool._can_link else None
        if descriptor is None:
            descriptor = self._create(self.email)
        _lock(descriptor)
        return descriptor

    def _unnamed_email(self, directory: str) -> int | None:
        try:
            descriptor = posix.open(directory, _NAMELESS, 0o600)
        except OSError:
            return None
        if posix.access(_by_descriptor(descriptor), posix.F_OK):
            return descriptor
        close(descriptor)  # without /proc it could not be given a name
        return None

    def _name_email(self) -> None:
        try:
            posix.link(_by_descriptor(self._copy), self.email, src_dir_fd=0, follow_symlinks=True)
        except OSError:
            self._copy_email()
            Spool._can_link = False
        else:
            self._created_paths.append(self.email)

    def _copy_email(self) -> None:
        """Put a file that has a name in EMAIL's place."""
        unnamed = self._copy
        self._copy = self._create(self.email)
        try:
            _lock(self._copy)
            for block in blocks(unnamed):
                _write(self._copy, block)
        finally:
            close_in_background(unnamed)

    def _create(self, path: str) -> int:
        descriptor = posix.open(path, _CREATE, 0o600)
        self._created_paths.append(path)
        return descriptor


def blocks(descriptor: int) -> "Iterator[bytes]":
    """Yield the contents of a file from its start, in blocks.

    Nothing is read behind the last: an error there would come when all is on its way already.
    """
    size, offset = posix.fstat(descriptor).st_size, 0
    while offset < size and (block := posix.pread(descriptor, limits.COPY_SIZE, offset)):
        offset += len(block)
        yield block


def _state(status: posix.stat_result) -> tuple[int, int]:
    """Return what differs when a file's contents do: its size, and when they were written."""
    return status.st_size, status.st_mtime_ns


def close_in_background(descriptor: int) -> None:
    """Close a file that may have lost its name; a large one makes nobody wait for its space."""
    try:
        large = posix.fstat(descriptor).st_size > limits.LARGE_FILE
    except OSError:
        large = False
    if large:
        import _thread

        try:
            _thread.start_new_thread(close, (descriptor,))
        except RuntimeError:
            pass  # no thread is to be had
        else:
            return
    close(descriptor)


def remove(path: str) -> None:
    """Remove whatever bears the name `path`; what cannot be removed is told to the log."""
    try:
        _unlink(path, None)
    except FileNotFoundError:
        pass  # the filter removed it
    except OSError:
        _remove_stubborn(path)


def _unlink(name: str, folder: int | None) -> None:
    """Take its name from a file; a large one gives its space back where nobody waits."""
    if posix.lstat(name, dir_fd=folder).st_size <= limits.LARGE_FILE:
        posix.unlink(name, dir_fd=folder)
        return
    try:
        descriptor = posix.open(name, _SAFE_READ, dir_fd=folder)
    except OSError:
        descriptor = -1  # the filter made it unreadable: it is freed at once
    try:
        posix.unlink(name, dir_fd=folder)
    finally:
        close_in_background(descriptor)


def _remove_stubborn(path: str) -> None:
    """Remove what could not be removed as a file, at a second try or as a folder."""
    try:
        try:
            posix.unlink(path)
        except IsADirectoryError:
            _remove_folder(path, None, limits.REMOVALS, limits.REMOVAL_DEPTH)
    except FileNotFoundError:
        pass
    except OSError as error:
        from ..core import log_levels
        from . import log

        log.write(log_levels.WARNING, f"cannot remove {path}: {error.strerror}")


def _remove_folder(name: str, parent: int | None, allowed: int, depth: int) -> int:
    """Remove a folder with what is in it, and return how much more may be removed.

    No link is followed: each folder is opened in the one that holds it.

    Raises:
        OSError: it cannot be removed, or holds more than `allowed` entries or `depth` folders.
    """
    folder = posix.open(name, _FOLDER, dir_fd=parent)
    try:
        posix.chmod(folder, 0o700)  # whoever is not root could not remove what is in it
        with posix.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(allowed), entries, strict=False)]
        for inner in names:
            allowed -= 1
            try:
                _unlink(inner, folder)
            except IsADirectoryError:
                if depth:
                    allowed = _remove_folder(inner, folder, max(allowed, 0), depth - 1)
    finally:
        close(folder)
    posix.rmdir(name, dir_fd=parent)
    return allowed


def _by_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _lock(descriptor: int) -> None:
    try:
        posix.lockf(descriptor, posix.F_TLOCK, 0)
    except OSError:
        pass  # a file system without locks: `stale_files` leaves such an EMAIL alone


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[posix.write(descriptor, view) :]
