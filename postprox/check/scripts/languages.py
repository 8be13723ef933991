"""Recognises the language of a script.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re

#: For each interpreter, a pattern for lines that are typical of its language.
_WORDS = {
    "python3": re.compile(r"^(import [\w., ]+$|from [\w.]+ import |def \w+\(.*\):|print\()", re.M),
    "perl": re.compile(r"^(use (strict|warnings|[A-Z]\w*)\b.*;|my [$@%]\w+|sub \w+ *\{)", re.M),
    "ruby": re.compile(r"^(require ['\"]\w|puts |def \w+$|abort )", re.M),
    "php": re.compile(r"^<\?php", re.M),
    "node": re.compile(r"^(const|let|var) \w+ *= *require\(", re.M),
}
#: The constructs that bash supports, but sh(1) may not.
_BASH = re.compile(
    r"^\s*set\s+(-\w+\s+)*-\w*o\s+pipefail|(^|[;&|]|\b(if|while|elif|until|!))\s*\[\[\s|<<<"
    r"|\$\{\w+(\^\^?|,,?|//?)|(^|;)\s*(declare|mapfile|readarray|shopt|source)\s|\w+\+?=\("
    r"|[<>]\(|^\s*function\s+\w+|&>",
    re.MULTILINE,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<(?P<tab>-?)\s*(?P<quote>[\"']?)\\?(?P<end>\w+)(?P=quote)")


def without_here_documents(script: str) -> str:
    """Return a shell script with empty lines instead of the texts of its here-documents."""
    kept: list[str] = []
    ends: list[tuple[str, str]] = []
    for line in script.split("\n"):
        if ends:
            tab, end = ends[0]
            if (line.lstrip("\t") if tab else line) == end:
                ends.pop(0)
            kept.append("")
        else:
            kept.append(line)
            is_comment = line.lstrip().startswith("#")
            ends = (
                [] if is_comment else [(m["tab"], m["end"]) for m in _HERE_DOCUMENT.finditer(line)]
            )
    return script if ends else "\n".join(kept)


def language(script: str) -> str:
    """Return the interpreter of the language in which a script is probably written, or "".

    A here-document can be a script in another language.
    """
    script = without_here_documents(script)
    return next((name for name, words in _WORDS.items() if words.search(script)), "")


def bash_feature(script: str) -> str:
    """Return the first construct in a script that requires bash, or ""."""
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in script.split("\n"))
    code = re.sub(r"'[^']*'", "''", code)
    found = _BASH.search(code)
    return found[0].strip(" \t\n;&|") if found else ""


def needs_first_line(script: str) -> bool:
    """Return whether a script can fail if sh(1) runs it instead of the interpreter after #!.

    The result is False for sh without options, and for bash if the script needs no feature of bash.
    """
    words = script.lstrip().removeprefix("#!").partition("\n")[0].split()
    names = [word.rpartition("/")[2] for word in words]
    if names[:1] == ["env"]:
        names = names[1:]
    return names not in (["sh"], ["dash"]) and (names != ["bash"] or bool(bash_feature(script)))
