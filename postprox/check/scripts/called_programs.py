"""Finds the programs that a shell script runs.

Rule: the functions depend only on the text and evaluate nothing. If a construct of the script is
not supported, or a program may be optional, the program is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import shell_command

#: Constructs that this module does not parse, or that can define or find commands.
_UNSUPPORTED = re.compile(
    r"<<|\[\[|\(\(|=\(|`|\bPATH=|\b(alias|eval|source|hash|uname|OSTYPE|chroot|trap)\b"
    r"|(^|\s)\.\s",
    re.MULTILINE,
)
_FUNCTION = re.compile(r"(?:^|[;&|{]|\bfunction\b)\s*(?:function\s+)?([\w.-]+)\s*\(\s*\)", re.M)
_KEYWORDS = ("if", "then", "else", "elif", "fi", "while", "until", "do", "done", "!", "{", "}")
#: Commands whose arguments are only text.
_PRINTERS = ("echo", "printf", "logger")
_GUARDS = ("command", "type", "which", "test", "[")
_NAME = re.compile(r"/?[A-Za-z_][\w./+-]*")
_OPERATORS = ("&&", "||", ";;", "|&", ";", "&", "|", "\n", "(", ")")


@dataclass(frozen=True)
class Command:
    """A program that a script runs, and the number of its line."""

    program: str
    line: int
    #: True if the exit status of the program is the exit status of the script.
    is_result: bool = False
    #: False if this is a script file that the command passes to an interpreter.
    is_direct: bool = True


@dataclass
class _Simple:
    """The words of a simple command, and the operator after them. An unknown word is ""."""

    words: list[str]
    line: int
    depth: int
    end: str = ""


def commands(script: str) -> list[Command]:
    """Return the programs that a shell script needs."""
    code = "\n".join("" if line.lstrip().startswith("#") else line for line in script.split("\n"))
    if _UNSUPPORTED.search(code):
        return []
    try:
        simple = list(_Parser(code).simple_commands())
    except (IndexError, ValueError):
        return []
    functions = set(_FUNCTION.findall(code))
    mentioned = {
        word
        for each in simple
        if each.words[0] not in _PRINTERS
        for word in each.words[1:]
        if each.words[0] in _GUARDS or not _runs(each.words, word)
    }
    is_guarded = re.search(r"\b(command\s+-[vV]|type|which)\s|\s-x\s", code)
    found = []
    for number, each in enumerate(simple):
        following = simple[number + 1].words[0] if number + 1 < len(simple) else ""
        before = simple[number - 1].end if number else ""
        is_handled = each.end == "||" and following not in _FAILURES
        if each.words[0] in _GUARDS or is_handled or before == "||":
            continue  # the script might not need the program
        if is_guarded and (each.depth or before == "&&"):
            continue
        is_last = number == len(simple) - 1 and each.depth == 0 and each.end in ("", "\n", ";")
        for position, target in enumerate(shell_command.targets_of_words(each.words)):
            if (
                _NAME.fullmatch(target)
                and target.count("/") == target.startswith("/") * target.count("/")
                and target not in functions
                and target not in mentioned
            ):
                is_result = each.depth == 0 and (is_last or each.words[0] == "exec")
                found.append(Command(target, each.line, is_result, is_direct=position == 0))
    return found


#: The commands after `||` that end the script with an error or report the error.
_FAILURES = ("exit", "return", "{", *_PRINTERS)


def _runs(words: list[str], word: str) -> bool:
    return word in shell_command.targets_of_words(words)


class _Parser:
    """Splits a script into its simple commands."""

    def __init__(self, text: str) -> None:
        self._text = text + "\n"
        self._at = 0
        self._depth = 0
        self._is_negated = False
        #: For each open `case`, whether a pattern follows.
        self._cases: list[bool] = []

    def simple_commands(  # noqa: C901, PLR0912
        self, closing: str = ""
    ) -> Iterator[_Simple]:
        """Yield the simple commands up to the closing parenthesis, or up to the end."""
        inner: list[_Simple] = []
        words: list[str] = []
        start = self._at
        while self._at < len(self._text):
            operator = next((o for o in _OPERATORS if self._text.startswith(o, self._at)), "")
            character = self._text[self._at]
            if operator:
                is_pattern = bool(self._cases and self._cases[-1])
                if operator == ")" and is_pattern:
                    self._cases[-1] = False
                    words = []
                elif not is_pattern:
                    yield from self._ended(words, start, operator)
                    words = []
                    yield from inner
                    inner = []
                if operator == ")" and closing and not is_pattern:
                    return
                self._depth += 0 if is_pattern else (operator == "(") - (operator == ")")
                if operator == ";;" and self._cases:
                    self._cases[-1] = True
                self._at += len(operator)
            elif character in " \t":
                self._at += 1
            elif character == "\\" and self._text[self._at + 1] == "\n":
                self._at += 2
            elif character == "#":
                self._at = self._text.index("\n", self._at)
            elif character in "<>":
                self._at += 1
                while self._text[self._at] in "<>&| \t":
                    self._at += 1
                self._word(inner)
            else:
                start = start if words else self._at
                word = self._word(inner)
                if self._text[self._at] in "<>" and re.fullmatch("[0-9]", word):
                    continue
                if self._cases and self._cases[-1]:
                    if word == "esac":
                        self._cases.pop()
                        self._depth -= 1
                    continue
                words = self._with(words, word)
        if closing or self._cases:
            raise ValueError

    def _with(self, words: list[str], word: str) -> list[str]:
        """Return the words of the current command. Keywords begin a new command."""
        if words:
            if words[0] == "case" and word == "in":
                self._cases.append(True)
                self._depth += 1
                return []
            return [*words, word]
        if word == "esac" and self._cases:
            self._cases.pop()
            self._depth -= 1
            return []
        self._is_negated |= word == "!"
        self._depth += word in ("if", "while", "until", "for", "{")
        self._depth -= word in ("fi", "done", "}")
        return [] if word in _KEYWORDS and word != "{" else [word] if word != "{" else []

    def _ended(self, words: list[str], start: int, operator: str) -> Iterator[_Simple]:
        if words and words[0] not in ("for", "case", "function"):
            line = self._text.count("\n", 0, start) + 1
            yield _Simple(words, line, self._depth + self._is_negated, operator)
        self._is_negated = False

    def _word(self, inner: list[_Simple]) -> str:
        """Return the next word, or "" if it is only known when the script runs."""
        word, is_known = "", True
        while (character := self._text[self._at]) not in " \t\n;&|()<>":
            self._at += 1
            if character == "'":
                end = self._text.index("'", self._at)
                word += self._text[self._at : end]
                self._at = end + 1
            elif character == '"':
                while self._text[self._at] != '"':
                    if self._text[self._at] == "$":
                        is_known = False
                        self._at += 1
                        self._expansion(inner)
                    else:
                        self._at += self._text[self._at] == "\\"
                        word += self._text[self._at]
                        self._at += 1
                self._at += 1
            elif character == "$":
                is_known = False
                self._expansion(inner)
            elif character == "\\":
                word += self._text[self._at]
                self._at += 1
            else:
                word += character
        is_assignment = re.match(r"[A-Za-z_]\w*=", word)
        return word if is_known or is_assignment else ""

    def _expansion(self, inner: list[_Simple]) -> None:
        """Skip an expansion, and collect the commands of a command substitution."""
        if self._text[self._at] == "(":
            self._at += 1
            cases, self._cases = self._cases, []
            self._depth += 1
            inner.extend(self.simple_commands(")"))
            self._depth -= 1
            self._cases = cases
            self._at += 1
        elif self._text[self._at] == "{":
            self._at = self._text.index("}", self._at) + 1
