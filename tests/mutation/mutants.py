"""The mutants of a module, which are small changes that resemble common mistakes.

Rule: the function and the changed text identify a mutant, and a record identifies a change in a
table. Line numbers do not matter, so the list of accepted survivors remains valid after other
changes to the file.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: The replacements for each operator.
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_METHODS = {
    "removeprefix": "removesuffix",
    "removesuffix": "removeprefix",
    "startswith": "endswith",
    "endswith": "startswith",
    "find": "rfind",
    "rfind": "find",
    "partition": "rpartition",
    "rpartition": "partition",
    "rstrip": "lstrip",
    "lstrip": "rstrip",
    "strip": "lstrip",
}
_DROPPED = (
    "upper",
    "lower",
    "strip",
    "rstrip",
    "lstrip",
    "removeprefix",
    "removesuffix",
    "replace",
)
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ANY_ORDER = ("min", "max")
_WORDS_FOR_PEOPLE = (
    *("_log", "write", "write_fault"),
    *("UsageError", "ValueError", "AssertionError", "BadReplyError"),
)


@dataclass(frozen=True)
class Mutant:
    """One change to a module.

    file: the module's path in the package.
    function: the outermost function or method with the change, or "" at module level.
    was, becomes: the statement, its first line, or the table record, before and after.
    source: the source text of the changed module.
    """

    file: str
    function: str
    was: str
    becomes: str
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The identity of the mutant, independent of line numbers."""
        return self.file, self.function, self.was, self.becomes


Change = tuple[ast.AST, str, int | None, object]  # node, field, index in a list, new value


class _Finder(ast.NodeVisitor):
    """Finds changes. `values` contains the constants of the imported modules by module name."""

    def __init__(self, values: dict[str, dict[str, object]]) -> None:
        self.changes: list[tuple[str, ast.stmt | ast.Tuple, Change]] = []
        self._values = values
        self._function: list[str] = []
        self._in_function = False
        self._statement: ast.stmt | ast.Tuple | None = None

    def _change(self, node: ast.AST, field: str, index: int | None, to: object) -> None:
        if self._statement is not None:
            name = ".".join(self._function) if self._function else ""
            self.changes.append((name, self._statement, (node, field, index, to)))

    def generic_visit(self, node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for index, child in _children(value):
                if isinstance(child, ast.stmt):
                    self._visit_statement(node, field, index, child)
                elif isinstance(child, ast.AST):
                    if isinstance(child, ast.expr):
                        self._expression(node, field, index, child)
                    self.visit(child)

    def _visit_statement(
        self, owner: ast.AST, field: str, index: int | None, node: ast.stmt
    ) -> None:
        if _is_typing_only(node) or isinstance(node, ast.Import | ast.ImportFrom):
            return
        if _is_words(node):
            return
        outer, self._statement = self._statement, node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            whole = self._in_function
            if not whole:
                self._function.append(node.name)
                self._in_function = isinstance(node, ast.FunctionDef)
            self.generic_visit(node)
            if not whole:
                self._function.pop()
                self._in_function = False
        else:
            for to in _instead(node, in_function=self._in_function):
                self._change(owner, field, index, to)
            self.generic_visit(node)
        self._statement = outer

    def visit_If(self, node: ast.If) -> None:
        self._condition(node)

    def visit_While(self, node: ast.While) -> None:
        self._condition(node)

    def _condition(self, node: ast.If | ast.While) -> None:
        self._change(node, "test", None, ast.UnaryOp(ast.Not(), node.test))
        self._change(node, "test", None, ast.Constant(value=False))
        if isinstance(node, ast.If):
            self._change(node, "test", None, ast.Constant(value=True))
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._change(node, "body", None, [ast.Raise()])
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        for index in range(len(node.keywords)):
            rest = [keyword for at, keyword in enumerate(node.keywords) if at != index]
            self._change(node, "keywords", None, rest)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Name):
            name = node.func.id
        if len(node.args) == 2 and name not in _ANY_ORDER:
            self._change(node, "args", None, node.args[::-1])
        if name in _WORDS_FOR_PEOPLE:
            return  # texts for people are not mutated
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        """Treat each tuple in a module-level tuple as a record."""
        table = self._statement
        for index, item in enumerate(node.elts):
            self._expression(node, "elts", index, item)
            if isinstance(item, ast.Tuple) and not self._function:
                self._statement = item
            self.visit(item)
            self._statement = table

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Do not change f-strings."""

    def _expression(self, owner: ast.AST, field: str, index: int | None, node: ast.expr) -> None:
        if isinstance(node, ast.Name | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            return
        for to in _other_expressions(node, self._values):
            self._change(owner, field, index, to)


def _children(value: object) -> Iterator[tuple[int | None, object]]:
    if isinstance(value, list):
        yield from enumerate(value)
    else:
        yield None, value


def _is_typing_only(node: ast.stmt) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _is_words(node: ast.stmt) -> bool:
    """Return whether a statement is a docstring, lists names, or assigns a string."""
    value = getattr(node, "value", None)
    word = isinstance(value, ast.Constant) and isinstance(value.value, str)
    if word and isinstance(node, ast.Expr | ast.Assign):
        return True
    names = [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
    return "__slots__" in names or "__all__" in names


def _instead(node: ast.stmt, *, in_function: bool) -> Iterator[ast.stmt]:
    """Yield the replacements of a statement, usually `pass`."""
    if isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(value=ast.Constant(value=None))
    elif isinstance(node, ast.Expr | ast.Raise | ast.Delete | ast.Return):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.AugAssign):
        yield ast.Assign(targets=[node.target], value=node.value)
        yield ast.Pass()
    elif in_function and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        yield ast.Pass()


def _other_expressions(node: ast.expr, values: dict[str, dict[str, object]]) -> Iterator[ast.expr]:
    """Yield the replacements of an expression."""
    find = _KINDS.get(type(node))
    if find is not None:
        yield from find(node)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield from _other_constant(node, values.get(node.value.id, {}))


def _other_constant(node: ast.Attribute, names: dict[str, object]) -> Iterator[ast.expr]:
    """Yield another constant of the same module, such as another reply, limit or state."""
    now = names.get(node.attr)
    alike = [
        n for n, to in names.items() if type(to) is type(now) and (n == node.attr or to != now)
    ]
    if node.attr.isupper() and len(alike) > 1:
        other = alike[(alike.index(node.attr) + 1) % len(alike)]
        yield ast.Attribute(value=node.value, attr=other, ctx=node.ctx)


def _constant(node: ast.expr) -> Iterator[ast.expr]:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool):
        yield ast.Constant(value=not value)
    elif isinstance(value, int):
        yield ast.Constant(value=value + 1)
        yield ast.Constant(value=value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value=value + 1)
    elif isinstance(value, bytes | str):
        more: bytes | str = b"XX" + value if isinstance(value, bytes) else "XX" + value
        yield ast.Constant(value=more)
        if value:
            yield ast.Constant(value=type(value)())


def _compare(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            others = _COMPARISONS[type(operator)]
            if _is_limit(node.left) or _is_limit(node.comparators[-1]):
                others = others[-1:]  # a limit that differs by one is as good as the original
            for other in others:
                operators = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                yield ast.Compare(left=node.left, ops=operators, comparators=node.comparators)


def _is_limit(node: ast.expr) -> bool:
    owner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id == "limits"


def _boolean(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.BoolOp(op=other, values=node.values)
        for at in range(len(node.values)):
            rest = [value for number, value in enumerate(node.values) if number != at]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(op=node.op, values=rest)


def _operation(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        words = any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right))
        other = _ARITHMETIC.get(type(node.op))
        if other is not None and not words:
            yield ast.BinOp(left=node.left, op=other(), right=node.right)
        if isinstance(node.op, ast.Add | ast.BitOr):
            yield node.left
            yield node.right


def _call(node: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(node, ast.Call):
        return
    function = node.func
    if isinstance(function, ast.Attribute):
        if function.attr in _DROPPED:
            yield function.value
        if function.attr in _METHODS:
            renamed = ast.Attribute(
                value=function.value, attr=_METHODS[function.attr], ctx=ast.Load()
            )
            yield ast.Call(func=renamed, args=node.args, keywords=node.keywords)
    elif isinstance(function, ast.Name) and function.id in _FUNCTIONS:
        other = ast.Name(id=_FUNCTIONS[function.id], ctx=ast.Load())
        yield ast.Call(func=other, args=node.args, keywords=node.keywords)


def _conditional(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse


def _negation(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand


def _slice(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Slice):
        if node.lower is not None:
            yield ast.Slice(lower=None, upper=node.upper, step=node.step)
        if node.upper is not None:
            yield ast.Slice(lower=node.lower, upper=None, step=node.step)


_KINDS: dict[type[ast.expr], Callable[[ast.expr], Iterator[ast.expr]]] = {
    ast.Constant: _constant,
    ast.Compare: _compare,
    ast.BoolOp: _boolean,
    ast.BinOp: _operation,
    ast.Call: _call,
    ast.IfExp: _conditional,
    ast.UnaryOp: _negation,
    ast.Slice: _slice,
}


def mutants(package: Path, file: str, values: dict[str, dict[str, object]]) -> Iterator[Mutant]:
    """Yield every mutant of `package`/`file`.

    values: the constants of each imported module.
    """
    tree = ast.parse((package / file).read_text())
    finder = _Finder(values)
    finder.visit(tree)
    seen = {ast.unparse(tree)}
    for function, statement, change in finder.changes:
        was = _first_line(statement)
        old = _put(change)
        text = _unparsed(tree)
        becomes = _first_line(statement) if _holds(statement, change) else _text(change)
        _put((*change[:3], old))
        if text and text not in seen:
            seen.add(text)
            yield Mutant(file, function, was, becomes, text)


def _unparsed(tree: ast.Module) -> str:
    """Return the source of the changed module, or "" if it is not valid Python."""
    text = ast.unparse(ast.fix_missing_locations(tree))
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return ""
    return text


def _put(change: Change) -> object:
    node, field, index, to = change
    if index is None:
        old = getattr(node, field)
        setattr(node, field, to)
    else:
        values = getattr(node, field)
        old, values[index] = values[index], to
    return old


def _holds(statement: ast.stmt | ast.Tuple, change: Change) -> bool:
    """Return whether the change is inside the statement and does not replace it."""
    return any(node is change[0] for node in ast.walk(statement))


def _text(change: Change) -> str:
    to = change[3]
    return ast.unparse(ast.fix_missing_locations(to)) if isinstance(to, ast.AST) else str(to)


def _first_line(statement: ast.stmt | ast.Tuple) -> str:
    """Return the statement or record as one line. A compound statement has only its header."""
    node = ast.fix_missing_locations(copy.copy(statement))
    lines = ast.unparse(node).splitlines()
    return lines[0] if hasattr(statement, "body") else " ".join(line.strip() for line in lines)
