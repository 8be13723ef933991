"""Mistakes in the text of main.cf and master.cf that postconf(1) does not accept or does not show.

Rule: the functions depend only on the text. Each correction applies to single lines, and its
pattern has the same meaning in Python and in `sed -E`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

MAIN, MASTER = "main.cf", "master.cf"
_MARK = "\ufeff"
_TYPES = ("inet", "unix", "fifo", "pass", "unix-dgram")
_ROW = ("private", "unprivileged", "chroot", "wakeup", "process_limit")
_PORTS = ("smtp", "smtps", "submission", "submissions", "qmqp", "lmtp")
#: master(8) accepts -oNAME=VALUE, but postconf(1) splits this word in the wrong places.
_JOINED = (r"([ \t])-(v*)o([A-Za-z_][A-Za-z0-9_]*=|\{)", r"\1-\2o \3")
#: The characters that a word processor or web page shows instead of a hyphen. A bracket expression
#: would depend on the locale of sed(1).
_DASH = "(\u2010|\u2011|\u2012|\u2013|\u2014|\u2015|\u2212|\ufe58|\ufe63|\uff0d)+"
_WRONG_DASH = (
    rf"(^|[ \t])-?{_DASH}-?[ \t]*[oO][ \t]*([A-Za-z_][A-Za-z0-9_]*[ \t]*=|\{{)",
    r"\1-o \3",
)
#: Blanks that include a no-break space, and optional blanks of any kind. A bracket expression would
#: depend on the locale of sed(1).
_NO_BREAKS = "[ \t]*\u00a0[ \t\u00a0]*"
_BLANKS = "(\u00a0|[ \t])*"
_BACKSLASH = (r"[ \t]*\\[ \t]*$", "")
_UNINDENTED = (r"^(-[A-Za-z]|user=|argv=|flags=|[^ \t#][^ \t]*[ \t]*$)", r"    \1")
_NAME = r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+|mynetworks|myhostname|mydestination|relayhost|myorigin"
_RESTRICTION = r"(permit|reject|check_|defer|warn_if_)"
#: An entry of master.cf in main.cf. It can be indented.
_ENTRY = re.compile(
    r"[ \t]*([^ \t#=]+)[ \t]+(inet|unix|fifo|pass|unix-dgram)([ \t]+[yn-]){3}[ \t]+[0-9?-]+"
    r"[ \t]+[0-9-]+[ \t]+[a-z]"
)
#: A line of main.cf in master.cf. Attributes of pipe(8) have the same form.
_PARAMETER = re.compile(rf"(?!null_sender)({_NAME})([ \t]*=[ \t]*)(.*)")
#: The parameters in whose values a backslash at the end of a line has an effect.
_LISTS = re.compile(
    r"_restrictions$|^smtpd_proxy_|^content_filter$|^mynetworks$|_options$|_milters$"
)


@dataclass(frozen=True)
class Correction:
    """A substitution in the lines of a file that are not comments."""

    file: str
    pattern: str
    replacement: str
    #: The problem that it corrects, or "" if Postfix reads the text as intended.
    problem: str = ""
    #: A pattern for lines that are not changed.
    excluded: str = r"^[ \t]*#"

    def applied(self, text: str) -> str:
        """Return the corrected text of the file."""
        lines = text.split("\n")
        return "\n".join(
            line if re.search(self.excluded, line) else re.sub(self.pattern, self.replacement, line)
            for line in lines
        )

    @property
    def script(self) -> str:
        """Return the script for `sed -E` that makes the correction."""
        if _MARK in self.pattern:
            return r"1s/^\xef\xbb\xbf//"  # the locale must be C
        mark = next(each for each in "~,!@;%" if each not in self.pattern + self.replacement)
        pattern = self.pattern.replace("\u00a0", r"\xc2\xa0")  # not printable
        return f"/{self.excluded}/! s{mark}{pattern}{mark}{self.replacement}{mark}g"


@dataclass(frozen=True)
class Misplaced:
    """Lines of main.cf in master.cf, or entries of master.cf in main.cf."""

    file: str
    #: A pattern for the first line of each parameter or entry. Continuation lines can follow each
    #: matching line.
    start: str
    problem: str
    #: The parameters as `name=value`, or an empty tuple if the lines are entries of master.cf.
    values: tuple[str, ...] = ()
    #: True if master.cf already contains the entries.
    is_copy: bool = False
    #: True if the other file does not end with a newline.
    is_unterminated: bool = False

    @property
    def _start(self) -> str:
        # An indented parameter belongs to the entry before it.
        return f"^{self.start}" if self.values else rf"^[ \t]*{self.start}"

    def commands(self, directory: str, postconf: str) -> list[str]:
        """Return the commands that move the lines to the other file."""
        # The hold space is not empty while sed(1) reads the lines that move.
        parts = [
            r"/^[^ \t#]/{x;s/.*//;x}",
            rf"/{self._start}/{{s/^[ \t]+//;h}}",
            *("x;/./!{x;b", "}", r"x;/^[ \t]*$|^#/b"),
            *(["d"] if self.values or self.is_copy else ["w /dev/stdout", "d"]),
        ]
        path, other = (shlex.quote(f"{directory}/{name}") for name in (self.file, MASTER))
        remove = " ".join(["sed -E -i", *(f"-e {shlex.quote(part)}" for part in parts), path])
        if self.values:
            return [f"{postconf} -e {shlex.join(self.values)}", remove]
        if self.is_copy:
            return [remove]
        terminate = [f"sed -i '$a\\' {other}"] if self.is_unterminated else []
        return [*terminate, f"{remove} >> {other}"]

    def applied(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Return both texts after moving the misplaced lines to the other file."""
        kept: list[str] = []
        moved: list[str] = []
        is_moved = False
        for line in texts[self.file].split("\n"):
            is_moved = is_moved and not re.match(r"[^ \t#]", line)
            is_start = re.match(self._start, line) is not None
            is_moved = is_moved or is_start
            is_text = line.strip() and not line.startswith("#")
            (moved if is_moved and is_text else kept).append(line.lstrip() if is_start else line)
        other = MASTER if self.file == MAIN else MAIN
        moved = list(self.values) if self.values else [] if self.is_copy else moved
        added = "".join(f"{line}\n" for line in moved)
        end = "\n" if added and not texts[other].endswith("\n") else ""
        return {**texts, self.file: "\n".join(kept), other: f"{texts[other]}{end}{added}"}


def misplaced(main: str, master: str) -> list[Misplaced]:
    """Return the lines of main.cf in master.cf, and the entries of master.cf in main.cf."""
    return [*_entries_in_main(main, master), *_parameters_in_master(master)]


def _entries_in_main(main: str, master: str) -> Iterator[Misplaced]:
    own = [" ".join(block).split() for block in _blocks(master)]
    found: dict[bool, dict[str, str]] = {True: {}, False: {}}
    is_indented = False
    for block in _blocks(main):
        starts = [index for index, line in enumerate(block) if _ENTRY.match(line)]
        for start, end in pairwise([*starts, len(block)]):
            name, kind = block[start].split()[:2]
            is_indented |= start > 0
            is_copy = " ".join(block[start:end]).split() in own
            found[is_copy][f"{name}/{kind}"] = rf"{_escaped(name)}[ \t]+{kind}[ \t]"
    effect = "; no Postfix program can read main.cf, so no mail is received or delivered"
    if is_indented:
        effect = "; Postfix reads it as part of a parameter and does not run the service"
    for is_copy, entries in found.items():
        if entries:
            is_one = len(entries) == 1
            named = f"the {'entry' if is_one else 'entries'} {', '.join(entries)}"
            problem = f"{named} {'belongs' if is_one else 'belong'} in master.cf"
            if is_copy:
                problem = f"{named} {'is' if is_one else 'are'} also in master.cf"
            yield Misplaced(
                MAIN,
                f"({'|'.join(entries.values())})",
                f"{problem}{effect}",
                is_copy=is_copy,
                is_unterminated=bool(master) and not master.endswith("\n"),
            )


def _parameters_in_master(master: str) -> Iterator[Misplaced]:
    found: dict[str, str] = {}
    before = ""
    values = {block[0]: " ".join(each.strip() for each in block) for block in _blocks(master)}
    for line in master.split("\n"):
        parameter = _PARAMETER.match(line)
        # NAME=VALUE without spaces is probably an option of the previous entry.
        is_apart = not before.strip() or before.startswith("#") or _PARAMETER.match(before)
        if parameter and (is_apart or parameter[2] != "="):
            name, _, value = values.get(line, "").partition("=")
            if value.strip():
                found[name.strip()] = value.strip()
        before = line
    if found:
        verb = "belong" if len(found) > 1 else "belongs"
        yield Misplaced(
            MASTER,
            rf"({'|'.join(found)})[ \t]*=",
            f"{', '.join(found)} {verb} in main.cf; no mail is received or delivered",
            values=tuple(f"{name}={value}" for name, value in found.items()),
        )


def _blocks(text: str) -> list[list[str]]:
    """Return the lines of each entry or parameter, without comments and blank lines."""
    blocks: list[list[str]] = []
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and blocks:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


@dataclass(frozen=True)
class Orphan:
    """An entry of master.cf that is commented out, but whose following lines are not.

    Postfix reads these lines as arguments of the last entry before the comment, which is called the
    owner.
    """

    name: str
    type: str
    program: str
    #: The label and the program of the entry that precedes the comment.
    owner: str
    owner_program: str
    #: The line numbers of the commented-out line and of the entry's last line.
    first: int
    last: int

    @property
    def uncomment(self) -> str:
        """Return the script for `sed -E` that uncomments the entry."""
        return rf"{self.first}s/^#+[ \t]*({_escaped(self.name)}[ \t])/\1/"

    @property
    def comment_out(self) -> str:
        """Return the `sed -E` script that comments out the lines after the comment."""
        return rf"{self.first},{self.last}s/^[ \t]+[^# \t]/#&/"


def orphans(master: str) -> list[Orphan]:
    """Return the commented-out entries whose continuation lines are still active."""
    found: list[Orphan] = []
    owner: list[str] = []
    comment: tuple[int, list[str]] | None = None
    for number, line in enumerate(master.split("\n"), 1):
        if line.startswith("#"):
            text = line.lstrip("#")
            comment = (number, text.split()) if _ENTRY.match(text) else comment
        elif line.strip() and not line[0].isspace():
            owner, comment = line.split(), None
        elif line.strip() and not line.lstrip().startswith("#") and comment and len(owner) > 7:
            first, (name, kind, *rest) = comment
            if found and found[-1].first == first:
                found[-1] = replace(found[-1], last=number)
            elif name != owner[0]:
                label = f"{owner[0]}/{owner[1]}"
                found.append(Orphan(name, kind, rest[5], label, owner[7], first, number))
    return found


def replaced_value(main: str, name: str) -> str:
    """Return the value in main.cf that the last assignment of a parameter replaces, or "".

    Lines that repeat the last value are ignored.
    """
    found = [value for other, value in assignments(main) if other == name]
    return next((each for each in reversed(found) if each != found[-1]), "")


def assignments(main: str) -> tuple[tuple[str, str], ...]:
    """Return the names and values in main.cf as they are written, in the order of the lines."""
    text = re.sub(r"\n([ \t]*(#.*)?\n)*[ \t]+(?=\S)", " ", main)
    return tuple(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))


def corrections(main: str, master: str) -> list[Correction]:
    """Return the corrections that the text of main.cf and of master.cf need."""
    marks = [
        Correction(
            file,
            f"^{_MARK}",
            "",
            f"{file} begins with a byte order mark (U+FEFF); no Postfix program can read it",
        )
        for file, text in ((MAIN, main), (MASTER, master))
        if text.startswith(_MARK)
    ]
    found = [*marks, *_in_main(main.removeprefix(_MARK)), *_in_master(master.removeprefix(_MARK))]
    return list(dict.fromkeys(found))


def _in_main(text: str) -> Iterator[Correction]:
    name, is_empty = "", False
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = re.match(r"([^=\s]+)\s*=", line)
        if start and not line[0].isspace():
            name = start[1]
        elif not line[0].isspace():
            is_value = is_empty and re.fullmatch(rf"(?!{_RESTRICTION})\S+\s*", line)
            yield from [_indented(name, line.strip())] if is_value else _without_equals(line)
        if found := re.match(rf"({_NAME}){_NO_BREAKS}=|({_NAME})[ \t]*={_NO_BREAKS}", line):
            yield _without_no_break(found[1] or found[2])
        is_empty = start is not None and not line[start.end() :].strip()
        if re.search(_BACKSLASH[0], line) and _LISTS.search(name):
            yield Correction(
                MAIN,
                *_BACKSLASH,
                f"the value of {name} contains a backslash at the end of a line; Postfix reads it "
                "as part of the value",
            )


def _without_no_break(name: str) -> Correction:
    """Replace no-break spaces beside the equals sign of a parameter."""
    return Correction(
        MAIN,
        rf"^({name}){_BLANKS}={_BLANKS}",
        r"\1 = ",
        f"a no-break space (U+00A0) is beside the '=' of {name}; Postfix reads it as part of the "
        "name or of the value, so the parameter has no effect or a wrong value",
    )


def _indented(name: str, value: str) -> Correction:
    """Indent a parameter's value that is on a line of its own."""
    return Correction(
        MAIN,
        rf"^({_escaped(value)})[ \t]*$",
        r"    \1",
        f"the value of {name} is on a line that does not begin with a space or tab; no Postfix "
        "program can read main.cf",
    )


def _without_equals(line: str) -> Iterator[Correction]:
    """Correct a line that sets a parameter without an equals sign, or that is not indented."""
    effect = "; no Postfix program can read main.cf"
    if found := re.match(rf"({_NAME})[ \t]*(?::=|[:;])", line):
        yield Correction(
            MAIN,
            rf"^({found[1]})[ \t]*(:=|[:;])[ \t]*",
            r"\1 = ",
            f"the line that sets {found[1]} has no '=' after the name{effect}",
        )
    elif re.match(rf"{_RESTRICTION}[a-z_]*[ \t,]*", line):
        yield Correction(
            MAIN,
            rf"^({_RESTRICTION}[a-z_]*([ \t,][^=]*)?)$",
            r"    \1",
            f"a continuation line of a restriction list does not begin with a space or tab{effect}",
        )
    elif found := re.match(rf"({_NAME})[ \t]+[^= \t]", line):
        yield Correction(
            MAIN,
            rf"^({found[1]})[ \t]+([^= \t])",
            r"\1 = \2",
            f"the line that sets {found[1]} has no '=' after the name{effect}",
        )


def _in_master(text: str) -> Iterator[Correction]:
    is_first = True
    if wrong := _entries_with_wrong_dash(text):
        entries = (
            f"the entries {', '.join(wrong)} have" if wrong[1:] else f"the entry {wrong[0]} has"
        )
        yield Correction(
            MASTER,
            *_WRONG_DASH,
            f"{entries} another dash instead of the hyphen in -o; the service does not run, so its "
            "mail is deferred or refused",
            excluded=r"^[ \t]*#|argv=",
        )
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        line = re.sub(*_WRONG_DASH, line)  # noqa: PLW2901
        if re.search(_BACKSLASH[0], line):
            yield Correction(
                MASTER,
                *_BACKSLASH,
                "a backslash at the end of a line is an argument in master.cf; a line that begins "
                "with a blank or tab already continues the entry",
            )
        if re.search(_JOINED[0], line) and "argv=" not in line:
            yield Correction(MASTER, *_JOINED, excluded=r"^[ \t]*#|argv=")
        if not line[0].isspace():
            if re.search(_UNINDENTED[0], line) and not is_first:
                yield Correction(
                    MASTER,
                    *_UNINDENTED,
                    "a continuation line of an entry does not begin with a space or tab; no mail "
                    "is received or delivered",
                )
            else:
                yield from _columns(line)
            is_first = False


def _entries_with_wrong_dash(text: str) -> list[str]:
    """Return the names of the entries that contain a dash instead of a hyphen before `o`."""
    found: dict[str, None] = {}
    name = ""
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            is_wrong = re.search(_WRONG_DASH[0], line) and "argv=" not in line
            if not line[0].isspace() and not re.match(_WRONG_DASH[0], line):
                name = line.split()[0]
            found |= {name: None} if is_wrong else {}
    return list(filter(None, found))


def _columns(line: str) -> Iterator[Correction]:
    """Correct an entry with a wrong type, or with one column too few or too many."""
    fields = line.split()
    name, rest = fields[0], fields[1:]
    if not rest:
        return  # postconf(1) reports this line
    effect = "; no mail is received or delivered"
    if rest[0] not in _TYPES and _is_row(rest[:5], "unix"):
        is_inet = ":" in name or name.isdigit() or name in _PORTS
        kind = "inet" if is_inet else "unix"
        yield _inserted([name], kind, f"the entry {name} has no type{effect}")
        return
    if rest[0] not in _TYPES:
        kinds = difflib.get_close_matches(rest[0].lower(), _TYPES, 1, 0.7)
        if kinds:
            start = rf"^({_escaped(name)}[ \t]+){_escaped(rest[0])}([ \t])"
            problem = f"the entry {name} has the unknown type {rest[0]!r}{effect}"
            yield Correction(MASTER, start, rf"\1{kinds[0]}\2", problem)
        return
    kind, row = rest[0], []
    for field in rest[1:]:
        if not re.fullmatch(r"[yn-]|[0-9]+\??", field):
            break
        row.append(field)
    command = rest[len(row) + 1] if len(rest) > len(row) + 1 else ""
    # Any other word could be a mistyped column.
    if len(row) == len(_ROW) or not re.fullmatch(r"[a-z]{3}[a-z-]*", command):
        return
    starts = _rows(command, kind, {at: [*row[:at], "-", *row[at:]] for at in range(5)})
    if len(starts) == 1:
        at = next(iter(starts))
        problem = f"the entry {name} has one column too few{effect}"
        yield _inserted([name, kind, *row[:at]], "-", problem)
    removed = _rows(command, kind, {at: [*row[:at], *row[at + 1 :]] for at in range(len(row))})
    if len(removed) == 1:
        at = next(iter(removed))
        start = r"[ \t]+".join(map(_escaped, [name, kind, *row[:at]]))
        problem = f"the entry {name} has one column too many; the service does not run"
        yield Correction(MASTER, rf"^({start})[ \t]+{_escaped(row[at])}([ \t])", r"\1\2", problem)


def _rows(command: str, kind: str, rows: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
    """Return the distinct valid rows.

    If there are several, return only those that `_is_usual` accepts.
    """
    valid = {tuple(row): at for at, row in rows.items() if _is_row(row, kind)}
    usual = {row: at for row, at in valid.items() if _is_usual(row, command)}
    return {at: row for row, at in (usual if len(valid) > 1 else valid).items()}


def _is_usual(row: Sequence[str], command: str) -> bool:
    if command == "spawn":
        return list(row[:3]) == ["n", "n", "n"] and row[4] != "-"
    return row[1] == "-" and row[2] in ("y", "n")


def _is_row(row: Sequence[str], kind: str) -> bool:
    """Return whether the five columns have values that occur in the recipe or a default file."""
    if len(row) != 5 or (kind == "inet" and (row[0] != "n" or row[3] != "-")):
        return False
    flags, wakeup, limit = row[:3], row[3], row[4]
    is_wakeup = re.fullmatch(r"-|0|(60|300|1000)\??", wakeup)
    return all(each in ("y", "n", "-") for each in flags) and bool(
        is_wakeup and re.fullmatch(r"-|[0-9]+", limit)
    )


def _inserted(before: Sequence[str], word: str, problem: str) -> Correction:
    start = r"[ \t]+".join(map(_escaped, before))
    return Correction(MASTER, rf"^({start})([ \t])", rf"\1 {word}\2", problem)


def _escaped(word: str) -> str:
    return re.sub(r"([][.*+?^$|(){}/\\])", r"\\\1", word)
