"""Finds lines of a Python script that fail for some or all messages.

Rule: the functions depend only on the text and execute nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from .mistake import Kind, Mistake, replaced

#: The encodings in which some octets are invalid.
_STRICT = ("ascii", "us-ascii", "utf-8", "utf8", "utf-8-sig")
_EXCEPTIONS = ("UnicodeDecodeError", "UnicodeError", "ValueError", "Exception", "BaseException")


def text_mode(script: str) -> Iterator[Mistake]:
    """Yield the first line that reads the message as UTF-8, with a correction of all lines."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return
    paths = dict(_paths(tree))
    handled = {id(each) for node in ast.walk(tree) for each in _handled(node)}
    calls = sorted(
        (each for each in ast.walk(tree) if isinstance(each, ast.Call) and _opens_text(each)),
        key=lambda each: each.lineno,
    )
    used = [(each, _name(_opened(each), paths)) for each in calls if id(each) not in handled]
    first = next((each for each, name in used if name == "EMAIL"), None)
    if first is None:
        return
    edits = [_with_octets(script, each) for each, name in used if name]
    line = script.split("\n")[first.lineno - 1].strip()
    yield Mistake(Kind.TEXT, line, first.lineno, ";".join(edits) if all(edits) else "")


def _paths(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each variable that always contains the path in EMAIL or OUTFILE, and the name EMAIL or
    OUTFILE.
    """
    nodes = [each for each in ast.walk(tree) if isinstance(each, ast.Name)]
    stored = [each.id for each in nodes if isinstance(each.ctx, ast.Store)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            variable, name = node.targets[0].id, _name(node.value, {})
            if name and stored.count(variable) == 1:
                yield variable, name


def _name(node: ast.expr | None, paths: dict[str, str]) -> str:
    """Return "EMAIL" or "OUTFILE" if an expression's value is the path in that variable, or ""
    otherwise.
    """
    if isinstance(node, ast.Name):
        return paths.get(node.id, "")
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Path", "pathlib.Path"):
        return _name(node.args[0], paths) if len(node.args) == 1 else ""
    found = re.fullmatch(
        r"(?:os\.)?(?:environ\[|environ\.get\(|getenv\()'(EMAIL|OUTFILE)'[\])]",
        ast.unparse(node) if node else "",
    )
    return found[1] if found else ""


def _opened(call: ast.Call) -> ast.expr | None:
    """Return the path that a call opens."""
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) != "io":
        return call.func.value
    return call.args[0] if call.args else None


def _opens_text(call: ast.Call) -> bool:
    """Return whether a call reads or writes text and fails for octets that are not UTF-8."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    if method not in ("open", "read_text", "write_text"):
        return False
    is_function = ast.unparse(call.func) in ("open", "io.open")
    options = {each.arg: each.value for each in call.keywords}
    if method == "open":
        modes = [*call.args[1 if is_function else 0 :], options.get("mode")]
        mode = modes[0]
        if len(call.args) > (2 if is_function else 1) or not (
            mode is None or (isinstance(mode, ast.Constant) and "b" not in str(mode.value))
        ):
            return False
    elif len(call.args) > (method == "write_text"):
        return False
    encoding = options.get("encoding")
    is_strict = encoding is None or (
        isinstance(encoding, ast.Constant) and str(encoding.value).lower() in (*_STRICT, "none")
    )
    return is_strict and "errors" not in options and None not in options


def _handled(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in the body of a `try` statement that may handle decoding errors."""
    if isinstance(node, ast.Try):
        for handler in node.handlers:
            if handler.type is None or any(
                name in ast.unparse(handler.type) for name in _EXCEPTIONS
            ):
                yield from (each for part in node.body for each in ast.walk(part))


def _with_octets(script: str, call: ast.Call) -> str:
    """Return a script for sed(1) that lets a call keep all octets, or "" if this is not possible.

    With surrogateescape, Python writes invalid octets unchanged.
    """
    old = ast.get_source_segment(script, call) or ""
    if not old.isascii() or "\n" in old or not old.endswith(")"):
        return ""
    options = {each.arg for each in call.keywords}
    more = [] if "encoding" in options else ['encoding="utf-8"']
    more.append('errors="surrogateescape"')
    if re.match(r"(io\.)?open\(|.*\.open\(", old) and "newline" not in options:
        more.append('newline=""')
    inner = old[:-1].rstrip().rstrip(",")
    comma = "" if inner.endswith("(") else ", "
    return replaced(call.lineno, old, f"{inner}{comma}{', '.join(more)})")


def imported(script: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the first part of each module that the script always imports."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name.partition(".")[0]) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


#: Code with which a script may get the message in another way, or run another program that does.
_OTHER_INPUT = re.compile(
    r"EMAIL|argv|argparse|optparse|getopt|fileinput|subprocess|popen|os\.(system|exec|spawn|posix)"
    r"|importlib|runpy|\b(exec|eval|compile)\(|sys\.stdin\s*=|environ(?!\[[\"']|\.get\([\"'])"
)
_OUTPUT = re.compile(
    r"open\(\s*(?P<name>os\.environ\[[\"']OUTFILE[\"']\])(?P<mode>,\s*[\"'][wa]t?[\"'])\s*\)"
)
#: Methods of sys.stdin that do not read.
_OTHER_METHODS = ("buffer", "close", "detach", "fileno", "isatty", "reconfigure")


def standard_input(script: str, library: Collection[str]) -> Iterator[Mistake]:
    """Yield the first line that reads the message from standard input, which is empty.

    `library` contains the modules of the standard library. Other modules may read the message.
    """
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    names = {name for _, name in imported(script)}
    if _OTHER_INPUT.search(_without_text(script, tree)) or not names <= set(library):
        return
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    read = [number for node in ast.walk(tree) if (number := _input_line(node, parents))]
    imports = [
        node.end_lineno or node.lineno
        for node in tree.body
        if isinstance(node, ast.Import) and any(each.name == "sys" for each in node.names)
    ]
    if read and imports:
        line = script.split("\n")[min(read) - 1].strip()
        kind = Kind.LOST if "OUTFILE" in script else Kind.UNREAD
        yield Mistake(kind, line, min(read), _from_email(script, imports[0]))


def _without_text(script: str, tree: ast.Module) -> str:
    """Return a script without its comments and its documentation."""
    text = ast.get_docstring(tree, clean=False) or ""
    kept = script.replace(text, "", 1)
    return "\n".join(line for line in kept.split("\n") if not line.lstrip().startswith("#"))


def _input_line(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> int:
    """Return the line in which the script reads sys.stdin or its buffer, or 0."""
    if not isinstance(node, ast.Attribute) or node.attr not in ("stdin", "buffer"):
        return 0
    parent = parents[node]
    is_other = isinstance(parent, ast.Attribute) and parent.attr in _OTHER_METHODS
    is_input = ast.unparse(node) in ("sys.stdin", "sys.stdin.buffer")
    return node.lineno if is_input and not is_other else 0


def _from_email(script: str, number: int) -> str:
    """Return a script for sed(1) that opens the message as standard input after line `number`."""
    text = 'encoding="utf-8", errors="surrogateescape", newline=""'
    edits = [f'{number}a import os; sys.stdin = open(os.environ["EMAIL"], {text})']
    for other, line in enumerate(script.split("\n"), 1):
        for found in _OUTPUT.finditer(line):
            new = f"open({found['name']}{found['mode']}, {text})"
            edits.append(replaced(other, found[0], new))
    return ";".join(edits[1:] + edits[:1])


def lost_result(script: str) -> Iterator[Mistake]:
    """Yield the call of a function whose result should be the exit status, but is not used."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    last = tree.body[-1] if tree.body else None
    body = last.body if isinstance(last, ast.If) else [last]
    call = body[-1].value if isinstance(body[-1], ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        return
    name = call.func.id
    results = [
        each.value.value
        for each in ast.walk(functions.get(name, ast.Module([], [])))
        if isinstance(each, ast.Return) and isinstance(each.value, ast.Constant)
    ]
    if 1 in results:
        line = script.split("\n")[call.lineno - 1].strip()
        edit = replaced(call.lineno, f"{name}()", f"raise SystemExit({name}())")
        yield Mistake(Kind.RESULT, line, call.lineno, edit)


def _ends(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler raises the exception again or ends the script with status 1."""
    text = ast.unparse(handler)
    return re.search(r"\braise\b|\bexit\(1\)", text) is not None


def caught_exit(script: str) -> Iterator[Mistake]:
    """Yield the line of a bare `except` that catches the SystemExit of a rejection."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try):
            continue
        calls = {ast.unparse(each) for part in node.body for each in ast.walk(part)}
        bare = [each for each in node.handlers if each.type is None and not _ends(each)]
        if bare and calls & {"sys.exit(1)", "exit(1)", "raise SystemExit(1)"}:
            line = script.split("\n")[bare[0].lineno - 1]
            edit = replaced(bare[0].lineno, "except:", "except Exception:")
            yield Mistake(Kind.CAUGHT, line.strip(), bare[0].lineno, edit)
            return


#: A variable of the proxy that a remote host can set.
_REMOTE = re.compile(
    r"environ(?:\.get\(|\[)\s*[\"'](SENDER|RECIPIENTS?|HELO|CLIENT_NAME)[\"'][^\])]*[\])]"
)
_SAFE = '"".join(c if c.isalnum() or c in "@.+=_-" else "_" for c in {})'
_SHELLS = re.compile(r"\bos\.(?:system|popen)\(|\bshell\s*=\s*True\b|\bgetoutput\(")


def shell_commands(script: str) -> Iterator[Mistake]:
    """Yield a line that inserts text from the SMTP session into a shell command."""
    lines = script.split("\n")
    assigned = {}
    for number, line in enumerate(lines, 1):
        if found := re.fullmatch(rf"\s*(\w+)\s*=\s*((?:\w+\.)?{_REMOTE.pattern})\s*", line):
            assigned[found[1]] = (number, found[2])
    for number, line in enumerate(lines, 1):
        if not _SHELLS.search(line) or "quote(" in script or line.lstrip().startswith("#"):
            continue
        names = [name for name in assigned if re.search(rf"\b{name}\b", line)]
        edits = [
            replaced(assigned[name][0], assigned[name][1], _SAFE.format(assigned[name][1]))
            for name in names
        ]
        direct = [each[0] for each in re.finditer(rf"(?:\w+\.)?{_REMOTE.pattern}", line)]
        edits += [replaced(number, each, _SAFE.format(each)) for each in direct]
        if edits:
            is_nested = direct and re.search(r"\bf[\"']", line)  # the quotes cannot be nested
            yield Mistake(Kind.SHELL, line.strip(), number, "" if is_nested else ";".join(edits))
            return
