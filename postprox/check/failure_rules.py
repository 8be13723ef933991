"""Lines of a filter script that fail or take too long.

Rule: each check is a pure function.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from ..core.options import Options
from . import fixes
from .facts import ProgramFacts
from .findings import Fault
from .routes import Proxy
from .scripts.mistake import Kind, Mistake


def failures(proxy: Proxy, wanted: Options, seen: ProgramFacts, effect: str) -> Iterator[Fault]:
    """Report the lines of a script that fail or that take too long."""
    for found in seen.mistakes:
        explain = _FAILURES.get(found.kind)
        explained = explain(proxy, found, wanted) if explain else None
        if explained is None:
            continue
        problem, edit = explained
        edit = edit or f"sed -i {shlex.quote(found.correction)} {shlex.quote(seen.path)}"
        yield Fault(
            "time-limit" if found.kind == Kind.SLEEP else "filter",
            proxy.where,
            f"line {found.number} of the filter {seen.path} "
            f"{problem.replace('EFFECT', effect)}: {found.line}",
            (fixes.run(edit),),
        )


#: A problem and the command that corrects it. EFFECT in the problem stands for the effect on mail.
#: If the command is "", the correction of the mistake is used.
_Explained = tuple[str, str] | None


def _reads_text(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    fate = "is deferred" if wanted.reject else "passes"
    problem = "reads the message as UTF-8 text; a message with other octets makes the filter fail, "
    return f"{problem}so such mail {fate}", ""


def _imports(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    if found.correction:
        version = found.correction.split("/python")[1].partition("/")[0]
        place = f"/usr/local/lib/python{version}/dist-packages/"
        problem = f"imports the module {found.path}, which only root can import "
        problem += f"({found.correction}); the filter fails, and EFFECT"
        return problem, f"cp -r {shlex.quote(found.correction)} {place}"
    return (
        f"imports the module {found.path}, which is not installed; the filter fails, and EFFECT",
        f"apt-get install -y python3-{found.path.lower()}",
    )


def _writes_temporary(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    if proxy.unit and proxy.unit.private_tmp:
        return None
    script = f"s,^([^#]\\S*\\s+{found.path}\\s.*mode=)[0-7]+,\\11777,"
    return (
        f"creates a file in {found.path}, where user {proxy.user} cannot write; EFFECT",
        f"chmod 1777 {found.path}; sed -E -i '{script}' /etc/fstab",
    )


def _enters(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    state = "cannot be entered by" if found.correction else "does not exist for"
    target = shlex.quote(found.path)
    edit = f"chmod a+x {target}"
    if not found.correction:
        edit = f"install -d -o {shlex.quote(proxy.user)} -m 0700 {target}"
    return (
        f"enters {found.path}, which {state} user {proxy.user}; the filter fails, and EFFECT",
        edit,
    )


def _reads_patterns(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    target = shlex.quote(found.path)
    problem = f"reads patterns from {found.path}, which has "
    if found.correction == "blank":
        problem += "an empty line; an empty pattern matches everything, so the filter treats all "
        return f"{problem}mail alike", f"sed -i 's/\\r$//;/^[[:space:]]*$/d' {target}"
    problem += (
        "lines that end with CR LF, so the patterns match nothing that the filter should find"
    )
    return problem, f"sed -i 's/\\r$//' {target}"


def _sleeps(proxy: Proxy, found: Mistake, wanted: Options) -> _Explained:
    if int(found.path) < wanted.timeout:
        return None
    limit = f"{wanted.timeout:g} s"
    return f"waits {found.path} s, but the filter may run for at most {limit} (-t); EFFECT", ""


_FAILURES: dict[str, Callable[[Proxy, Mistake, Options], _Explained]] = {
    Kind.TEXT: _reads_text,
    Kind.MODULE: _imports,
    Kind.CLOSED: _writes_temporary,
    Kind.DIRECTORY: _enters,
    Kind.PATTERNS: _reads_patterns,
    Kind.SLEEP: _sleeps,
}
