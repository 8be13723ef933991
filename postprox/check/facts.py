"""Facts about this machine: the conditions for running a proxy, and the state of the system.

Rule: this module contains only data. The modules probe.py and machine.py collect this data, and the
rules evaluate the data. None means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from .routes import Endpoint
from .scripts.mistake import Mistake

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class MissingCommand:
    """A program that a script runs, but that the proxy's user cannot run."""

    program: str
    line: int
    #: True if the exit status of the program is the exit status of the script.
    is_result: bool
    #: The value of PATH, or "" if the script names the directory of the program.
    sought_path: str
    exists: bool
    #: The path of the same program in another directory, or the name of a similar program, or "".
    replacement: str = ""
    #: The Debian package that contains the program, or "" if unknown.
    package: str = ""


@dataclass(frozen=True)
class ProgramFacts:
    """A file that the proxy's user must be able to execute."""

    path: str
    exists: bool
    #: The path with symbolic links resolved, or "" if it contains none.
    real: str = ""
    #: True if the path itself is a symbolic link.
    is_link: bool = False
    is_directory: bool = False
    #: True if the user can execute the file. The permissions of the parent directories also count.
    executable: bool | None = None
    #: The first directory that the user cannot search, or "" if there is none.
    closed_directory: str = ""
    #: True if the user can read the script, or None if unknown.
    readable: bool | None = True
    #: True if the file system is mounted with noexec.
    has_noexec: bool = False
    #: The world-writable paths among the file and its parent directories.
    open_paths: tuple[str, ...] = ()
    #: The interpreter named in the first line, or "" if there is none.
    interpreter: str = ""
    interpreter_executable: bool | None = True
    #: True if the file begins with a UTF-8 byte order mark.
    has_mark: bool = False
    is_utf16: bool = False
    #: True if the file is empty, or is a script without commands.
    is_blank: bool = False
    #: True if the file is a program for another processor architecture.
    is_foreign: bool = False
    #: True if sh(1) runs the script because the #! line of another interpreter is not at the
    #: beginning of the file.
    is_displaced: bool = False
    #: The arguments in the first line that the kernel passes to the interpreter as one argument.
    joined_arguments: str = ""
    #: True if a line that the kernel or the shell reads ends with CR LF.
    has_crlf: bool = False
    #: The last line of a shell script, and its number, if this line hides a scanner's exit status.
    #: The number is 0 unless the scanner is in this line or in the line before it.
    lost_status: str = ""
    lost_status_line: int = 0
    #: In a shell script that never uses its message: the first line that runs a scanner, and the
    #: line's number.
    unread_line: str = ""
    unread_line_number: int = 0
    #: In a shell script: the first line that prints a reply to standard output, and the numbers of
    #: all such lines.
    reply_line: str = ""
    reply_lines: tuple[int, ...] = ()
    #: The first line, if it begins with #!.
    first_line: str = ""
    #: An installed interpreter that can replace a missing or wrong one, or "".
    replacement: str = ""
    #: The first construct in a script for sh(1) that requires bash, or "".
    bash_feature: str = ""
    #: The probable language of a script that sh(1) runs, or "" if it seems to be a shell script.
    language: str = ""
    #: The paths in `targets` that the user cannot write to.
    closed_targets: tuple[str, ...] = ()
    #: The paths in `closed_targets` that belong to root and that no other program uses.
    private_targets: tuple[str, ...] = ()
    #: The paths in `private_targets` whose directory belongs to the user.
    foreign_targets: tuple[str, ...] = ()
    #: The configuration file of logrotate(8) that recreates each path in `closed_targets`, indexed
    #: by path.
    rotations: Mapping[str, str] = field(default_factory=dict)
    #: The directories and files that the script writes to.
    targets: tuple[str, ...] = ()
    #: If the filter's name has no directory and was not found in PATH: the name, and the value of
    #: PATH.
    sought_name: str = ""
    sought_path: str = ""
    #: The path of a program with this name in another directory, or "" if there is none.
    elsewhere: str = ""
    #: In a shell script: the first program that the user cannot run, or None.
    missing_command: MissingCommand | None = None
    #: The lines of a shell script that change the filter's result by mistake.
    mistakes: tuple[Mistake, ...] = ()
    #: If the file does not exist: an existing file or directory with a similar path, or "". If
    #: `dangling_link` is not "", the similar path is the proposed target of this link.
    similar: str = ""
    dangling_link: str = ""
    #: The first syntax error that the interpreter reports, or "" if there is none.
    syntax_error: str = ""


@dataclass(frozen=True)
class SpoolFacts:
    """The directory for messages."""

    exists: bool
    writable: bool | None = None
    #: The permission bits, such as 0o700.
    mode: int = 0o700
    #: True if the path is not a directory.
    is_file: bool = False
    #: True if the path is a symbolic link.
    is_link: bool = False
    #: True if the directory contains files that were not created by postprox.
    has_foreign_files: bool = False
    #: True if the file system is mounted read-only.
    is_read_only: bool = False
    #: The unit of Postfix if its sandbox forbids the proxy to write to the directory, or "".
    closing_unit: str = ""
    #: The number of free octets and the number of free inodes.
    free: int = UNLIMITED
    free_files: int = UNLIMITED
    #: The first parent directory that the user cannot search, or "" if there is none.
    closed_directory: str = ""
    #: The name of the directory's owner, or "" if unknown.
    owner: str = ""
    #: The tmpfiles.d line for the directory, and the file that contains it, or "" if there is none.
    boot_line: str = ""
    boot_file: str = ""
    #: The parent directory that is empty after each boot, or the file with a line that removes or
    #: hides this directory at boot. "" if the directory is kept at boot, or if something is known
    #: to create it again.
    lost_by: str = ""
    #: True if the directory itself is the mount point of a tmpfs.
    is_tmpfs: bool = False


@dataclass(frozen=True)
class DirectoryFacts:
    """The directory of a file that the proxy writes for other programs."""

    exists: bool
    #: True if the proxy's user can create files in the directory, or None if unknown.
    writable: bool | None = None
    #: The name of the directory's owner, or "" if unknown.
    owner: str = ""


@dataclass(frozen=True)
class ProxyFacts:
    """The facts about one proxy."""

    user_exists: bool
    program: ProgramFacts
    #: True if the proxy's group is the group of Postfix, which spawn(8) refuses.
    has_group_of_postfix: bool = False
    #: True if the user exists only while the service runs.
    is_user_temporary: bool = False
    #: True if the user `postprox` exists.
    has_own_user: bool = True
    #: The directory or file of the installed package that the user cannot read, or "".
    closed_library: str = ""
    #: The first program of the filter command, or None if unknown.
    filter: ProgramFacts | None = None
    #: The reason why the filter was not checked, or "".
    filter_unchecked: str = ""
    #: The syntax error that the shell finds in the filter command, or "".
    command_error: str = ""
    #: True if the upstream server is on this machine but is neither listening nor listed in
    #: master.cf.
    upstream_missing: bool = False
    #: The scripts in the filter command that overwrite each other's changes in $OUTFILE.
    rewriters: tuple[str, ...] = ()
    #: True if the host name of the upstream server has no address.
    is_upstream_unknown: bool = False
    #: None if systemd will create the directory when it starts the proxy.
    spool: SpoolFacts | None = None
    #: The directories of --metrics and --pid-file, except those that systemd creates.
    status_directories: Mapping[str, DirectoryFacts] = field(default_factory=dict)
    #: The missing paths that the unit's settings require.
    missing_paths: tuple[str, ...] = ()
    #: The first directory in the path of WorkingDirectory= that the user cannot enter, or "".
    closed_working_directory: str = ""
    #: The programs of ExecStartPre= and ExecCondition= that do not exist.
    missing_programs: tuple[str, ...] = ()
    #: The groups that the unit or master.cf names, but that do not exist. Each has the existing
    #: group with a similar name, or "".
    missing_groups: tuple[tuple[str, str], ...] = ()
    #: The reason why the permissions of the proxy's user are unknown, or "".
    unknown_permissions: str = ""

    def has_unknown_permissions(self) -> bool:
        """Return whether any permission of the proxy's user is unknown."""
        programs = [self.program, *([self.filter] if self.filter else [])]
        return any(seen.exists and seen.executable is None for seen in programs) or bool(
            self.spool and self.spool.exists and self.spool.writable is None
        )


@dataclass(frozen=True)
class UnitState:
    """The state of one unit, as reported by `systemctl show`."""

    name: str
    #: LoadState, such as loaded, not-found, masked or bad-setting.
    load: str = "loaded"
    #: ActiveState and SubState: for example, active and running, or activating and auto-restart.
    active: str = "inactive"
    sub: str = "dead"
    #: UnitFileState, such as enabled, disabled or static.
    file: str = "disabled"
    #: Result, such as success or exit-code.
    result: str = "success"
    #: The exit status of the main process.
    status: int = 0
    #: True if systemd reports that one of the unit's files is newer than the loaded configuration.
    needs_reload: bool = False
    #: The names of the drop-ins that systemd has loaded.
    drop_ins: frozenset[str] = frozenset()
    #: The main process's command line, or an empty tuple if there is no process.
    words: tuple[str, ...] = ()
    #: The time at which the unit became active, in seconds since 1970, or 0.
    started: float = 0.0
    #: The groups of the unit's user to which the main process does not belong.
    missing_groups: tuple[str, ...] = ()
    #: The mounts of the main process whose directories have been removed.
    removed: tuple[str, ...] = ()

    def is_failing(self) -> bool:
        """Return whether the most recent attempts to start the unit failed."""
        return self.active == "failed" or (self.sub == "auto-restart" and self.result != "success")


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket, and the programs that have it open (empty if unknown)."""

    endpoint: Endpoint
    programs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Session:
    """The result of a short session without a message."""

    #: The last line of the greeting, or the error.
    greeting: str
    #: The first command that the server refused, and the last line of its reply, or "".
    command: str = ""
    reply: str = ""


@dataclass(frozen=True)
class LoggedError:
    """Errors of one kind that a program has logged."""

    #: The kinds of errors: the program ended, a message was returned to its sender, a message was
    #: deferred, mail was refused, and a message passed unfiltered.
    STOPPED: ClassVar = "stopped"
    BOUNCED: ClassVar = "bounced"
    DEFERRED: ClassVar = "deferred"
    REFUSED: ClassVar = "refused"
    UNFILTERED: ClassVar = "unfiltered"
    #: The error text if the log does not contain the reason why a program ended.
    UNEXPLAINED: ClassVar = "no reason in the log"

    kind: str
    #: The name of the program, such as smtpd.
    program: str
    #: The most recent error.
    text: str
    #: The program's last warning before this error, or "".
    warning: str = ""
    #: The time of the most recent error, as in the log.
    time: str = ""
    count: int = 1


@dataclass(frozen=True)
class LogFacts:
    """The errors in the mail log."""

    errors: tuple[LoggedError, ...] = ()
    #: The command that shows the end of the log.
    command: str = ""


@dataclass(frozen=True)
class RunningFacts:
    """The state of the running system."""

    #: True if master(8) is running with this configuration.
    postfix: bool | None = None
    #: True if a systemd unit starts Postfix.
    has_postfix_unit: bool = False
    #: The state of each unit, indexed by the unit's name.
    units: Mapping[str, UnitState] = field(default_factory=dict)
    #: The reason why the states are unknown, or "".
    units_unknown: str = ""
    listeners: tuple[Listener, ...] = ()
    #: The installed units of common milters.
    milter_units: tuple[str, ...] = ()
    #: The installed units of common policy services.
    policy_units: tuple[str, ...] = ()
    #: The short session with each address.
    sessions: Mapping[Endpoint, Session] = field(default_factory=dict)
    log: LogFacts = field(default_factory=LogFacts)


#: The text that a shell prints if it executes the sender of the test message `SampleRun.HOSTILE`.
EXECUTED = str(1234 * 4321)


@dataclass(frozen=True)
class SampleRun:
    """The result of the filter for a test message."""

    #: The kinds of test messages: an ordinary message, a message with 8-bit octets and unusual
    #: lines, a bounce, a message whose sender contains a shell command, a message with a word that
    #: the filter searches for, a message that the filter should reject because of a word, and a
    #: message with a virus.
    ORDINARY: ClassVar = "ordinary"
    UNUSUAL: ClassVar = "unusual"
    BOUNCE: ClassVar = "bounce"
    HOSTILE: ClassVar = "hostile"
    SEARCHED: ClassVar = "searched"
    REFUSED: ClassVar = "refused"
    VIRUS: ClassVar = "virus"

    kind: str
    #: The command that repeats this run and shows all details.
    command: str
    #: The verdict, as in the JSON document of postprox-rehearse.
    verdict: str
    timed_out: bool = False
    #: The reason for a failure of the filter, or "".
    reason: str = ""
    reply: str = ""
    #: The filter's standard error.
    errors: str = ""
    #: The message before and after the filter, with one character per octet. None if the message
    #: was not delivered.
    sent: str = ""
    received: str | None = None
    #: The word for which the filter searches, or "".
    word: str = ""
    #: The directory of a file in the error message, if the directory does not exist, or "".
    missing_directory: str = ""
    #: A file that belongs to root, although its directory belongs to another user, or "".
    foreign_file: str = ""
    #: The group that could access the path in the filter's 'permission denied' message, or "".
    group: str = ""
    #: Each change to the unit that lets the filter succeed, as a setting and its new value.
    relaxed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SampleRuns:
    """The results of a filter for all test messages."""

    runs: tuple[SampleRun, ...] = ()
    #: The reason why the other test messages could not be used, or "".
    unchecked: str = ""
    #: The result for the ordinary message if the filter's standard output becomes the result, or
    #: None if this was not tested.
    printed: SampleRun | None = None
    #: True if the script itself handles an empty sender.
    handles_empty_sender: bool = False
