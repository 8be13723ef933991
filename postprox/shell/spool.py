"""The files of one message.

Rule: the spool is an unnamed file. The spool contains the message in the form in which the proxy
sends it to the upstream server. Changes to EMAIL or OUTFILE do not affect the spool. However,
processes of the same user can access the spool through /proc (SECURITY.md).

The filter gets a copy of the message (EMAIL) and an empty file (OUTFILE). The proxy writes EMAIL
while it receives the message, and gives the file a name when the filter starts. EMAIL and OUTFILE
have names only while the filter is running, so at other times a killed proxy leaves no files behind
(files.gone).

EMAIL and OUTFILE are locked from their creation until the proxy closes them, so that `stale_files`
recognises the files of a killed proxy.

Logs: files that cannot be removed.
"""

from .. import TYPE_CHECKING
from ..core import limits
from .system import close, is_regular, keep_freed_memory, posix

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Links must not be followed, and a FIFO must not block (`open_outfile`).
_SAFE_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_FOLDER = _SAFE_READ | posix.O_DIRECTORY
_CREATE = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
#: An unnamed file, if the system supports unnamed files.
_NAMELESS = posix.O_RDWR | getattr(posix, "O_TMPFILE", posix.O_DIRECTORY) | posix.O_CLOEXEC

keep_freed_memory()  # only processes that receive a message import this module


class NotAFileError(Exception):
    """OUTFILE is not a regular file."""


class ChangedError(OSError):
    """OUTFILE changed during its delivery (filter.outfile-stable)."""


class Spool:
    """The spool files of one message in `directory`.

    filtering: true if there is a filter, which requires EMAIL and OUTFILE.

    Raises:
        OSError: the spool cannot be created.
    """

    #: True if this system can link an unnamed file. A seccomp filter may forbid such a link.
    _can_link = True

    def __init__(self, directory: str, *, filtering: bool) -> None:
        self._stem = f"{directory}/postprox-{posix.urandom(8).hex()}"
        self._created_paths: list[str] = []
        self._copy = -1
        #: The OUTFILE that the proxy created and locked. A filter may replace it with another file.
        self._empty_outfile = -1
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
        """The path in the filter's variable EMAIL."""
        return f"{self._stem}.email"

    @property
    def outfile(self) -> str:
        """The path in the filter's variable OUTFILE."""
        return f"{self._stem}.out"

    def store(self, content: bytes, wire: bytes) -> None:
        """Append `content` to EMAIL, and `wire`, its encoded form, to the spool.

        On the first error, the files are removed, and `check` raises the error.
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
        """Raise the OSError from a failed `store`, if any."""
        if self._error is not None:
            raise self._error

    def create_filter_files(self) -> None:
        """Give EMAIL its name, and create the empty OUTFILE.

        Raises:
            OSError: one of the files cannot be created.
        """
        if self.email not in self._created_paths:
            self._name_email()
        self._empty_outfile = self._create(self.outfile)
        _lock(self._empty_outfile)

    def replacement_blocks(self, descriptor: int) -> "Iterator[bytes]":
        """Yield the content of OUTFILE from the descriptor that `open_outfile` returned.

        Raises:
            ChangedError: after the last block, if the file changed after it was opened.
        """
        yield from blocks(descriptor)
        if _state(posix.fstat(descriptor)) != self._replacement_state:
            raise ChangedError(0, "OUTFILE changed during delivery")

    def open_outfile(self) -> int | None:
        """Return a descriptor of OUTFILE, or None if the file is empty or missing.

        The file is opened only once. If open(2) fails, only the error is examined, because by then
        the name may refer to another file.

        Raises:
            NotAFileError: OUTFILE is not a regular file.
            OSError: OUTFILE cannot be read.
        """
        try:
            descriptor = posix.open(self.outfile, _SAFE_READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            from errno import ELOOP, ENXIO

            if error.errno not in (ELOOP, ENXIO):  # OUTFILE is neither a link nor a socket
                raise
            raise NotAFileError("OUTFILE is not a regular file") from None
        status = posix.fstat(descriptor)
        if is_regular(status) and status.st_size:
            self._replacement_state = _state(status)
            return descriptor
        close(descriptor)
        if not is_regular(status):
            raise NotAFileError("OUTFILE is not a regular file")
        return None

    @property
    def original(self) -> int:
        """The descriptor of the message as encoded for SMTP."""
        return self._content

    def original_blocks(self) -> "Iterator[bytes]":
        """Yield the message as encoded for SMTP. After the last block, no error can occur.

        Raises:
            OSError: the file cannot be read, or is too short.
        """
        offset = 0
        while offset < self._size:
            block = posix.pread(self._content, limits.COPY_SIZE, offset)
            if not block:
                raise OSError(0, "the spool is truncated")
            offset += len(block)
            yield block

    def remove_filter_files(self) -> None:
        """Remove EMAIL and OUTFILE, even if the filter has replaced them."""
        while self._created_paths:
            remove(self._created_paths.pop())
        for descriptor in (self._copy, self._empty_outfile):
            if descriptor >= 0:
                close_in_background(descriptor)
        self._copy = self._empty_outfile = -1

    def remove(self) -> None:
        """Remove all files."""
        self.remove_filter_files()
        if self._content >= 0:
            close_in_background(self._content)
            self._content = -1

    def _open_tmpfile(self, directory: str) -> int:
        try:
            return posix.open(directory, _NAMELESS, 0o600)
        except OSError:  # not supported by the file system; other errors recur in the next call
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
        close(descriptor)  # without /proc, linkat(2) cannot name the file
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
        """Copy the unnamed file to a new file EMAIL."""
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
    """Yield the contents of a file in blocks.

    The function does not call pread(2) again after the last block, because an error in that call
    would be detected too late.
    """
    size, offset = posix.fstat(descriptor).st_size, 0
    while offset < size and (block := posix.pread(descriptor, limits.COPY_SIZE, offset)):
        offset += len(block)
        yield block


def _state(status: posix.stat_result) -> tuple[int, int]:
    """Return the size and modification time of a file, to detect changes."""
    return status.st_size, status.st_mtime_ns


def close_in_background(descriptor: int) -> None:
    """Close a file. Large files are closed in a thread, because freeing their space takes time."""
    try:
        large = posix.fstat(descriptor).st_size > limits.LARGE_FILE
    except OSError:
        large = False
    if large:
        import _thread

        try:
            _thread.start_new_thread(close, (descriptor,))
        except RuntimeError:
            pass  # no thread can be started
        else:
            return
    close(descriptor)


def remove(path: str) -> None:
    """Remove the file or directory `path`, or log the error."""
    try:
        _unlink(path, None)
    except FileNotFoundError:
        pass  # the filter has removed the file
    except OSError:
        _remove_stubborn(path)


def _unlink(name: str, folder: int | None) -> None:
    """Unlink a file. A background thread frees the space of a large file."""
    if posix.lstat(name, dir_fd=folder).st_size <= limits.LARGE_FILE:
        posix.unlink(name, dir_fd=folder)
        return
    try:
        descriptor = posix.open(name, _SAFE_READ, dir_fd=folder)
    except OSError:
        descriptor = -1  # the filter has made the file unreadable
    try:
        posix.unlink(name, dir_fd=folder)
    finally:
        close_in_background(descriptor)


def _remove_stubborn(path: str) -> None:
    """Remove a directory, or a file that could not be removed at first."""
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
    """Remove a directory with its contents, and return the unused part of `allowed`.

    Links are not followed: each directory is opened with O_NOFOLLOW, relative to its parent.

    allowed: the maximum number of entries to remove.
    depth: the maximum depth of nested directories.

    Raises:
        OSError: the directory cannot be removed, or has too many entries or levels.
    """
    folder = posix.open(name, _FOLDER, dir_fd=parent)
    try:
        posix.chmod(folder, 0o700)  # only root can remove entries from a read-only directory
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
        pass  # if files cannot be locked, `stale_files` does not remove EMAIL


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[posix.write(descriptor, view) :]
