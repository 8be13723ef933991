"""Finds files that all running filters share.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import EMAIL, Code, constants
from .mistake import Kind, Mistake

#: A file that all running filters share, because its name is fixed.
_FIXED = re.compile(
    rf"(?:\bcp\s+{EMAIL}\s+|{EMAIL}[^;&>]*(;\s*\}})?\s*(?<![0-9])>\s*)\"?(?P<path>/(?:var/)?tmp/[\w./-]+)\"?(?=\s|;|$)"
)
_TEMPORARY = re.compile(r"/(?:var/)?tmp/[\w./-]+")
#: A line that defines a file's name or changes the file, but does not read the file.
_UNREAD = re.compile(r"(export\s+)?\w+=[\"']?/|(chmod|chown|rm|ls)\s")
#: A part of a script that lets only one filter run at the same time.
_SERIAL = re.compile(r"flock|lockfile|setlock|(until|while)\b[^\n]*\b(mkdir|ln|noclobber)\b")


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the line that writes the message to a file with a fixed name."""
    text = "\n".join(line for _, line in code)
    files = {name: path for name, path in constants(code) if _TEMPORARY.fullmatch(path)}
    if _SERIAL.search(text):
        return
    if directory := next(_shared_directories(code, text), None):
        yield directory
        return
    used = "\n".join(_expanded(line, files) for _, line in code if not _UNREAD.match(line))
    for number, line in code:
        found = _FIXED.search(_expanded(line, files))
        if found is None or used.count(found["path"]) < 2:
            continue
        names = [name for name, path in files.items() if path == found["path"]]
        if names:
            edit = _as_temporary(code, files, names[0])
        else:
            path = re.sub(r"[.]", r"\\.", found["path"])
            edit = (
                f's,"{path}","$copy",g;s,{path},"$copy",g;'
                "1a copy=$(mktemp) || exit 2; trap 'rm -f \"$copy\"' EXIT"
            )
        yield Mistake(Kind.SHARED, line, number, edit)
        return


def _shared_directories(code: Code, text: str) -> Iterator[Mistake]:
    """Yield the line that names a directory which every run of the filter empties before use."""
    for number, line in code:
        found = re.fullmatch(r"(?:export\s+)?(?P<name>\w+)=[\"']?/[\w./-]+[\"']?;?", line)
        if found is None:
            continue
        name = rf"[\"']?\$\{{?{found['name']}\}}?/?\*?[\"']?(?=[\s;&|]|$)"
        is_emptied = re.search(rf"^rm\s+-\w*r\w*\s+{name}", text, re.MULTILINE)
        if is_emptied and re.search(rf"\bmkdir\s+(-\w+\s+)*{name}", text):
            new = f"{found['name']}=$(mktemp -d) || exit 2; trap 'rm -rf \"${found['name']}\"' EXIT"
            yield Mistake(Kind.SHARED, line, number, f"{number}s,{found['name']}=.*,{new},")


def _expanded(line: str, values: dict[str, str]) -> str:
    """Replace the variables with known values."""
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))", lambda each: values.get(each[1] or each[2], each[0]), line
    )


def _as_temporary(code: Code, files: dict[str, str], first: str) -> str:
    """Return a script for sed(1) that gives each filter its own files.

    This applies to all variables whose files contain the message or a part of the result.
    """
    uses = [set(re.findall(r"\$\{?(\w+)", line)) for _, line in code]
    names, found = {first}, {first, "EMAIL", "OUTFILE"}
    for _ in files:
        names |= {name for each in uses if each & found for name in each & files.keys()}
        found |= names
    lines = {
        name: number
        for number, line in code
        for name in names
        if re.match(rf"(export\s+)?{name}=", line)
    }
    edits = [rf"{n}s,{name}=.*,{name}=$(mktemp) || exit 2," for name, n in lines.items()]
    if not any(line.startswith("trap") for _, line in code):
        last = max(lines, key=lambda name: lines[name])
        removed = " ".join(f'"${name}"' for name in lines)
        edits.append(f"{lines[last]}a trap 'rm -f {removed}' EXIT")
    return ";".join(edits)
