"""Problems that the filter has with test messages (--run-filter).

Rule: each check is a pure function. A test message may be rejected for a good reason. So a
rejection is reported only if the filter rejects all test messages, or if it rejects a message only
because the sender is empty.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from ..core.options import Options
from ..core.verdict import DISCARD, FAIL, FAIL_OPEN, REJECT
from . import filter_rules, fixes
from .facts import EXECUTED, ProgramFacts, SampleRun, SampleRuns
from .findings import Fault
from .fixes import Edit
from .proxy_rules import set_filter
from .routes import Proxy
from .scripts.mistake import Kind
from .setup import Setup
from .tables import refusing_checks
from .unit import Unit

_TITLES = {
    SampleRun.ORDINARY: "an ordinary test message",
    SampleRun.UNUSUAL: "a test message with 8-bit octets and unusual lines",
    SampleRun.BOUNCE: "a test message with an empty sender (a bounce)",
    SampleRun.HOSTILE: "a test message whose sender contains a shell command",
    SampleRun.SEARCHED: "a test message with a word for which it searches",
    SampleRun.REFUSED: "a test message with a word for which it searches",
    SampleRun.VIRUS: "a test message with the EICAR test virus",
}
#: Messages that are not harmless.
_SUSPECT = (SampleRun.SEARCHED, SampleRun.REFUSED, SampleRun.VIRUS)
#: Error messages of the shell, of common programs and of Python.
_ERROR = re.compile(
    r"no such file|not found|permission denied|syntax error|cannot (open|create|write|connect)"
    r"|can't (open|create|write|connect)|could not (open|connect)|connection refused"
    r"|unbound variable|parameter not set|read-only file system|traceback"
    r"|unexpected|invalid option|unrecognized option|usage:|missing operand",
    re.IGNORECASE,
)
#: A reply that rejects a message.
_REJECTION = re.compile(r"[45][0-9][0-9][ -][45A-Za-z]")
#: The maximum length of quoted text in a problem.
_QUOTED = 150


def sample_faults(
    proxy: Proxy, wanted: Options, seen: SampleRuns, program: ProgramFacts | None = None
) -> Iterator[Fault]:
    """Report the first problem of the filter that the test messages show."""
    found = [*_executed(proxy, seen), *_failed(proxy, wanted, program, seen)]
    found += [
        *_damaged(proxy, program, seen),
        *_passed(proxy, wanted, seen),
        *_never_accepted(proxy, seen),
    ]
    found += [*_refused_bounce(proxy, program, seen), *_errors(proxy, seen)]
    found += [*_accepted(proxy, seen), *_printed(proxy, wanted, program, seen)]
    yield from found[:1]


def refused_fields(setup: Setup, proxy: Proxy, seen: SampleRuns) -> Iterator[Fault]:
    """Report header_checks that refuse a field which the filter itself adds."""
    behind = setup.reinjection_service(proxy)
    if behind is None or "no_header_body_checks" in behind.tokens("receive_override_options"):
        return
    added = {field for run in seen.runs if run.received for field in _new_fields(run)}
    for check in refusing_checks(setup.configuration.main, setup.tables):
        if field := next((each for each in sorted(added) if check.pattern.search(each)), ""):
            yield Fault(
                "inherited",
                proxy.where,
                f"the filter adds the field {_quoted(field)!r}, and header_checks refuses it after "
                f"the filter ({check.path}, line {check.number}); filtered mail is refused or lost",
                (
                    fixes.run(f"sed -i '{check.number}s/^/#/' {shlex.quote(check.path)}"),
                    fixes.run(f"{setup.configuration.postfix} reload"),
                ),
            )


def _new_fields(run: SampleRun) -> set[str]:
    """Return the lines that the filter added to the header."""
    sent, received = (
        text.partition("\r\n\r\n")[0].split("\r\n") for text in (run.sent, run.received or "")
    )
    return set(received) - set(sent)


def _executed(proxy: Proxy, seen: SampleRuns) -> Iterator[Fault]:
    """Report a filter that executes a command in the sender address."""
    for run in seen.runs:
        if run.kind == SampleRun.HOSTILE and EXECUTED in run.errors:
            yield _fault(
                proxy,
                run,
                "the filter executed a shell command in the sender address of a test message; "
                f"any client can run commands as user {proxy.user}",
                name="injection",
            )


def _failed(
    proxy: Proxy, wanted: Options, program: ProgramFacts | None, seen: SampleRuns
) -> Iterator[Fault]:
    """Report test messages for which the filter failed."""
    runs = [run for run in seen.runs if run.verdict in (FAIL, FAIL_OPEN)]
    if not runs:
        return
    run = runs[0]
    mail = "all mail" if run.kind == SampleRun.ORDINARY else "such mail"
    effect = "is deferred (451) until senders give up" if wanted.reject else "passes unfiltered"
    reason = run.reason or run.reply
    if last := _last_line(run.errors):
        reason += f": {last}"
    cause, edits = _cause(proxy, run)
    if run.kind == SampleRun.BOUNCE:
        edits = edits or _with_sender(program)
    yield Fault(
        "filter-run",
        proxy.where,
        f"the filter failed for {_TITLES[run.kind]}{cause}; {mail} {effect}: {_quoted(reason)}",
        edits or (fixes.run(run.command),),
    )


#: An error message of Python, or of a shell, about a file that the unit protects.
_READ_ONLY = re.compile(r"Read-only file system: '(?P<path>/(?:var|srv)/[\w./-]+)'")


_Cause = tuple[str, tuple[Edit, ...]]


def _cause(proxy: Proxy, run: SampleRun) -> _Cause:
    """Return the cause of a failure, with the edits that remove it, if they are known."""
    if proxy.unit and (cause := _cause_in_unit(proxy.unit, run)):
        return cause
    if run.foreign_file:
        path = shlex.quote(run.foreign_file)
        edit = fixes.run(f"chown --reference=$(dirname {path})/ {path}")
        return f", probably because {run.foreign_file} belongs to root", (edit,)
    if run.missing_directory:
        return _missing_directory(proxy, run.missing_directory)
    if run.group and run.group not in filter_rules.groups(proxy):
        edits = filter_rules.with_group(proxy, run.group)
        return f", because it does not run with the group {run.group}", edits
    return "", ()


def _cause_in_unit(unit: Unit, run: SampleRun) -> _Cause | None:
    """Return the setting of a unit that causes a failure, with the edit that changes it."""
    if found := _READ_ONLY.search(run.errors):
        edit = fixes.add_path(unit, "ReadWritePaths", found["path"])
        return f", because the unit does not permit writing to {found['path']}", (edit,)
    if not run.relaxed:
        return None
    ((name, value),) = run.relaxed
    if name == "BindPaths":
        return f" because the unit hides {value}", (fixes.add_path(unit, name, value),)
    edit = fixes.set_setting(unit, name, value)
    return f" because of {name}={unit.setting(name)} in the unit", (edit,)


def _missing_directory(proxy: Proxy, directory: str) -> _Cause:
    """Return a cause of a failure, and a command that creates a directory, also after a reboot."""
    command = f"install -d -o {shlex.quote(proxy.user)} -m 0755 {shlex.quote(directory)}"
    if directory.startswith("/run/"):
        line = shlex.quote(f"d {directory} 0755 {proxy.user} - -")
        file = "/etc/tmpfiles.d/mail-filter.conf"
        command = f"echo {line} >> {file}; systemd-tmpfiles --create {file}"
    return f", because the directory {directory} does not exist", (fixes.run(command),)


#: The kinds of mistakes that are reported only if a test message comes back damaged.
_DAMAGING = (Kind.CUT, Kind.SPILLED)


def _damaged(proxy: Proxy, program: ProgramFacts | None, seen: SampleRuns) -> Iterator[Fault]:
    """Report a test message that the filter damaged."""
    for run in seen.runs:
        if run.received is not None and (damage := _damage(run.sent, run.received)):
            problem = f"the filter damaged {_TITLES[run.kind]}; {damage}"
            edit = fixes.run(run.command)
            causes = (
                [each for each in program.mistakes if each.kind in _DAMAGING] if program else []
            )
            if program and causes:
                script = shlex.quote(causes[0].correction)
                edit = fixes.run(f"sed -i {script} {shlex.quote(program.path)}")
                problem += f"; the cause is probably line {causes[0].number}: {causes[0].line}"
            yield Fault("filter-damage", proxy.where, problem, (edit,))
            return


def _damage(sent: str, received: str) -> str:
    """Return the damage that the filter did to a message, or ""."""
    header, _, body = sent.partition("\r\n\r\n")
    new_header, _, new_body = received.partition("\r\n\r\n")
    if damage := _header_damage(header, new_header, new_body):
        return damage
    if _encoding(header) != _encoding(new_header):
        return ""
    lines = [line for line in body.split("\r\n") if line.strip()]
    kept = set(new_body.split("\r\n"))
    if not any(line in kept for line in lines):
        return "the whole text is lost"
    if lines[-1] not in kept:
        return "the end of the message is lost"
    changed = next((line for line in lines if line not in kept), "")
    return f"lines are lost or changed: {_quoted(changed)}" if changed else ""


def _header_damage(header: str, new_header: str, new_body: str) -> str:
    """Return the damage that the filter did to a header, or ""."""
    lost = [line for line in header.split("\r\n") if line[:1] not in " \t"]
    names = {line.partition(":")[0].lower() for line in new_header.split("\r\n")}
    missing = [line for line in lost if line.partition(":")[0].lower() not in names]
    if any(f"\r\n{line}\r\n" in f"\r\n{new_body}\r\n" for line in missing):
        return f"header fields became part of the body: {missing[0]}"
    if len(missing) == len(lost):
        return "all header fields are lost"
    if not _FIELD.match(new_header):
        return f"its first line is not a header field: {_quoted(new_header.splitlines()[0])}"
    return ""


#: The name of a header field (RFC 5322, section 2.2).
_FIELD = re.compile(r"[!-9;-~]+:")


def _encoding(header: str) -> str:
    """Return the fields that determine how the lines of a body are encoded."""
    fields = re.findall(
        r"(?im)^(?:content-type|content-transfer-encoding):.*(?:\r\n[ \t].*)*", header
    )
    return "".join(sorted(field.lower() for field in fields))


#: A command that only runs programs in sequence, and the operators between them.
_SEQUENCE = re.compile(r"/[\w./-]+(\s+[\w./-]+)*(\s*(;|\|\||&)\s*/[\w./-]+(\s+[\w./-]+)*)+\s*;?")
_OPERATOR = re.compile(r"\s*(?:;|\|\||&)\s*(?=/)")


def _passed(proxy: Proxy, wanted: Options, seen: SampleRuns) -> Iterator[Fault]:
    """Report a message that passes although the filter prints a reply that rejects it."""
    for run in seen.runs:
        reply = next((line for line in run.errors.splitlines() if _REJECTION.match(line)), "")
        if reply and run.received is not None:
            command = wanted.command or ""
            edit = fixes.run(run.command)
            if _SEQUENCE.fullmatch(command):
                edit = set_filter(proxy, wanted, _OPERATOR.sub(" && ", command).rstrip("; "))
            yield Fault(
                "exit-status",
                proxy.where,
                f"the filter rejected {_TITLES[run.kind]} with the reply {_quoted(reply)!r}, but "
                "ended with exit status 0; the message passes",
                (edit,),
            )
            return


def _never_accepted(proxy: Proxy, seen: SampleRuns) -> Iterator[Fault]:
    """Report a filter that rejects or discards all test messages."""
    harmless = [run for run in seen.runs if run.kind not in _SUSPECT]
    runs = [run for run in harmless if run.verdict in (REJECT, DISCARD)]
    if runs and len(runs) == len(harmless):
        verb = "discarded" if runs[0].verdict == DISCARD else "rejected"
        yield _fault(
            proxy,
            runs[0],
            f"the filter {verb} all test messages, which are harmless; all mail may be {verb}: "
            f"{_quoted(runs[0].reply)}",
        )


def _refused_bounce(
    proxy: Proxy, program: ProgramFacts | None, seen: SampleRuns
) -> Iterator[Fault]:
    """Report a filter that rejects a message only because its sender is empty."""
    if seen.handles_empty_sender:
        return
    verdicts = {run.kind: run for run in seen.runs}
    ordinary, bounce = verdicts.get(SampleRun.ORDINARY), verdicts.get(SampleRun.BOUNCE)
    if bounce and ordinary and ordinary.received is not None and bounce.verdict == REJECT:
        yield Fault(
            "filter-run",
            proxy.where,
            f"the filter rejected {_TITLES[bounce.kind]}, but accepted the same message with a "
            f"sender; all delivery reports are refused or lost: {_quoted(bounce.reply)}",
            _with_sender(program) or (fixes.run(bounce.command),),
        )


#: Statements that replace an empty sender in a script, indexed by the name of the interpreter.
_REPLACED_SENDER = {
    **dict.fromkeys(
        ("sh", "dash", "bash"), '[ "$SENDER" != "<>" ] || SENDER=MAILER-DAEMON@mail.invalid'
    ),
    "python3": "import os; os.environ.update(SENDER=os.environ['SENDER'].replace('<>', "
    "'MAILER-DAEMON@mail.invalid'))",
}


def _with_sender(program: ProgramFacts | None) -> tuple[Edit, ...]:
    """Return a command that replaces an empty sender with an address in a script, or ()."""
    name = PurePosixPath(program.interpreter).name if program else ""
    if program is None or name not in _REPLACED_SENDER:
        return ()
    script = shlex.quote(f"1a {_REPLACED_SENDER[name]}")
    return (fixes.run(f"sed -i {script} {shlex.quote(program.path)}"),)


def _accepted(proxy: Proxy, seen: SampleRuns) -> Iterator[Fault]:
    """Report a message that the filter should have rejected, but passed unchanged.

    A filter may instead mark this message with header fields that it does not add to an ordinary
    message.
    """
    marks = [
        _new_fields(run) for run in seen.runs if run.kind == SampleRun.ORDINARY and run.received
    ]
    for run in seen.runs if marks else ():
        if run.received is None or run.kind not in (SampleRun.REFUSED, SampleRun.VIRUS):
            continue
        is_marked = _new_fields(run) != marks[0] or run.word not in run.received
        if run.kind == SampleRun.REFUSED:
            problem = f"the filter searches for {run.word!r} and rejects such mail, but accepted "
            yield _fault(proxy, run, f"{problem}a test message with this word")
        elif not is_marked:
            yield _fault(
                proxy,
                run,
                f"the filter runs a virus scanner, but accepted {_TITLES[run.kind]}; viruses are "
                "delivered",
            )


def _printed(
    proxy: Proxy, wanted: Options, program: ProgramFacts | None, seen: SampleRuns
) -> Iterator[Fault]:
    """Report a filter that prints the changed message instead of writing it to $OUTFILE."""
    run = seen.printed
    if run is None or run.received in (None, run.sent) or _damage(run.sent, run.received or ""):
        return
    redirection = 'exec > "$OUTFILE"'
    edit = set_filter(proxy, wanted, f"{redirection}; {wanted.command}")
    if program and PurePosixPath(program.interpreter).name in ("sh", "dash", "bash"):
        script = shlex.quote(f"1a {redirection}")
        edit = fixes.run(f"sed -i {script} {shlex.quote(program.path)}")
    yield Fault(
        "lost-change",
        proxy.where,
        "the filter prints the changed message to standard output, but the proxy reads changes "
        "only from $OUTFILE; the mail is delivered unchanged",
        (edit,),
    )


def _errors(proxy: Proxy, seen: SampleRuns) -> Iterator[Fault]:
    """Report a test message that passes although a program in the filter reports an error."""
    for run in seen.runs:
        lines = [line for line in run.errors.splitlines() if _ERROR.search(line)]
        if lines and run.verdict not in (REJECT, DISCARD):
            yield _fault(
                proxy,
                run,
                f"the filter ignored an error and passed {_TITLES[run.kind]}; mail may pass "
                f"unfiltered: {_quoted(lines[0])}",
                name="filter-errors",
            )
            return


def _fault(proxy: Proxy, run: SampleRun, problem: str, *, name: str = "filter-run") -> Fault:
    return Fault(name, proxy.where, problem, (fixes.run(run.command),))


def _last_line(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _quoted(text: str) -> str:
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ..."
