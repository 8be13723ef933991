"""Updates docs/implementations.md: `python3 -m docs.implementations [RESULTS.jsonl ...]`.

Rule: the page is generated only from results of the suite. Each result file on the command line is
condensed to docs/implementations/NAME.json. The tables are then generated from all files in that
directory. ``tests/suite/test_docs.py`` checks that they are current.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.format.requirements import specification
from tests.conformance.format.vocabulary import (
    INVARIANT_PREFIX,
    OLD_INVARIANT_PREFIX,
    PROPERTY_PREFIX,
)
from tests.conformance.paths import SUFFIX
from tests.conformance.report.results import Run, read_run
from tests.conformance.run.results import Known, Result
from tests.conformance.run.verdict import STALE

PAGE = Path(__file__).resolve().parent / "implementations.md"
KEPT = PAGE.with_suffix("")
_BEGIN = "<!-- made by python3 -m docs.implementations -->\n"
_END = "<!-- end -->\n"

WISHES = PAGE.with_name("wishes.toml")


@dataclass(frozen=True)
class Wish:
    """A criterion for such a proxy from an administrator's point of view.

    clauses: the clauses that require it.
    broken_by: the first words of reasons that show a violation. A transcript that fails earlier for
        another reason shows nothing about the criterion.
    """

    clauses: tuple[str, ...]
    broken_by: tuple[str, ...]

    def is_broken_by(self, reason: str) -> bool:
        """Return whether a failure for *reason* shows a violation."""
        return reason.startswith((_UNEXPLAINED.reason, *self.broken_by))


def wishes() -> dict[str, Wish]:
    """Return all criteria by their text."""
    read = tomllib.loads(WISHES.read_text("utf-8"))
    return {words: Wish(**{key: tuple(wish[key]) for key in wish}) for words, wish in read.items()}


Kept = Mapping[str, Any]

#: The reason for a failure that the description of the implementation does not explain.
_UNEXPLAINED = Known("unclear", "Nobody has said why.")
#: The prefix of a reason for each kind. A bug has none.
_KINDS = {"bug": "", "unclear": "(unclear) ", "wontfix": "(by choice) "}


def condensed(run: Run) -> dict[str, Any]:
    """Return the data of *run* that is stored."""
    judged = [
        result
        for result in run.results
        if result.level != "may" and result.outcome != "skipped" and not result.is_property
    ]
    clauses = {name: (name,) for name in sorted({name for one in judged for name in one.clauses})}
    return {
        "name": run.name,
        "version": run.version,
        "suite": f"{run.suite_version}, {run.transcripts} transcripts",
        "date": run.started.date().isoformat(),
        "verdict": run.verdict.sentence,
        "selection": run.verdict.selection,
        "not tested": [str(unjudged) for unjudged in run.verdict.unjudged],
        "wanted": {words: granted(judged, wish) for words, wish in wishes().items()},
        "clauses": {name: about(judged, names) for name, names in clauses.items()},
    }


def about(results: list[Result], clauses: tuple[str, ...]) -> dict[str, Any]:
    """Count the results about *clauses*, and return the failed ones by reason."""
    those = [result for result in results if not set(clauses).isdisjoint(result.clauses)]
    missed: dict[str, list[str]] = {}
    for result in those:
        if result.outcome not in ("passed", STALE):
            known = result.divergence or _UNEXPLAINED
            names = missed.setdefault(_KINDS[known.kind] + known.reason, [])
            names.append(f"{result.transcript} [{result.mode}]")
    return {"judged": len(those), "missed": missed}


def granted(results: list[Result], wish: Wish) -> dict[str, Any]:
    """Return the result of `about` for a criterion, and the number of results that show nothing."""
    found = about(results, wish.clauses)
    shows = {why: names for why, names in found["missed"].items() if wish.is_broken_by(bare(why))}
    silent = sum(map(len, found["missed"].values())) - sum(map(len, shows.values()))
    return {"judged": found["judged"] - silent, "missed": shows, "silent": silent}


def bare(reason: str) -> str:
    """Return *reason* without the prefix of its kind."""
    return reason.removeprefix(_KINDS["unclear"]).removeprefix(_KINDS["wontfix"])


def keep(run: Run) -> None:
    """Store the data of *run*, which replaces that of an earlier run with the same name."""
    text = json.dumps(condensed(run), indent=1)
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", run.name).strip("-")
    (KEPT / f"{name}.json").write_text(text + "\n", "utf-8")


def all_kept() -> list[Kept]:
    """Return all stored runs, with the reference first."""
    kept = [json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))]
    return sorted(kept, key=lambda one: one["name"] != "postprox")


def tables(kept: list[Kept]) -> str:
    """Return the tables of the page: verdicts, criteria and clauses."""
    return "\n".join([*_verdicts(kept), *_glance(kept), *_details(kept), *_every_clause(kept)])


def _verdicts(kept: list[Kept]) -> Iterator[str]:
    rows = ([_title(one), one["verdict"], one["suite"], one["date"]] for one in kept)
    yield "## Verdicts\n"
    yield _table(["implementation", "verdict", "suite", "judged on"], rows)
    for one in kept:
        selected = [f"only a selection was tried: {one['selection']}"] if one["selection"] else []
        unjudged = [*selected, *one["not tested"]]
        if unjudged:
            yield f"Not tested with **{_title(one)}**:\n"
            yield "".join(f"- {reason}\n" for reason in unjudged)


def _glance(kept: list[Kept]) -> Iterator[str]:
    rows = (
        [f"[{wanted}](#{_anchor(wanted)})", *(_count(one["wanted"][wanted]) for one in kept)]
        for wanted in wishes()
    )
    yield "## What is wanted of such a proxy\n"
    yield _table(["what is wanted", *map(_title, kept)], rows)


def _details(kept: list[Kept]) -> Iterator[str]:
    """Yield the violations of each criterion by reason, with an example transcript."""
    for wanted in wishes():
        yield f"### {wanted}\n"
        yield "".join(_detail(one, one["wanted"][wanted]) for one in kept)


def _detail(one: Kept, found: Kept) -> str:
    lines = [
        f"    - {reason} {len(names)}, as in {_link(names[0])}\n"
        for reason, names in sorted(found["missed"].items(), key=lambda pair: -len(pair[1]))
    ]
    if found["silent"]:
        lines.append(
            f"    - {found['silent']} more fail for other reasons, and show nothing of it\n"
        )
    return f"- **{_title(one)}** {_count(found)}\n{''.join(lines)}"


def _every_clause(kept: list[Kept]) -> Iterator[str]:
    families = [family.name for family in specification().families]
    nothing: Kept = {"judged": 0, "missed": {}}
    rows = (
        [name, *(_with_example(one["clauses"].get(name, nothing)) for one in kept)]
        for name in families
    )
    yield "## Every clause\n"
    yield _table(["clause", *map(_title, kept)], rows)


def _count(found: Kept) -> str:
    """Return the number of results that satisfy a criterion."""
    missed = sum(len(names) for names in found["missed"].values())
    if not found["judged"]:
        return "\u2014"
    return f"\u2717 {missed} of {found['judged']}" if missed else f"\u2713 {found['judged']}"


def _with_example(found: Kept) -> str:
    most: list[str] = max(found["missed"].values(), key=len, default=[])
    return f"{_count(found)}: {_link(most[0])}" if most else _count(found)


def _title(one: Kept) -> str:
    return f"{one['name']} {one['version']}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


#: The sections that describe results other than transcripts, by the prefix of their names.
_TOLD = {
    INVARIANT_PREFIX: "transcripts.md#true-of-every-transcript",
    OLD_INVARIANT_PREFIX: "transcripts.md#true-of-every-transcript",
    PROPERTY_PREFIX: "conformance.md#properties",
}


def _link(name: str) -> str:
    result, _, mode = name.partition(" ")
    places = [place for prefix, place in _TOLD.items() if result.startswith(prefix)]
    place = places[0] if places else f"../transcripts/{result}"
    return f"[{result.removesuffix(SUFFIX)}]({place}) {mode}"


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_tables(text: str) -> str:
    """Return *text* with the current tables between its markers."""
    between = re.compile(rf"(?<={re.escape(_BEGIN)}).*?(?={re.escape(_END)})", re.DOTALL)
    return between.sub(lambda _: tables(all_kept()), text)


def main(arguments: list[str]) -> None:
    """Store the results in the files *arguments*, and update the page."""
    KEPT.mkdir(exist_ok=True)
    for name in arguments:
        keep(read_run(Path(name)))
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
