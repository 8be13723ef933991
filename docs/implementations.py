"""Keep docs/implementations.md: `python3 -m docs.implementations [RESULTS.jsonl ...]`.

Rule: the page is made of what the suite wrote down and nothing else. Each result file given here is
condensed to docs/implementations/NAME.json, then the tables are made of all that is kept there;
``tests/suite/test_docs.py`` tells when they are stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.conformance.clauses import load_clauses
from tests.conformance.paths import SPECIFICATION
from tests.conformance.report.results import Run, read_run

PAGE = Path(__file__).resolve().parent / "implementations.md"
KEPT = PAGE.with_suffix("")
_BEGIN = "<!-- made by python3 -m docs.implementations -->\n"
_END = "<!-- end -->\n"

#: What an administrator wants of such a proxy, and the clauses that say so.
WANTED = {
    "Replies keep the order of pipelined commands": ("relay.order",),
    "No content passes round the filter (STARTTLS, BDAT)": ("relay.ehlo", "relay.refused"),
    "No second message can be smuggled through": ("data.end", "data.no-smuggling"),
    "A message arrives as it was sent": ("data.faithful",),
    "No message is lost, or delivered twice, when a peer is": (
        "data.client-lost",
        "data.upstream-lost",
        "data.final-reply",
    ),
    "A full disk is told the client, and cuts no message short": ("data.spool-error",),
    "What a filter started is ended at its time limit": ("filter.timeout",),
    "The filter sees this transaction's envelope, and no other's": ("filter.env-reset",),
    "Nothing is left on the disk": ("files.gone",),
    "Memory grows neither with a message nor with a line": ("data.size", "relay.long-lines"),
    "No client makes the others wait": ("listen.sessions",),
}

Kept = Mapping[str, Any]


def condensed(run: Run) -> dict[str, Any]:
    """What is kept of *run*."""
    clauses: dict[str, dict[str, Any]] = {}
    for result in run.results:
        if result.level == "may" or result.outcome == "skipped" or result.is_property:
            continue
        for name in result.clauses:
            clause = clauses.setdefault(name, {"judged": 0, "missed": []})
            clause["judged"] += 1
            if result.outcome != "passed":
                clause["missed"].append(f"{result.transcript} [{result.mode}]")
    return {
        "name": run.name,
        "version": run.version,
        "suite": f"{run.suite_version}, {run.transcripts} transcripts",
        "date": run.started.date().isoformat(),
        "verdict": run.verdict.sentence,
        "selection": run.verdict.selection,
        "not judged": [str(unjudged) for unjudged in run.verdict.unjudged],
        "clauses": dict(sorted(clauses.items())),
    }


def keep(run: Run) -> None:
    """Write what is kept of *run*, in the place of an earlier one of the same name."""
    text = json.dumps(condensed(run), indent=1)
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", run.name).strip("-")
    (KEPT / f"{name}.json").write_text(text + "\n", "utf-8")


def all_kept() -> list[Kept]:
    """Everything that is kept, the reference first."""
    kept = [json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))]
    return sorted(kept, key=lambda one: one["name"] != "postprox")


def tables(kept: list[Kept]) -> str:
    """The three tables of the page."""
    heads = [f"{one['name']} {one['version']}" for one in kept]
    clauses = [clause.name for clause in load_clauses(SPECIFICATION.read_text("utf-8"))]
    return "\n".join(
        [
            _table(["implementation", "verdict", "not judged", "suite", "judged on"], _runs(kept)),
            _table(["what is wanted", *heads], _answers(kept, WANTED)),
            _table(["clause", *heads], _answers(kept, {name: (name,) for name in clauses})),
        ]
    )


def _runs(kept: list[Kept]) -> Iterator[list[str]]:
    for one in kept:
        selected = [f"only a selection was tried: {one['selection']}"] if one["selection"] else []
        unjudged = "; ".join([*selected, *one["not judged"]]) or "nothing"
        name = f"{one['name']} {one['version']}"
        yield [name, one["verdict"], unjudged, one["suite"], one["date"]]


def _answers(kept: list[Kept], wanted: Mapping[str, tuple[str, ...]]) -> Iterator[list[str]]:
    for name, clauses in wanted.items():
        yield [name, *(_answer(one, clauses) for one in kept)]


def _answer(one: Kept, clauses: tuple[str, ...]) -> str:
    """So many results as they should be; otherwise those that show it."""
    found = [one["clauses"][name] for name in clauses if name in one["clauses"]]
    judged = sum(clause["judged"] for clause in found)
    missed = list(dict.fromkeys(name for clause in found for name in clause["missed"]))
    if not judged:
        return "\u2014"
    if not missed:
        return f"\u2713 {judged}"
    shown = ", ".join(_link(name) for name in missed[:3])
    return f"\u2717 {len(missed)} of {judged}: {shown}{' ...' if len(missed) > 3 else ''}"


def _link(name: str) -> str:
    transcript, _, mode = name.partition(" ")
    return f"[{transcript.removesuffix('.smtp')}](../transcripts/{transcript}) {mode}"


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_tables(text: str) -> str:
    """*text* with the tables of what is kept between its marks."""
    between = re.compile(rf"(?<={re.escape(_BEGIN)}).*?(?={re.escape(_END)})", re.DOTALL)
    return between.sub(lambda _: tables(all_kept()), text)


def main(arguments: list[str]) -> None:
    """Keep the results in the files *arguments*, and make the page anew."""
    KEPT.mkdir(exist_ok=True)
    for name in arguments:
        keep(read_run(Path(name)))
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
