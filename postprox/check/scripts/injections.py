"""Finds lines that insert text from the SMTP session into a command.

Rule: the functions depend only on the text and evaluate nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lines import Code, is_bare
from .mistake import Kind, Mistake, replaced

_COMMAND = re.compile(
    r"(?<![\w.-])(?P<shell>(?:/\S*/)?(?:sh|bash|dash)\s+(?:-\w+\s+)*-\w*c\s+)"
    r"\"(?P<text>(?:[^\"\\]|\\.)*)\""
)
_EVAL = re.compile(r"(?:^|[;&|{]|\b(?:then|do|else)\b)\s*eval\s+(?P<rest>[^;&|]*)")
#: An assignment without a command substitution. A command substitution may remove unsafe
#: characters.
_ASSIGNED = re.compile(r"(?:^|[;&|]\s*|\blocal\s+)(\w+)=(\"[^\"()`]*\"|[^\s;&|()`]+)(?=\s|;|$)")
#: An assignment in the text of eval. In single quotes, only eval expands the variables.
_EVALUATED = re.compile(r"\"(?P<text>\w+=[^\s\"'`\\$;&|()]*\$\{?\w+\}?)\"")


def mistakes(code: Code) -> Iterator[Mistake]:
    """Yield a line that makes text from the SMTP session part of a command."""
    remote = "|".join(_remote_variables(code))
    variable = rf"(?<!\\)\$(?:(?:{remote})\b|\{{(?:{remote})\}})"
    for number, line in code:
        found = _COMMAND.search(line)
        if found and is_bare(line, found.start()) and re.search(variable, found["text"]):
            yield Mistake(Kind.INJECTION, line, number, replaced(number, found[0], _as_text(found)))
        elif (found := _EVAL.search(line)) and re.search(variable, found["rest"]):
            if found["rest"].startswith("'"):
                continue  # eval expands the variables only once
            text = _EVALUATED.fullmatch(found["rest"].strip())
            new = replaced(number, f'"{text["text"]}"', f"'{text['text']}'") if text else ""
            yield Mistake(Kind.INJECTION, line, number, new)


def _remote_variables(code: Code) -> list[str]:
    """Return the variables with text from the SMTP session, except those that the script tests."""
    names = ["HELO", "SENDER", "RECIPIENT", "RECIPIENTS", "CLIENT_NAME"]
    for _, line in code:
        for name, value in _ASSIGNED.findall(line):
            if re.search(rf"\$(?:({'|'.join(names)})\b|\{{({'|'.join(names)})\}})", value):
                names.append(name)
    text = "\n".join(line for _, line in code)
    return [
        name
        for name in names
        if not re.search(rf"case\s+\"?\$\{{?{name}\b|\$\{{?{name}\}}?\"?\s+=~", text)
    ] or ["^"]


#: The variables that the proxy exports to the filter.
_EXPORTED = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "RECIPIENTS", "RECIPIENTCOUNT", "HELO"),
    *("REMOTEIP", "CLIENT_NAME", "QUEUE_ID", "PATH"),
)


def _as_text(found: re.Match[str]) -> str:
    """Return a command in which the inner shell expands the variables, so that it does not execute
    their values.
    """
    text = re.sub(r"\\([\"$`\\])", r"\1", found["text"]).replace("'", "'\"'\"'")
    names = dict.fromkeys(re.findall(r"(?<!\\)\$\{?([A-Za-z_]\w*)", found["text"]))
    own = "".join(f'{name}="${name}" ' for name in names if name not in _EXPORTED)
    arguments = ' sh "$@"' if re.search(r"(?<!\\)\$\{?[1-9@*]", found["text"]) else ""
    return f"{own}{found['shell']}'{text}'{arguments}"
