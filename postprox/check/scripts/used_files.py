"""Finds the files, directories and sockets that a script uses.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import Code, code_lines, is_bare, outer_positions
from .mistake import Kind, Mistake, replaced

#: The programs whose last operand is a path that they write to.
_WRITERS = ("cp", "mv", "install", "tee", "touch", "mkdir", "rsync", "ln")


def written_paths(script: str) -> list[str]:
    """Return the absolute paths that a shell or Python script writes to."""
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in script.split("\n"))
    constants = dict(re.findall(r"^\s*(?:export\s+)?(\w+)=[\"']?(/[\w./-]+)[\"']?\s*$", code, re.M))
    code = re.sub(r"\$\{?(\w+)\}?", lambda m: constants.get(m[1], m[0]), code)
    path = r"[\"']?(/[\w.@/-]+)"
    found = re.findall(rf"(?<![0-9<&])[12]?>>?\|?\s*{path}", code)
    writers = "|".join(_WRITERS)
    for line in re.findall(
        rf"(?:^|[;&|({{!]|\b(?:then|do|else|if)\b|\))\s*(?:{writers})\s((?:\$\([^()\n]*\)|[^;&|\n])*)",
        code,
        re.M,
    ):
        line = re.sub(r"\$\([^()]*\)", "$x", line)  # noqa: PLW2901
        words = [
            word.strip("\"')}")
            for word in re.sub(r"[0-9&]*[<>]+\s*\S+", "", line).split()
            if not re.match("[0-9]?[<>]|-", word)
        ]
        found += [words[-1]] if words and words[-1].startswith("/") else []
    found += re.findall(rf"\bopen\(\s*f?{path}[^\n]*?,\s*[\"'][wax]", code)
    found += re.findall(rf"\blogging\.basicConfig\([^()]*\bfilename\s*=\s*{path}", code)
    found += re.findall(rf"\b\w*FileHandler\(\s*{path}", code)
    names = [re.split(r"[$`*?\"'{]", name)[0] for name in found]
    return [name for name in dict.fromkeys(names) if not name.startswith(("/dev/", "/proc/"))]


#: A use of grep(1) with a file of patterns. The options can reverse or restrict the match.
_PATTERN_FILE = re.compile(
    r"\b[ef]?grep\s(?P<options>(?:[^|;&<>\n]*\s)?)(?:-(?P<short>\w*)f\s*|--file[= ])"
    r"(?P<path>\"[^\"]+\"|[^\s\"';&|<>]+)(?P<more>[^|;&\n]*)"
)


def pattern_files(script: str) -> Iterator[Mistake]:
    """Yield the lines in which grep(1) reads a file of patterns, with the path of the file."""
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    for number, line in code:
        for found in _PATTERN_FILE.finditer(line):
            path, options = found["path"].strip('"'), f"{found['options']} {found['more']}"
            if name := re.fullmatch(r"\$\{?(\w+)\}?", path):
                values = re.findall(rf"^{name[1]}=[\"']?(/[\w./@-]+)[\"']?;?$", text, re.MULTILINE)
                is_single = len(re.findall(rf"\b{name[1]}\b", text)) == 2
                path = values[0] if len(values) == 1 and is_single else ""
            is_other = re.search(
                r"(^|\s)(-\w*[vwx]|--(invert|word|line-r))", f"{options} -{found['short']}"
            )
            is_used = re.search(r"EMAIL|SENDER|RECIPIENT|HELO|REMOTEIP|CLIENT_NAME", line)
            is_path = re.match(r"/[\w./@-]+$", path) and text.count(path) == 1
            if is_path and is_used and not is_other:
                yield Mistake(Kind.PATTERNS, line, number, path=path)


#: A command that changes the working directory, or ends the script.
_CHANGED = re.compile(r"cd\s+[\"']?(?P<path>/[\w./@-]+)[\"']?\s*(\|\|\s*exit\b.*|;?)")


def working_directories(script: str) -> Iterator[Mistake]:
    """Yield the commands that enter a directory or end the script, with the path."""
    code = list(code_lines(script))
    is_strict = any(re.match(r"set\s+-[a-z]*e", line) for _, line in code)
    for position in outer_positions(code):
        number, line = code[position]
        found = _CHANGED.fullmatch(line)
        if found and (is_strict or "exit" in line):
            yield Mistake(Kind.DIRECTORY, line, number, path=found["path"])


_TEMPORARY = re.compile(r"(?P<name>\w+)=([\"']?)\$\(mktemp\b[^()]*\)\2(\s*(;|\|\|).*)?")


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield a line that creates a temporary file, if the script never removes or moves a file, or
    if it rejects a message before it removes the file.
    """
    text = "\n".join(line for _, line in code)
    if re.search(r"\b(trap|unlink|mv|shred|exec|tmpfiles)\b", text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _TEMPORARY.fullmatch(line)
        if found and (not re.search(r"\brm\b", text) or _is_left(code[position + 1 :])):
            trap = f"trap 'rm -rf \"${found['name']}\"' EXIT"
            yield Mistake(Kind.LEFT, line, number, f"{number}a {trap}")


def _is_left(later: Code) -> bool:
    """Return whether a script removes a file only at its end, but has a branch that exits."""
    outer = {later[position] for position in outer_positions(later)}
    removals = [each for each in later if re.search(r"\brm\b", each[1])]
    exits = [each for each in later if re.match(r"exit\b", each[1]) and each not in outer]
    return len(removals) == 1 and removals[0] in outer and any(each < removals[0] for each in exits)


#: mktemp(1) without a directory, and the functions of Python's module tempfile.
_MADE = re.compile(r"\bmktemp\b(?![^;&|()]*(/|\s-\w*p|--tmpdir=))|\btempfile\.\w+\((?![^()]*dir=)")


def temporary_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that create a file in the directory for temporary files."""
    for number, line in code_lines(script):
        if _MADE.search(line):
            yield Mistake(Kind.CLOSED, line, number, path="/tmp")  # noqa: S108


def read_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that read commands from a file with `.`, with the path of the file.

    Files that the script mentions elsewhere are omitted, because the script may check whether they
    exist.
    """
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    if "<<" in text:
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = re.fullmatch(r"\.\s+([\"']?)(/[\w./@-]+|\$\{?(\w+)\}?)\1\s*;?", line)
        if found is None:
            continue
        name, path = found[3], found[2]
        if name:
            values = re.findall(rf"^{name}=[\"']?(/[\w./@-]+)[\"']?;?$", text, re.MULTILINE)
            is_single = len(re.findall(rf"\b{name}\b", text)) == 2
            path = values[0] if len(values) == 1 and is_single else ""
        if path and text.count(path) == 1:
            yield Mistake(Kind.MISSING, line, number, path=path)


#: A command that reads a file of data, such as a list of words.
_DATA = re.compile(
    r"(?:\bgrep\b[^|;&<>]*\s(?:-\w*f\s*|--file=)|\b(?:awk|sed)\s+-f\s*|\bcat\s+|(?<![<0-9])<\s*)"
    r"[\"']?(?P<path>/[\w./@-]+)"
)


def data_files(script: str) -> Iterator[Mistake]:
    """Yield the lines that read a file of data, with the path of the file.

    A file that the script also mentions elsewhere is left out, because the script can test it.
    """
    code = list(code_lines(script))
    text = "\n".join(line for _, line in code)
    for number, line in code:
        for found in _DATA.finditer(line):
            if text.count(found["path"]) == 1 and is_bare(line, found.start()):
                yield Mistake(Kind.DATA, line, number, path=found["path"])


#: A command that passes the name of the file EMAIL to clamd, instead of the file itself.
_BY_NAME = re.compile(
    r"\bclamdscan\b(?![^|;&]*\s(--fdpass|--stream|-c|--config-file)\b)[^|;&<>]*\s\"?\$\{?EMAIL\b"
)


def scans_by_name(script: str) -> Iterator[Mistake]:
    """Yield the lines that pass only the path in EMAIL to clamd, which runs as another user."""
    for number, line in code_lines(script):
        if _BY_NAME.search(line):
            edit = replaced(number, "clamdscan", "clamdscan --fdpass")
            yield Mistake(Kind.PRIVATE, line, number, edit if line.count("clamdscan") == 1 else "")


#: A part of a script that may reach the server in another way, or that tests its permissions.
_OTHER_SERVER = re.compile(
    r"\bAF_INET|create_connection|access\(|\s-[wrx]\s|\b(sudo|doas|sg|newgrp|setpriv)\b|\bnc\s+(?!-\w*U)"
)
_ABSOLUTE = re.compile(r"(?<![\w/.$}-])/(?:[\w.@-]+/)+[\w.@-]+")
#: A scan with clamdscan(1), which connects to the socket in the configuration of clamd.
_CLAMDSCAN = re.compile(r"\bclamdscan\b(?![^|;&]*\s(-c|--config-file|-V|--version)\b)[^|;&]*EMAIL")


def absolute_paths(script: str, clamd: str) -> Iterator[Mistake]:
    """Yield the lines of a shell or Python script with the absolute paths of possible sockets.

    `clamd` is the socket of clamd, which clamdscan(1) uses, or "".
    """
    code = list(code_lines(script))
    if not _OTHER_SERVER.search("\n".join(line for _, line in code)):
        for number, line in code:
            for found in _ABSOLUTE.finditer(line):
                yield Mistake(Kind.SOCKET, line, number, path=found[0])
            if clamd and _CLAMDSCAN.search(line):
                yield Mistake(Kind.SOCKET, line, number, path=clamd)
