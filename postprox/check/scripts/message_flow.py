"""Finds scripts that do not read the message, or whose changes do not reach the proxy.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import shell_command
from .lines import Code, is_bare, outer_positions
from .mistake import Kind, Mistake, replaced

#: A command that searches standard input.
_SEARCH = re.compile(
    r"(if\s+|!\s+)*grep(\s+-[a-zA-Z]+)*\s+(\"[^\"]*\"|'[^']*'|[\w.^*-]+)\s*(;|&&|\|\||$)"
)
#: Code that uses the message or the arguments, or that runs another script.
_ANY_MESSAGE = re.compile(
    r"EMAIL|\$\{?[1-9@*]|\b(exec|source|eval|python3?|perl|sh|bash)\b|(^|[;&|]\s*)\.\s",
    re.MULTILINE,
)


def without_message(script: str) -> tuple[str, int]:
    """Return the first line that scans its input, if the script never uses the message.

    The second element is the number of this line. If the script uses EMAIL or its arguments, or
    runs another script, the result is ("", 0).
    """
    lines = [(n, line.strip()) for n, line in enumerate(script.split("\n"), 1)]
    code = [(line, n) for n, line in lines if line and not line.startswith("#")]
    if _ANY_MESSAGE.search("\n".join(line for line, _ in code)):
        return "", 0
    is_redirected = any("<" in line for line, _ in code)
    return next(
        (
            (line, n)
            for line, n in code
            if shell_command.SCANNER.search(line) or (_SEARCH.match(line) and not is_redirected)
        ),
        ("", 0),
    )


def with_message(line: str, number: int) -> str:
    """Return a script for `sed` that makes the message the input of a line.

    If the line is not a simple command, the message becomes the input of the whole script.
    """
    if re.fullmatch(r"[\w\s./=>@:-]+", line):
        return f'{number}s/$/ < "$EMAIL"/'
    return '1s/$/\\nexec < "$EMAIL" || exit 2/'


_EMAIL = r"\"?\$\{?EMAIL\}?\"?(?=\s*(?:$|[;&|)}]))"
#: A command that changes the file EMAIL, and the form of the command that the check can correct.
_CHANGE = re.compile(
    rf"(?P<sed>\bsed\s+(?:-[nErs]+\s+)*-i\s[^|;&<>]*{_EMAIL})"
    rf"|\b(?P<mover>(?:mv|cp)\s[^|;&<>]*{_EMAIL})"
    rf"|\bsed\s[^|;&]*-i[^|;&]*{_EMAIL}"
    rf"|\bperl\s+-\w*i[^|;&]*{_EMAIL}|[^>]>\s*{_EMAIL}"
)


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield the mistakes in the lines of a script."""
    yield from _inputs(code)
    yield from _changes(code)
    yield from _outputs(code)


#: A command that reads standard input. The proxy leaves it empty.
_INPUT = re.compile(
    r"\w+=\"?(?P<input>\$\(\s*cat\s*-?\s*\))\"?\s*;?"
    r"|(?P<copy>cat)\s*-?\s*>\s*\"?\$\{?\w+\}?\"?\s*(?:\|\|\s*exit\b[^|;&]*)?;?"
)


def _inputs(code: Code) -> Iterator[Mistake]:
    """Yield a line that reads standard input, if other lines use EMAIL."""
    text = "\n".join(line for _, line in code)
    if "EMAIL" not in text or re.search(r"\bexec\b[^\n]*<|<<|\b(read|source|eval)\b", text):
        return
    for position in outer_positions(code):
        number, line = code[position]
        is_piped = position and code[position - 1][1].endswith(("|", "\\"))
        if (found := _INPUT.fullmatch(line)) and not is_piped:
            old, new = found["input"], '$(cat "$EMAIL")'
            if found["copy"]:
                old, new = line, re.sub(r"^cat\s*-?\s*>", 'cat "$EMAIL" >', line)
            yield Mistake(Kind.INPUT, line, number, replaced(number, old, new))


def _changes(code: Code) -> Iterator[Mistake]:
    """Yield the line that changes EMAIL, if no later code uses EMAIL and no code uses OUTFILE."""
    text = "\n".join(line for _, line in code)
    found = [(n, line, each) for n, line in code if (each := _CHANGE.search(line))]
    if "OUTFILE" in text or "<<" in text or len(found) != 1:
        return
    number, line, change = found[0]
    later = [line[change.end() :], *(other for n, other in code if n > number)]
    if re.search("EMAIL|exec|source|eval", "\n".join(later)) or not is_bare(line, change.start()):
        return
    old, new = change[0], ""
    if change["mover"]:
        new = re.sub(rf"{_EMAIL}$", lambda _: '"$OUTFILE"', old)
    elif change["sed"]:
        new = re.sub(r"\s-i(?=\s)", "", old, count=1) + ' > "$OUTFILE"'
    yield Mistake(Kind.CHANGE, line, number, replaced(number, old, new) if new else "")


#: A command that prints the message with new header fields, and the end of its line.
_MARKED = re.compile(
    r"(?P<command>(cat\s+\"?\$\{?EMAIL\}?\"?\s*\|\s*)?(/\S+/)?(spamc|spamassassin)\b"
    r"(?P<arguments>[^|;&<>`()]*)(<\s*\"?\$\{?EMAIL\}?\"?)?)(?P<end>\s*(1?>\s*/dev/null)?)"
)
#: The options with which the command prints another text, or with which its exit status matters.
_NOT_MARKED = re.compile(
    r"\s(-\w*[cCKLRryEe]|--(check|exitcode|exit-code|reporter|learntype|lint))"
)


def _outputs(code: Code) -> Iterator[Mistake]:
    """Yield a line that prints the changed message, if the script has no OUTFILE."""
    text = "\n".join(line for _, line in code)
    if "OUTFILE" in text or "<<" in text or "exec" in text:
        return
    for position in outer_positions(code):
        number, line = code[position]
        found = _MARKED.fullmatch(line)
        if found and "EMAIL" in line and not _NOT_MARKED.search(found["arguments"]):
            new = found["command"].rstrip() + ' > "$OUTFILE"'
            yield Mistake(Kind.OUTPUT, line, number, replaced(number, line, new))
