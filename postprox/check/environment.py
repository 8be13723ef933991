"""Parses and writes systemd environment files, such as /etc/default/postprox.

Rule: the functions depend only on the text. The functions follow systemd's syntax (EnvironmentFile=
in systemd.exec(5)). A shell would interpret the same file differently. Parsing takes linear time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

#: The variables of the packaged unit, and their values in packaging/postprox.default.
UPSTREAM, OPTIONS = "POSTPROX_UPSTREAM", "POSTPROX_OPTIONS"
PACKAGED = {
    UPSTREAM: "127.0.0.1:10026",
    OPTIONS: "-v --strict -t 60 -c /usr/local/bin/mail-filter",
}

#: The minimum similarity of a misspelt variable name to the correct name.
_SIMILAR = 0.75
_COMMAND = re.compile(r"(^|\s)(-\w*c\b|--command\b)")
_BLANKS = " \t\r"
_LIKELY = re.compile(rf"^[^#;\n]*?({OPTIONS}|{UPSTREAM})[ \t]*[=:]?(.*)", re.MULTILINE)
_HIDDEN = re.compile(rf"^[ \t]*[#;].*\\\n[ \t]*({OPTIONS}|{UPSTREAM})=", re.MULTILINE)
_COMMENT = re.compile(r"[#;]|//(\s|$)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: Within double quotes, systemd removes a backslash before one of these characters.
_ESCAPED = '"\\`$'


@dataclass(frozen=True)
class Comment:
    """A comment that systemd reads as part of a value, because it is not on a line of its own."""

    #: The variable, and the line that sets it.
    name: str
    line: str
    #: The value without the comment, and the text of the comment.
    value: str
    text: str


@dataclass
class Assignments:
    """The variables that an environment file sets."""

    values: dict[str, str] = field(default_factory=dict)
    #: The errors in the file that affect the proxy's variables.
    problems: list[str] = field(default_factory=list)
    #: Variables whose value has more than one line.
    multiline: set[str] = field(default_factory=set)
    #: If the file has errors, the values that were probably intended. Each line is parsed
    #: separately, and quotes are ignored.
    likely: dict[str, str] = field(default_factory=dict)
    #: The values that a later line replaces, for each variable that is set more than once.
    earlier: dict[str, list[str]] = field(default_factory=dict)
    #: For each variable, the comment that systemd reads as part of the value.
    comments: dict[str, Comment] = field(default_factory=dict)
    #: True if the file has comments on lines of their own.
    has_comments: bool = False
    #: The variables whose line is part of a comment, because the line before it ends with a
    #: backslash.
    hidden: tuple[str, ...] = ()


def parse(text: str) -> Assignments:
    """Parse an environment file."""
    found = Assignments(
        likely={name: _unquoted(value) for name, value in _LIKELY.findall(text)},
        has_comments=re.search(r"^[#;].*[^\\\n]$", text, re.MULTILINE) is not None,
        hidden=tuple(_HIDDEN.findall(text)),
    )
    position = 0
    while position < len(text):
        if text[position] in f"{_BLANKS}\n":
            position += 1
        elif text[position] in "#;":
            position = _end_of_comment(text, position)
        else:
            position = _assign(found, text, position)
    return found


def _assign(found: Assignments, text: str, position: int) -> int:
    """Add the assignment that begins at `position`, and return the position of its end."""
    end = text.find("\n", position)
    line = text[position:] if end < 0 else text[position:end]
    # The first character belongs to the key, even if it is an equals sign.
    key, equals, _ = line[1:].partition("=")
    key = line[0] + key
    start = position + len(key) + 1
    key = key.rstrip(_BLANKS)
    is_option = OPTIONS in key or UPSTREAM in key
    if not equals:
        if is_option:
            found.problems.append(f"{key!r} has no equals sign, so systemd ignores it")
        return position + len(line)
    value, position, is_closed, bare = _value(text, start)
    if not is_closed or f"{OPTIONS}=" in value or f"{UPSTREAM}=" in value:
        found.problems.append(f"unterminated quote in {key}")
    if _NAME.fullmatch(key):
        if key in found.values:
            found.earlier.setdefault(key, []).append(found.values[key])
        found.values[key] = value
        found.comments.pop(key, None)
        if "\n" in text[start:position]:
            found.multiline.add(key)
        elif at := _start_of_comment(
            value, bare, is_quoted=text[start:position].lstrip()[:1] in "'\""
        ):
            comment = value[at:].lstrip("#;/ ")
            found.comments[key] = Comment(key, line, value[:at].rstrip(), comment)
    elif is_option:
        found.problems.append(f"{key!r} is not a variable name, so systemd ignores it")
    return position


def _start_of_comment(value: str, bare: int, *, is_quoted: bool) -> int:
    """Return the position of a comment in a value, or 0 if there is none.

    `bare` is the position of the first unquoted character after a closing quote, or 0. Within
    quotes, a semicolon can separate two commands.
    """
    mark = _COMMENT if not is_quoted else re.compile("#")
    if bare and _COMMENT.match(value, bare):
        return bare
    if address := re.match(r"[\w.:\[\]-]+:[0-9]+(?=[#;].*\w)", value, re.ASCII):
        return address.end()
    quote, before = "", ""
    for position, letter in enumerate(value):
        if letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif not quote and before.isspace() and mark.match(value, position):
            return position
        before = letter
    return 0


def misnamed(found: Assignments, used: str) -> tuple[str, str]:
    """Return a variable whose name is probably wrong, and the correct name, or ("", "").

    `used` is the unit's command line, in which its variables are not yet expanded.
    """
    for right in (OPTIONS, UPSTREAM):
        if right in found.values or right not in used:
            continue
        for name, value in found.values.items():
            is_similar = difflib.SequenceMatcher(None, name.upper(), right).ratio() >= _SIMILAR
            is_meant = right == OPTIONS and _COMMAND.search(value) is not None
            is_used = re.search(rf"\$\{{?{name}\b", used) is not None
            if name not in (OPTIONS, UPSTREAM) and not is_used and (is_similar or is_meant):
                return name, right
    return "", ""


def _unquoted(text: str) -> str:
    text = re.sub("['\"\u2018\u2019\u201c\u201d]", "", text)
    return re.split(r"\s[#;]", text)[0].strip()


def _end_of_comment(text: str, position: int) -> int:
    """Return the position where a comment ends.

    A backslash at the end of a line continues the comment.
    """
    while position < len(text) and text[position] != "\n":
        position += 2 if text[position] == "\\" else 1
    return position


def _value(text: str, position: int) -> tuple[str, int, bool, int]:
    """Return a value, the position of its end, and whether all its quotes are closed.

    A quote after the first unquoted character has no special meaning. The last result is the offset
    in the value at which unquoted text follows a closing quote, or 0.
    """
    value, blanks, quote = [], "", ""
    is_bare, bare = False, 0
    while position < len(text):
        letter = text[position]
        following = text[position + 1 : position + 2]
        position += 1
        if letter == quote:
            quote = ""
        elif quote == "'" or (quote and letter != "\\"):
            value.append(letter)
        elif quote:
            position += 1
            kept = "" if following in _ESCAPED or following == "\n" else letter
            value.append(kept + following.strip("\n"))
        elif letter == "\n":
            return "".join(value), position - 1, True, bare
        elif letter in "'\"" and not is_bare:
            quote = letter
        elif letter in _BLANKS:
            blanks += letter if is_bare else ""
        else:
            escaped = letter == "\\"
            position += escaped
            bare = bare if is_bare else len("".join(value))
            value.append(blanks + (following.strip("\n") if escaped else letter))
            blanks, is_bare = "", True
    return "".join(value), position, not quote, bare


def assignment(name: str, value: str) -> str:
    """Return the line that sets a variable. `parse` is the inverse function."""
    if '"' in value and "'" not in value:
        return f"{name}='{value}'"
    escaped = re.sub(r'(["\\`$])', r"\\\1", value)
    return f'{name}="{escaped}"'


def joined(words: Sequence[str]) -> str:
    """Return a value that systemd splits into these words (systemd.service(5))."""
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    if re.fullmatch(r"[^\s'\"\\]+", word):
        return word
    if not re.search(r"['\\]", word):
        return f"'{word}'"
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
