"""The user-visible texts, stored as files. `python3 -m tests.golden` updates the files.

Rule: every change of wording changes a file in this directory. It requires no other test.

- ``help-*.txt``: each command's ``--help`` output, and the proxy's licence and version.
- ``texts-*.txt``: all texts of three or more words except docstrings, such as replies, log lines,
  error messages and findings. ``{}`` stands for a value.
- ``keys-*.txt``: the keys of the JSON documents.
- ``report-*.txt``: a report with its line breaks.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from postprox.check.facts import ProgramFacts, ProxyFacts, SpoolFacts
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.report import Result, as_json, as_text
from postprox.check.routes import spawned_proxies
from postprox.check.rules import judge, unchecked
from postprox.check.setup import Setup

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent

#: For each golden file, the patterns of the modules that contain its texts.
SOURCES = {
    "texts-proxy.txt": ("postprox/*.py", "postprox/core/*.py", "postprox/shell/*.py"),
    "texts-check.txt": ("postprox/check/**/*.py",),
    "texts-rehearse.txt": ("postprox/rehearse/*.py",),
    "texts-suite.txt": ("tests/conformance/**/*.py",),
}
#: For each golden file, the command whose output it contains, without ``python3 -m``.
HELPED = {
    "help-postprox.txt": ("postprox", "--help"),
    "help-postprox-license.txt": ("postprox", "--license"),
    "help-postprox-version.txt": ("postprox", "--version"),
    "help-check.txt": ("postprox.check", "--help"),
    "help-rehearse.txt": ("postprox.rehearse", "--help"),
    "help-conformance.txt": ("tests.conformance", "--help"),
    **{
        f"help-conformance-{word}.txt": ("tests.conformance", word, "--help")
        for word in ("run", "list", "show", "explain", "report", "record", "compare")
    },
}
_SERVICE = "127.0.0.1:25 inet n n n - 1 spawn argv=/postprox up\n"
_WORDS = re.compile(r"[A-Za-z]{2,}")


def texts(patterns: tuple[str, ...]) -> str:
    """Return the texts in the modules that match `patterns`, sorted and without duplicates."""
    files = [
        file for pattern in patterns for file in ROOT.glob(pattern) if "/build/" not in str(file)
    ]
    found = {text for file in files for text in _texts(ast.parse(file.read_text("utf-8")))}
    return "".join(f"{text}\n" for text in sorted(found))


def _texts(tree: ast.AST) -> Iterator[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for text in _visit(tree, docstrings):
        shown = text.encode("unicode_escape").decode("ascii")
        if len(_WORDS.findall(text.replace("{}", ""))) >= 3:
            yield shown


def _visit(node: ast.AST, passed: set[int]) -> Iterator[str]:
    """Yield the constants below `node` except those in `passed`. An f-string is one text."""
    if isinstance(node, ast.JoinedStr):
        parts = (each.value if isinstance(each, ast.Constant) else "{}" for each in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and id(node) not in passed:
        if isinstance(node.value, bytes):
            yield node.value.decode("latin-1")
        elif isinstance(node.value, str):
            yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _visit(child, passed)


def printed(*words: str) -> str:
    """Return a command's output for a width of 80 columns."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "HOME": folder},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    return done.stdout


def rehearsal_keys() -> str:
    """Return the keys in the JSON document that ``postprox-rehearse --json`` prints."""
    return _keys(json.loads(printed("postprox.rehearse", "--json", "-c", "true")))


def check_keys() -> str:
    """Return the keys in the JSON document that ``postprox-check --json`` prints."""
    (proxy,) = spawned_proxies(configuration := parse("", _SERVICE, ""))
    finding = Finding("no-filter", "service", "problem", ("remedy",))
    result = Result(Setup(configuration, [proxy], {}), [finding], ["a file"])
    return _keys(json.loads(as_json(result)))


_MAIN = """\
compatibility_level = 3.6
queue_directory = /var/spool/postfix
smtpd_proxy_filter = 127.0.0.1:10025
smtpd_milters = inet:127.0.0.1:8891
message_size_limit = 10MB
transport_maps = hash:/etc/postfix/transport
"""
_MASTER = """\
smtp inet n - n - - smtpd
10025 inet n - n - 20 spawn user=postprox argv=/usr/local/sbin/postprox -t 100 -c {/f --a 'b c'} \
127.0.0.1:10026
127.0.0.1:10026 inet n - n - - smtpd -o receive_override_options=no_address_mappings
127.0.0.1:10030 inet n n n - 20 spawn user=postprox argv=/usr/local/sbin/postprox up.example
"""
_OVERRIDES = "127.0.0.1:10026/inet/receive_override_options = no_address_mappings\n"


def check_report() -> str:
    """Return the ``postprox-check`` report on a configuration with many kinds of mistakes."""
    configuration = parse(_MAIN, _MASTER.replace("\\\n", ""), _OVERRIDES)
    proxies = list(spawned_proxies(configuration))
    program = ProgramFacts("/usr/local/sbin/postprox", exists=True, executable=True)
    facts = ProxyFacts(True, program, spool=SpoolFacts(exists=True, writable=True, mode=0o1777))
    setup = Setup(configuration, proxies, dict.fromkeys(proxies, facts))
    return as_text(Result(setup, judge(setup), list(unchecked(setup))))


def _keys(document: object, place: str = "") -> str:
    """Return the path of each value in a document, one on each line."""
    if isinstance(document, dict):
        return "".join(_keys(value, f"{place}.{key}") for key, value in document.items())
    if isinstance(document, list):
        return _keys(document[0], f"{place}[]") if document else f"{place}[]\n"
    return f"{place}\n"


PRODUCERS: dict[str, Callable[[], str]] = {
    **{name: partial(texts, patterns) for name, patterns in SOURCES.items()},
    **{name: partial(printed, *words) for name, words in HELPED.items()},
    "keys-rehearse.txt": rehearsal_keys,
    "keys-check.txt": check_keys,
    "report-check.txt": check_report,
}
