"""Problems with the filter's file, interpreter and contents.

Rule: each check is a pure function.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from ..core.options import Options
from . import fixes, sandbox
from .facts import ProgramFacts, ProxyFacts
from .findings import Fault
from .fixes import Edit
from .proxy_rules import cannot_run
from .routes import Proxy

#: The interpreter for each file name extension.
_LANGUAGES = {".py": "python3", ".pl": "perl", ".rb": "ruby"}


def no_filter(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a proxy without a filter."""
    if not (wanted.command or "").strip():
        yield Fault(
            "no-filter",
            proxy.where,
            "-c is missing; all mail passes unfiltered",
            (fixes.add_arguments(proxy, "-c", "/usr/local/bin/mail-filter"),),
        )


def filter_command(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a missing or non-executable filter."""
    seen = facts.filter
    if seen is None:
        return
    effect = _effect(wanted)
    if proxy.unit and (setting := sandbox.hiding_setting(proxy.unit, seen.path)):
        yield Fault(
            "filter",
            proxy.where,
            f"the unit hides the filter {seen.path} ({setting}); the filter cannot run, and "
            f"{effect}",
            (fixes.show(proxy.unit, setting),),
        )
    for problem, edit in cannot_run(seen, proxy.user):
        yield Fault(
            "filter", proxy.where, f"{problem}; the filter cannot run, and {effect}", (edit,)
        )
    if seen.executable:
        yield from _text(proxy, seen, effect)


def _effect(wanted: Options) -> str:
    return "all mail is deferred" if wanted.reject else "all mail passes unfiltered"


def _text(proxy: Proxy, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report only the first problem in the filter's contents, as that problem can cause others."""
    path = shlex.quote(seen.path)
    if seen.has_mark:
        yield Fault(
            "byte-order-mark",
            proxy.where,
            f"the filter {seen.path} begins with a byte order mark, so its first line has no "
            f"effect; {effect}",
            (fixes.run(f"LC_ALL=C sed -i '1s/^\\xef\\xbb\\xbf//' {path}"),),
        )
    elif seen.has_crlf:
        yield Fault(
            "line-ends",
            proxy.where,
            f"the filter {seen.path} has CR LF line endings; it cannot run, and {effect}",
            (fixes.run(f"sed -i 's/\\r$//' {path}"),),
        )
    elif seen.interpreter_executable is False:
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} requires the interpreter {seen.interpreter!r}, "
            f"which user {proxy.user} cannot execute; {effect}",
            (_first_line(seen),),
        )
    elif not seen.interpreter and (name := _LANGUAGES.get(PurePosixPath(seen.path).suffix)):
        yield Fault(
            "interpreter",
            proxy.where,
            f"the filter {seen.path} has no #! line and is run by sh(1); {effect}",
            (fixes.run(f"sed -i '1i #!/usr/bin/env {name}' {path}"),),
        )
    elif seen.syntax_error:
        yield Fault(
            "syntax",
            proxy.where,
            f"the filter {seen.path} has a syntax error; {effect}: {seen.syntax_error}",
            (fixes.run(f"{seen.interpreter or '/bin/sh'} -n {path}"),),
        )


def _first_line(seen: ProgramFacts) -> Edit:
    """Return a command that adds -S to `#!/usr/bin/env NAME OPTION`.

    For any other first line, the command only shows the line.
    """
    path = shlex.quote(seen.path)
    if " " in seen.interpreter:
        return fixes.run(f"sed -i '1s|/env |/env -S |' {path}")
    return fixes.run(f"head -n 1 {path} | cat -A")


def command_syntax(proxy: Proxy, wanted: Options, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter command that the shell cannot parse."""
    if facts.command_error:
        yield Fault(
            "syntax",
            proxy.where,
            f"sh(1) cannot parse the filter command (-c): {facts.command_error}; {_effect(wanted)}",
            (fixes.run(f"/bin/sh -n -c {shlex.quote(wanted.command or '')}"),),
        )


def filter_open(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report a filter that every user can change or replace."""
    if facts.filter and facts.filter.open_paths:
        paths = " ".join(map(shlex.quote, facts.filter.open_paths))
        yield Fault(
            "filter-open",
            proxy.where,
            f"every user can change or replace the filter {facts.filter.path} (mode of {paths})",
            (fixes.run(f"chmod o-w {paths}"),),
        )
