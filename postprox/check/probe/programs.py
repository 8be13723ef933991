"""Reads a program of a filter command, and looks for programs that are missing.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import machine, sandbox
from ..facts import MissingCommand, ProgramFacts
from ..scripts import called_programs, languages, proxy_variables, shell_command, used_files
from ..scripts.shell_command import Target
from . import accounts, script_files, system, written_files


def filter_facts(command: str, user: str, search: str) -> tuple[ProgramFacts | None, str]:
    """Return the filter in a shell command, or the reason why it is unknown.

    If the command runs several programs, the result is the first one that does not exist, or else
    the first one.
    """
    found: list[ProgramFacts] = []
    for target in shell_command.targets(command):
        path = _found_by_shell(target.program, search)
        if path.startswith("/"):
            found.append(_script_of(target, path, user, search))
        elif not found and path not in shell_command.PREPARATIONS:
            break
    if not found:
        return None, (
            f"the filter, because the first word of its command is not a program ({command})"
        )
    seen = next((each for each in found if not each.exists), found[0])
    return (replace(seen, missing_command=None) if "PATH=" in command else seen), ""


def _script_of(target: Target, path: str, user: str, search: str) -> ProgramFacts:
    """Return the facts about a program, or about the script that the program reads."""
    seen = program_facts(path, user, search)
    if "/" not in target.program and not seen.exists:
        elsewhere = shutil.which(target.program, path=system.SYSTEMD_PATH) or ""
        return replace(seen, sought_name=target.program, sought_path=search, elsewhere=elsewhere)
    if not target.script or not seen.executable:
        return seen
    script = program_facts(target.script, user, search, interpreter=path)
    return replace(script, executable=script.readable) if script.exists else script


def _found_by_shell(word: str, search: str) -> str:
    """Return the path of a command, or the name of a shell builtin."""
    if "/" in word:
        return word
    ask = ["/bin/sh", "-c", 'command -v -- "$1"', "sh", word]
    found = subprocess.run(ask, env={"PATH": search}, capture_output=True, text=True, check=False)
    return found.stdout.strip() or f"{search.rpartition(':')[2]}/{word}"


def program_facts(path: str, user: str, search: str, interpreter: str = "") -> ProgramFacts:
    """Return the facts about a program, or about a script that `interpreter` reads."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        similar, link = _similar_path(path)
        return ProgramFacts(
            path,
            exists=False,
            real=system.target_of(path),
            is_link=Path(path).is_symlink(),
            similar=similar,
            dangling_link=link,
        )
    except OSError:
        return ProgramFacts(
            path, exists=True, closed_directory=accounts.closed_directory(path, user)
        )
    is_file = stat.S_ISREG(mode)
    script = system.read_script(path) if is_file else b""
    arguments = "" if interpreter else machine.joined_arguments(script)
    interpreter = interpreter or _interpreter(script, search)
    has_crlf = machine.has_crlf(interpreter, script)
    lost_status, lost_status_line = machine.lost_status(interpreter, script)
    unread_line, unread_line_number = machine.without_message(interpreter, script)
    executable = accounts.may(user, os.X_OK, path) if is_file else False
    text = script.decode("latin-1") if script else ""
    has_head = text.startswith("#!")
    targets = written_files.targets(text, interpreter, user)
    existing = [each for each in targets if os.path.exists(each)]  # noqa: PTH110
    closed = tuple(each for each in existing if accounts.may(user, os.W_OK, each) is False)
    private = tuple(each for each in closed if written_files.is_private(each, user))
    is_shell = Path(interpreter or "sh").name in ("sh", "dash")
    language = languages.language(text) if is_shell else ""
    reply_line, reply_lines = machine.reply_to_output(interpreter, text)
    is_dash = is_shell and Path(os.path.realpath(interpreter or "/bin/sh")).name != "bash"
    return ProgramFacts(
        path=path,
        exists=True,
        real=system.target_of(path),
        is_link=Path(path).is_symlink(),
        is_directory=stat.S_ISDIR(mode),
        executable=executable,
        closed_directory="" if executable else accounts.closed_directory(path, user),
        readable=accounts.may(user, os.R_OK, path) if script else True,
        has_noexec=is_file and bool(os.statvfs(path).f_flag & os.ST_NOEXEC),
        open_paths=machine.open_paths(path),
        interpreter=interpreter,
        interpreter_executable=accounts.may(user, os.X_OK, interpreter) if interpreter else True,
        reply_line=reply_line,
        reply_lines=reply_lines,
        first_line=text.partition("\n")[0] if has_head else "",
        replacement=_replacement(interpreter, language, search),
        bash_feature=languages.bash_feature(text) if is_dash and not language else "",
        language=language,
        targets=targets,
        closed_targets=closed,
        private_targets=private,
        rotations=dict(written_files.rotations(closed)),
        foreign_targets=tuple(each for each in private if written_files.is_foreign(each, user)),
        has_mark=script.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        is_utf16=script.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        is_blank=is_file and machine.is_blank(path, script, interpreter),
        is_foreign=is_file and machine.is_foreign(path),
        is_displaced=script[:1].isspace()
        and script.lstrip().startswith(b"#!")
        and languages.needs_first_line(text),
        joined_arguments=arguments,
        has_crlf=has_crlf,
        lost_status=lost_status,
        lost_status_line=lost_status_line,
        mistakes=()
        if language
        else (
            *machine.mistakes(interpreter, text),
            *proxy_variables.login_variables(text, is_python="python" in interpreter),
            *(script_files.unset(text) if is_shell else ()),
            *script_files.in_python(path, text, interpreter),
            *(script_files.working_directories(text, user) if is_shell else ()),
            *(script_files.unreadable(text, user) if is_shell else ()),
            *script_files.bad_patterns(text, interpreter),
            *script_files.notices(text, interpreter),
            *script_files.sockets(text, user),
            *script_files.temporary(text, user),
            *(
                used_files.scans_by_name(text)
                if script_files.clamd_user() not in ("", "root", user.partition(":")[0])
                else ()
            ),
        ),
        unread_line=unread_line,
        unread_line_number=unread_line_number,
        missing_command=None if language else _missing_command(text, interpreter, user, search),
        syntax_error="" if has_crlf else machine.syntax_error(interpreter, script),
    )


#: Commands that bash implements itself, but sh(1) may not.
_BASH_BUILTINS = (
    *("bind", "builtin", "caller", "compgen", "complete", "declare", "dirs", "disown", "enable"),
    *("function", "help", "history", "let", "local", "logout", "mapfile", "popd", "pushd"),
    *("readarray", "select", "shopt", "suspend", "time", "typeset"),
)
#: The Debian packages of each scanner and its daemon. `_EQUIVALENT` maps a program to another one
#: that accepts the same arguments.
_PACKAGES = {
    "clamdscan": "clamdscan clamav-daemon",
    "clamscan": "clamav",
    "rspamc": "rspamd",
    "spamassassin": "spamassassin",
    "spamc": "spamc spamd",
}
_EQUIVALENT = {"clamscan": "clamdscan", "python": "python3"}


def _missing_command(
    script: str, interpreter: str, user: str, search: str
) -> MissingCommand | None:
    """For a shell script, return the first program that the user cannot run."""
    if Path(interpreter or "sh").name not in ("sh", "dash", "bash"):
        return None
    for command in called_programs.commands(script):
        name = command.program
        found = MissingCommand(name, command.line, command.is_result, "", exists=True)
        if name.startswith("/"):
            if sandbox.is_below(name, script_files.VOLATILE):
                continue
            try:
                is_file = stat.S_ISREG(Path(name).stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                other, link = _similar_path(name)
                package = _package(name.removeprefix("/usr/bin/"))
                return replace(
                    found, exists=False, replacement="" if link else other, package=package
                )
            except OSError:
                continue
            if is_file and command.is_direct and accounts.may(user, os.X_OK, name) is False:
                return found
        elif name not in _BASH_BUILTINS and not Path(_found_by_shell(name, search)).is_file():
            if "/" not in _found_by_shell(name, search):
                continue  # a builtin
            other = shutil.which(name, path=system.SYSTEMD_PATH) or _similar_program(name, search)
            other = other or _elsewhere(name)
            return replace(
                found,
                exists=False,
                sought_path=search,
                replacement=other,
                package=_package(name),
            )
    return None


def _elsewhere(name: str) -> str:
    """Return the only program with this name in the directories of other software, or ""."""
    if not re.fullmatch(r"[\w.+-]+", name):
        return ""
    found = [
        path
        for pattern in (f"opt/*/bin/{name}", f"opt/*/{name}", f"usr/local/*/bin/{name}")
        for path in Path("/").glob(pattern)
        if path.is_file() and os.access(path, os.X_OK)
    ]
    return str(found[0]) if len(found) == 1 else ""


def _package(name: str) -> str:
    """Return the Debian package of a scanner, or "" if unknown."""
    return _PACKAGES.get(name, "") if shutil.which("apt-get", path=system.SYSTEMD_PATH) else ""


def _similar_program(name: str, search: str) -> str:
    """Return the program in PATH whose name was probably mistyped, or "".

    Only equivalent programs, swapped letters and doubled letters are considered, because any other
    similar name may belong to a different program.
    """
    if shutil.which(other := _EQUIVALENT.get(name, name), path=search):
        return other
    names = {each for place in search.split(":") for each in system.names_in(place)}
    near = [each for each in names if set(each) == set(name) and abs(len(each) - len(name)) < 2]
    return (difflib.get_close_matches(name, near, 1, 0.85) or [""])[0]


#: The suffixes of the file names of backups and templates.
_BACKUPS = ("~", ".bak", ".dist", ".example", ".old", ".orig", ".rej", ".sample", ".save", ".swp")


def _similar_path(path: str) -> tuple[str, str]:
    """Return an existing path similar to a missing path, and the path's dangling link, or "" for
    each.

    If the path contains a dangling link, the result is similar to the target of the link.
    """
    parts = Path(path).parts
    for number in range(2, len(parts) + 1):
        link = Path(*parts[:number])
        if link.is_symlink() and not link.exists():
            target = Path(os.path.realpath(link))
            return _similar(target, parts[number:]), str(link)
    found = _similar(Path(path), ())
    return found or shutil.which(Path(path).name, path=system.SYSTEMD_PATH) or "", ""


def _similar(path: Path, rest: Sequence[str]) -> str:
    """Return a similar path, or "". With `rest` appended, the path must be a file."""
    existing = next((each for each in path.parents if each.is_dir()), Path("/"))
    name, *below = path.relative_to(existing).parts
    names = [each for each in system.names_in(str(existing)) if not each.endswith(_BACKUPS)]
    for near in difflib.get_close_matches(name, names, 5, 0.8):
        found = existing.joinpath(near, *below)
        if found.joinpath(*rest).is_file():
            return str(found)
    return ""


def _replacement(interpreter: str, language: str, search: str) -> str:
    """Return the installed interpreter for a script whose #! line is missing or wrong, or ""."""
    name = language or Path(interpreter.partition(" ")[0] or "bash").name
    if Path(interpreter).parent.parent.joinpath("pyvenv.cfg").exists():
        return ""  # another interpreter lacks the modules of the virtual environment
    names = [name, *(["python3"] if re.fullmatch(r"python[0-9.]*", name) else [])]
    names = ["bash"] if name in ("sh", "dash") else names
    names += difflib.get_close_matches(name, ("sh", "bash", "python3", "perl", "ruby"), 1, 0.75)
    found = (shutil.which(each, path=search) for each in names)
    return next(filter(None, found), "")


def _interpreter(script: bytes, search: str) -> str:
    """Return the interpreter of a script. For env(1), return the program that env(1) starts."""
    line = script[:256].partition(b"\n")[0].decode("latin-1")
    if not line.startswith("#!"):
        return ""
    # As in the kernel, a CR before LF is part of the interpreter's name, and a NUL ends the line.
    words = re.split("[ \t]+", line[2:].partition("\0")[0].strip(" \t"))
    if words[0].endswith("/env") and len(words) > 2 and not words[1].startswith("-"):
        return " ".join(words[1:])  # the kernel passes the rest of the line as one argument
    if words[0].endswith("/env") and len(words) > 1:
        name = next((word for word in words[1:] if not word.startswith("-")), "")
        return shutil.which(name, path=search) or name
    return words[0]
