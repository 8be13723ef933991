"""Draw the pictures of docs/ from the code: `python3 -m docs.draw`, with graphviz installed.

Rule: each picture consists of a graphviz source (NAME.dot), which is generated here from the code,
and its drawing (NAME.svg). ``tests/unit/test_pictures.py`` checks that they are current, and that
all text is legible when a picture is 400 pixels wide.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import grimp

from postprox.core import states

DOCS = Path(__file__).resolve().parent

_STYLE = """\
    graph [fontname="Helvetica" fontsize=13 nodesep=0.12 ranksep=0.5]
    node [fontname="Helvetica" fontsize=12 shape=box style="rounded,filled" fillcolor="white"]
    node [margin="0.06,0.04" width=0.3]
    edge [color="#444444" arrowsize=0.8]"""
_ASIDE = 'color="#aaaaaa"'

#: The packages of the proxy from top to bottom, with their captions.
ROOMS = {
    "postprox": "postprox/",
    "postprox.shell": "postprox/shell/   uses the operating system",
    "postprox.core": "postprox/core/   makes decisions, without I/O",
}
#: Pairs of modules that keep one package below the other.
_STACKED = [
    ("postprox.__main__", "postprox.shell.listen"),
    ("postprox.help_text", "postprox.shell.listen"),
    ("postprox.shell.system", "postprox.core.session"),
    ("postprox.shell.system", "postprox.core.options"),
]


def states_source() -> str:
    """Return the picture of `states.TRANSITIONS`. The table beside it has the events."""
    return _graph(
        "states",
        *(
            f"    {state} -> {following}{f' [{_ASIDE}]' if following == states.CLOSED else ''}"
            for state, transitions in states.TRANSITIONS.items()
            for following in transitions
        ),
    )


def modules_source() -> str:
    """Return the picture of the proxy's modules and of their imports at run time.

    A dashed arrow is an import on first use. An arrow is omitted if a longer path shows the same
    dependency.
    """
    arrows = _arrows()
    return _graph(
        "modules",
        *(line for room, words in ROOMS.items() for line in _room(room, words)),
        *(
            f'    "{importer}" -> "{imported}"'
            f"{' [style=dashed]' if _is_deferred(importer, imported) else ''}"
            for importer, imports in arrows.items()
            for imported in imports
            if not _shown_by_others(importer, imported, arrows)
        ),
        *(f'    "{above}" -> "{below}" [style=invis]' for above, below in _STACKED),
    )


def modules() -> list[str]:
    """Return the names of the proxy's modules, without those of its tools."""
    tools = ("postprox.check", "postprox.rehearse")
    return sorted(name for name in _imports().modules if not name.startswith(tools))


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("postprox", exclude_type_checking_imports=True, cache_dir=None)


def _room(room: str, words: str) -> Iterator[str]:
    yield f'    subgraph "cluster {room}" {{'
    yield f'        label="{words}" labeljust=l style=filled color="#eeeeee"'
    for name in modules():
        package, _, file = name.rpartition(".")
        if package == room and name not in ROOMS:
            yield f'        "{name}" [label="{file}"]'
    yield "    }"


def _arrows() -> dict[str, list[str]]:
    """Return the imports of each module, without those of packages."""
    return {
        name: sorted(_imports().find_modules_directly_imported_by(name) - ROOMS.keys())
        for name in modules()
    }


def _is_deferred(importer: str, imported: str) -> bool:
    """Whether each import statement is inside a function."""
    file = DOCS.parent.joinpath(*importer.split(".")).with_suffix(".py")
    lines = file.read_text(encoding="utf-8").splitlines()
    details = _imports().get_import_details(importer=importer, imported=imported)
    return all(lines[each["line_number"] - 1].startswith(" ") for each in details)


def _shown_by_others(importer: str, imported: str, arrows: dict[str, list[str]]) -> bool:
    """Whether a longer path leads from `importer` to `imported`."""
    ahead = {*arrows[importer]} - {imported}
    reached: set[str] = set()
    while ahead:
        reached |= ahead
        ahead = {each for name in ahead for each in arrows[name]} - reached
    return imported in reached


def _graph(name: str, *lines: str) -> str:
    return "\n".join((f"digraph {name} {{", _STYLE, *lines, "}", ""))


#: From a sender to the queue, in both modes of docs/setup.md. Each arrow except the queue's is an
#: SMTP session.
_WAYS = {
    "Before the queue: the\\nsender gets the reply": (
        *("sender", "smtpd 25", "postprox 10025", "smtpd 10026", "queue"),
    ),
    "After the queue: a rejection\\nbecomes a bounce": (
        *("sender", "smtpd 25", "queue", "smtp scan", "postprox 10025", "smtpd 10026", "queue"),
    ),
}
_LOOKS = {"sender": ' style="rounded,dashed"', "postprox": ' fillcolor="#d6e8f5"'}
_FILTER = "your filter\\nEMAIL, OUTFILE,\\nexit status"


def topology_source() -> str:
    """Return the picture of the proxy between two Postfix services."""
    lines = ["    nodesep=0.3"]
    for way, (words, stations) in enumerate(_WAYS.items()):
        names = [f"at{way}{number}" for number in range(len(stations))]
        proxy = names[stations.index("postprox 10025")]
        kinds = [station.partition(" ")[0] for station in stations]
        lines += [
            f'    subgraph "cluster {way}" {{',
            f'        label="{words}" color="#cccccc"',
            *(
                f'        {name} [label="{label}"{_LOOKS.get(kind, "")}]'
                for name, label, kind in zip(names, stations, kinds, strict=True)
            ),
            *(f"        {first} -> {second}" for first, second in pairwise(names)),
            f'        filter{way} [label="{_FILTER}" fillcolor="#fff3d6"]',
            f"        {proxy} -> filter{way} [dir=both constraint=false]",
            f"        {{ rank=same; {proxy}; filter{way} }}",
            "    }",
        ]
    return _graph("topology", *lines)


PICTURES: dict[str, Callable[[], str]] = {
    "states": states_source,
    "modules": modules_source,
    "topology": topology_source,
}


def drawn_from(source: str) -> str:
    """Return the marker that identifies the source of a drawing."""
    return f"<!-- drawn from {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def main() -> None:
    """Write all pictures and their sources."""
    for name, make in PICTURES.items():
        source = make()
        drawing = subprocess.run(
            ["dot", "-Tsvg"],  # noqa: S607 - graphviz, wherever it is installed
            input=source,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        (DOCS / f"{name}.dot").write_text(source, encoding="utf-8")
        (DOCS / f"{name}.svg").write_text(drawing + drawn_from(source), encoding="utf-8")


if __name__ == "__main__":
    main()
