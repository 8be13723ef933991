"""The reports: what the files hold is on the page, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.__main__ import main
from tests.conformance.format.requirements import (
    Family,
    Requirement,
)
from tests.conformance.format.vocabulary import OUTCOMES
from tests.conformance.report.matrix import Matrix, build
from tests.conformance.report.render import html, markdown
from tests.conformance.report.results import ResultFileError, parse_run, visible


def requirement(name: str, level: str, sentence: str) -> Requirement:
    harm, source = {"must": ("lost", "manual"), "should": ("stalled", "RFC 5321")}[level]
    return Requirement(name, level, harm, "relay", (source,), sentence)


FAMILIES = [
    Family(
        "cli.host",
        (
            requirement("cli.host-1", "must", "HOST MUST be a name."),
            requirement("cli.host-2", "should", "HOST SHOULD be `[IPv6]:PORT` as well."),
        ),
    ),
    Family(
        "relay.order", (requirement("relay.order-1", "should", "in the **order** of commands"),)
    ),
    Family("filter.reject", (requirement("filter.reject-1", "must", "status 1"),)),
]
TITLE = "Reject: the last line is the reply"
HOSTILE = "<script>alert(1)</script>\"'&"


def header(**changes: Any) -> dict[str, Any]:
    return {
        "type": "header",
        "format": 1,
        "implementation": {"name": "postprox", "version": "1.0", "argv": ["./my postprox", "-v"]},
        "suite": {"transcripts": 1, "version": "7"},
        "started": "2025-11-22T14:31:07+00:00",
        "level": None,
        "modes": ["stdio", "listen"],
    } | changes


def named(name: str) -> dict[str, Any]:
    return header(implementation={"name": name, "version": "1.0", "argv": [name]})


def result(**changes: Any) -> dict[str, Any]:
    return {
        "type": "result",
        "transcript": "filter/reject.smtp",
        "mode": "stdio",
        "title": TITLE,
        "clauses": ["filter.reject"],
        "level": "must",
        "outcome": "passed",
        "seconds": 0.1,
        "message": "",
        "divergence": None,
    } | changes


def footer(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    outcomes = [one["outcome"] for one in results]
    counts = {name: outcomes.count(name) for name in OUTCOMES}
    return {"type": "footer", "exit_status": 0} | counts | changes


def octets(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def whole(*results: dict[str, Any], head: dict[str, Any] | None = None) -> bytes:
    return octets(head or header(), *results, footer(*results))


def matrix(*files: bytes) -> Matrix:
    return build(FAMILIES, [parse_run(file, f"{n}.jsonl") for n, file in enumerate(files)])


class _Page(HTMLParser):
    """The page as a browser sees it: its text, its tags and their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def clause_part(page: str, name: str) -> str:
    """The text of one clause's row and of what it opens to."""
    match = re.search(rf'<details class="clause" id="{re.escape(name)}".*?</details>', page, re.S)
    assert match
    return _Page(match[0]).text


# Reading result files.


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "f:1: no header"),
        (b"hello\n", "f:1: not JSON"),
        (b"hello", "f:1: not JSON"),
        (b"[" * 100_000 + b"\n", "f:1: not JSON"),
        (b"[]\n", "f:1: each line must be a JSON object"),
        (b'{"type": "header", "x": "\xff"}\n', "f:1: not UTF-8 (octet 26)"),
        (octets(result()), "f:1: no header"),
        (octets(header(format=4)), "f:1: format 4; must be 1 or 2 or 3"),
        (octets({"type": "header"}), 'f:1: "format" is missing'),
        (octets(header(started="today")), "f:1: \"started\" is 'today'; must be an ISO 8601"),
        (octets(header(modes="stdio")), "f:1: \"modes\" is 'stdio'; must be a list"),
        (octets(header(suite=3)), 'f:1: "suite" is 3; must be an object'),
        (octets(header(), header()), "f:2: \"type\" is 'header'"),
        (octets(header(), footer(), result()), "f:2: \"type\" is 'footer'"),
        (octets(header(), result(outcome="good")), "f:2: \"outcome\" is 'good'; must be one"),
        (octets(header(), result(level=1)), 'f:2: "level" is 1; must be a string'),
        (octets(header(), result(divergence={"kind": "x"})), "f:2: \"kind\" is 'x'; must be"),
        (
            octets(header(), footer(passed=True)),
            'f:2: "passed" is True; must be a non-negative integer',
        ),
        (octets(header(), result()) + b"{\n" + octets(footer()), "f:3: not JSON"),
        (
            octets(header(), result(), result()),
            "f:3: duplicate result of filter/reject.smtp in mode stdio; the first is in line 2",
        ),
    ],
)
def test_wrong_file_is_refused_by_name_and_line(content: bytes, error: str) -> None:
    with pytest.raises(ResultFileError) as caught:
        parse_run(content, "f")
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("content", "gaps"),
    [
        (whole(result()), ()),
        (octets(header(), result()), ("missing footer; the run did not end",)),
        (octets(header()), ("missing footer; the run did not end",)),
        (
            octets(header(), result()) + b'{"type": "res',
            ("the last line is incomplete", "missing footer; the run did not end"),
        ),
        (
            octets(header(), result(), footer(passed=5)),
            ("the footer counts 5 passed, but there are 1",),
        ),
    ],
)
def test_missing_end_is_a_gap(content: bytes, gaps: tuple[str, ...]) -> None:
    assert parse_run(content, "f").gaps == gaps


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["unasked/stop", "invariant/stop"])
def test_either_name_of_an_invariant_is_read(number: int, name: str) -> None:
    content = octets(header(format=number), result(transcript=name, mode="listen"))
    (read,) = parse_run(content, "f").results
    assert read.transcript == "invariant/stop"
    assert read.is_invariant


def test_last_line_without_line_end_counts() -> None:
    assert parse_run(whole(result()).rstrip(b"\n"), "f").gaps == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é ✓", "plain\n\ttext é ✓"),
        ("a\0b\x1b[2J\r", "a\\x00b\\x1b[2J\\x0d"),
        ("\udc80", "\\udc80"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_what_would_not_show_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


# Counting.


def cell(shown: Matrix, clause: str, column: int = 0) -> dict[str, dict[str, int]]:
    (row,) = (row for group in shown.groups for row in group.rows if row.family.name == clause)
    return {level: dict(tally.counts) for level, tally in row.cells[column].tallies}


def test_each_mode_of_a_transcript_counts() -> None:
    shown = matrix(whole(result(), result(mode="listen", outcome="failed")))
    assert cell(shown, "filter.reject") == {"must": {"passed": 1, "failed": 1}}


def test_result_counts_in_every_clause_it_names() -> None:
    shown = matrix(whole(result(clauses=["filter.reject", "relay.order"], level="should")))
    assert cell(shown, "filter.reject") == {"must": {}, "should": {"passed": 1}}
    assert cell(shown, "relay.order") == {"should": {"passed": 1}}


def test_result_counts_once_in_a_group_and_in_the_totals() -> None:
    families = [Family("cli.a", ()), Family("cli.b", ())]
    shown = build(families, [parse_run(whole(result(clauses=["cli.a", "cli.b"])), "f")])
    assert shown.groups[0].tallies[0].counts == (("passed", 1),)
    assert shown.columns[0].tally().counts == (("passed", 1),)


def test_part_of_a_clause_without_a_result_shows_as_empty() -> None:
    assert cell(matrix(whole(result(clauses=["cli.host"]))), "cli.host") == {
        "must": {"passed": 1},
        "should": {},
    }


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((), "none"),
        (("passed", "failed"), "failed"),
        (("passed", "diverged"), "diverged"),
        (("diverged", "failed"), "failed"),
        (("diverged", "stale"), "diverged"),
        (("passed", "stale"), "stale"),
        (("skipped", "passed"), "passed"),
        (("skipped",), "skipped"),
    ],
)
def test_verdict_of_a_cell(outcomes: tuple[str, ...], verdict: str) -> None:
    results = [result(mode=str(n), outcome=outcome) for n, outcome in enumerate(outcomes)]
    (row,) = matrix(whole(*results)).groups[2].rows
    assert row.cells[0].verdict == verdict


def test_same_words_in_both_modes_are_one_finding() -> None:
    failed = [result(mode=mode, outcome="failed", message="no") for mode in ("listen", "stdio")]
    (finding,) = matrix(whole(*failed)).columns[0].found("failed")
    assert finding.modes == ("stdio", "listen")


def test_skips_for_one_reason_are_one_finding() -> None:
    skips = [result(transcript=name, outcome="skipped", message="no ipv6") for name in "ab"]
    (finding,) = matrix(whole(*skips)).columns[0].found("skipped")
    assert finding.transcripts == ("a", "b")


def test_clause_outside_the_specification_is_shown() -> None:
    shown = matrix(whole(result(clauses=["mime.type"])))
    assert shown.groups[-1].name == "mime"
    assert cell(shown, "mime.type") == {"must": {"passed": 1}}


def test_columns_that_read_the_same_are_told_apart_by_file() -> None:
    shown = matrix(whole(result()), whole(result()))
    assert [column.label for column in shown.columns] == [
        "postprox 1.0 (0.jsonl)",
        "postprox 1.0 (1.jsonl)",
    ]


# Both forms.

RENDERERS = pytest.mark.parametrize("render", [html, markdown], ids=["html", "markdown"])


@RENDERERS
def test_says_what_was_tested_when_and_by_which_suite(render: Any) -> None:
    text = render(matrix(whole(result())))
    for needed in ("postprox 1.0", "my postprox", "2025-11-22 14:31:07 UTC", "1 of 1 transcripts"):
        assert needed in text


@RENDERERS
def test_clauses_keep_the_order_of_the_specification(render: Any) -> None:
    text = render(matrix(whole(result())))
    places = [text.index(clause.name) for clause in FAMILIES]
    assert places == sorted(places)


@RENDERERS
def test_columns_keep_the_order_of_the_files(render: Any) -> None:
    text = render(matrix(whole(head=named("zeta")), whole(head=named("alpha"))))
    assert 0 < text.index("zeta 1.0") < text.index("alpha 1.0")


@RENDERERS
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (octets(header(), result()), "PARTIAL"),
        (whole(result(), head=header(suite={"transcripts": 9, "version": "7"})), "SELECTION"),
    ],
)
def test_what_is_not_the_whole_suite_says_so(render: Any, content: bytes, word: str) -> None:
    assert word in render(matrix(content))


@RENDERERS
@pytest.mark.parametrize("word", ["PARTIAL", "SELECTION", "MIXED"])
def test_whole_run_carries_no_warning(render: Any, word: str) -> None:
    assert word not in render(matrix(whole(result())))


@RENDERERS
def test_different_suites_say_so(render: Any) -> None:
    other = header(suite={"transcripts": 1, "version": "8"})
    assert "MIXED" in render(matrix(whole(result()), whole(result(), head=other)))


@RENDERERS
def test_partial_run_is_never_as_expected(render: Any) -> None:
    content = octets(header(), result(), footer(passed=5))
    assert "as expected" not in render(matrix(content))


@RENDERERS
@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "✓ as expected"), (1, "✗ not as expected"), (2, "✗ the harness failed (exit status 2)")],
)
def test_judgement_is_the_exit_status(render: Any, status: int, words: str) -> None:
    assert words in render(matrix(octets(header(), footer(exit_status=status))))


@RENDERERS
def test_divergence_has_kind_and_reason(render: Any) -> None:
    known = result(outcome="diverged", divergence={"kind": "wontfix", "reason": "it is so"})
    assert re.search(
        r"Known divergence, wontfix:(</strong>|\*\*) it is so", render(matrix(whole(known)))
    )


@RENDERERS
def test_failure_text_stands_once_however_many_clauses_it_names(render: Any) -> None:
    names = [clause.name for clause in FAMILIES]
    failed = result(clauses=names, outcome="failed", message="expected 554\n     got 250")
    assert render(matrix(whole(failed))).count("expected 554\n     got 250") == 1


@RENDERERS
def test_same_files_give_the_same_text(render: Any) -> None:
    files = [whole(result(outcome="failed")), whole(result(), head=named("b"))]
    assert render(matrix(*files)) == render(matrix(*files))


# The page.


def hostile_page() -> str:
    head = header(
        implementation={"name": HOSTILE, "version": HOSTILE, "argv": [HOSTILE]},
        suite={"transcripts": 1, "version": HOSTILE},
        modes=[HOSTILE],
        level=HOSTILE,
    )
    words = {"mode": HOSTILE, "title": HOSTILE, "clauses": [HOSTILE], "message": HOSTILE}
    divergence = {"kind": "bug", "reason": HOSTILE}
    return html(
        matrix(
            octets(
                head,
                *(
                    result(transcript=f"{HOSTILE}{outcome}", outcome=outcome, divergence=d, **words)
                    for outcome, d in (
                        ("passed", None),
                        ("failed", None),
                        ("diverged", divergence),
                        ("stale", divergence),
                        ("skipped", None),
                    )
                ),
            )
        )
    )


def test_hostile_text_is_text_wherever_it_stands() -> None:
    page = _Page(hostile_page())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count(HOSTILE) > 10


def test_failures_of_one_cause_stand_together_and_the_first_tells_all() -> None:
    same = {"outcome": "failed", "cause": "C< 250: it hangs"}
    page = html(
        matrix(
            whole(
                result(transcript="filter/a.smtp", outcome="failed", message="alone"),
                result(transcript="filter/b.smtp", message="b", text="all that was said", **same),
                result(transcript="filter/c.smtp", message="c", text="told already", **same),
            )
        )
    )
    failures = page[page.index('id="failures"') : page.index('id="divergences"')]
    words = ("all that was said", "For the same reason 1 more:", "<pre>c</pre>", "<pre>alone</pre>")
    assert sorted(words, key=failures.index) == list(words)
    assert "told already" not in failures


def test_failure_text_is_shown_as_it_came() -> None:
    message = f"expected  <b>&amp;\n  got     {HOSTILE}"
    page = _Page(html(matrix(whole(result(outcome="failed", message=message)))))
    assert message in page.texts or message in "".join(page.texts)


def test_page_can_be_encoded_whatever_the_messages_hold() -> None:
    page = html(matrix(whole(result(outcome="failed", message="\udcff\0"))))
    assert b"\\udcff\\x00" in page.encode()


def test_page_needs_nothing_beside_itself() -> None:
    page = _Page(html(matrix(whole(result()))))
    assert page.attributes("src") == []
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert "url(" not in "".join(page.texts)


def test_browser_is_told_to_run_the_one_script_and_no_other() -> None:
    page = html(matrix(whole()))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_links_lead_somewhere_and_no_place_is_there_twice() -> None:
    results = [
        result(transcript=outcome, outcome=outcome, clauses=["cli.host", "filter.reject"])
        for outcome in OUTCOMES
    ]
    page = _Page(html(matrix(whole(*results), whole(*results, head=named("b")))))
    places = page.attributes("id")
    assert len(places) == len(set(places))
    assert {link[1:] for link in page.attributes("href")} <= set(places)


def test_clause_opens_to_statement_and_transcripts() -> None:
    failed = result(mode="listen", outcome="failed")
    text = clause_part(html(matrix(whole(result(), failed))), "filter.reject")
    for needed in ("status 1", TITLE, "filter/reject.smtp", "✗ failed listen", "✓ passed stdio"):
        assert needed in text


def test_implementations_stand_side_by_side_in_a_clause() -> None:
    files = whole(result(), head=named("one")), whole(result(outcome="failed"), head=named("two"))
    text = clause_part(html(matrix(*files)), "filter.reject")
    assert text.startswith(
        "filter.reject must one 1.0 ✓ 1 passed two 1.0 ✗ 1 failed filter.reject-1 status 1"
    )
    assert text.endswith("✓ passed stdio ✗ failed stdio")


def test_transcript_only_one_implementation_was_judged_by() -> None:
    only = result(transcript="filter/only.smtp")
    files = whole(result(), only, head=named("one")), whole(result(), head=named("two"))
    text = clause_part(html(matrix(*files)), "filter.reject")
    assert "filter/only.smtp · must ✓ passed stdio — not judged" in text


def test_clause_nobody_judged_says_so() -> None:
    text = clause_part(html(matrix(whole(result()))), "cli.host")
    assert "— not judged" in text
    assert text.endswith("No transcript judged this clause.")


def test_markdown_of_a_statement_becomes_html() -> None:
    page = html(matrix(whole(result())))
    assert "SHOULD be <code>[IPv6]:PORT</code> as well" in page
    assert "the <strong>order</strong> of" in page


def test_partial_page_says_so_in_title_banner_card_and_heads() -> None:
    page = html(matrix(octets(header(), result())))
    assert "<title>PARTIAL: postprox conformance" in page
    assert '<p class="alert"><strong>PARTIAL</strong> The results of postprox 1.0' in page
    assert page.count('<span class="badge partial">PARTIAL</span>') == 3


def test_filters_know_the_levels_of_rows_and_failures() -> None:
    failed = result(clauses=["cli.host"], level="should", outcome="failed")
    page = html(matrix(whole(failed)))
    assert 'id="cli.host" data-levels="must should" data-failed="should"' in page
    assert 'id="filter.reject" data-levels="must" data-failed=""' in page


def test_controls_stay_away_without_a_script() -> None:
    assert '<form id="controls" hidden>' in html(matrix(whole()))


# The Markdown.


def test_markdown_cells_count() -> None:
    files = (
        whole(result(), result(mode="listen", outcome="skipped"), head=named("one")),
        whole(result(outcome="failed"), head=named("two")),
    )
    text = markdown(matrix(*files))
    assert "| clause | level | one 1.0 | two 1.0 |\n|---|---|---|---|\n" in text
    assert "| filter.reject | must | ✓ 1 ○ 1 | ✗ 1 |\n" in text
    assert "| cli.host | must, should | — | — |\n" in text
    assert "| all | ✓ 1 ○ 1 | ✗ 1 |\n" in text


def test_markdown_has_a_row_for_each_property() -> None:
    passed = result(transcript="properties/sessions")
    failed = result(transcript="properties/crowds", mode="listen", outcome="failed")
    files = whole(passed, head=named("one")), whole(passed, failed, head=named("two"))
    text = markdown(matrix(*files))
    assert (
        "| property | one 1.0 | two 1.0 |\n|---|---|---|\n"
        "| properties/crowds | — | ✗ 1 |\n| properties/sessions | ✓ 1 | ✓ 1 |\n"
    ) in text


def test_markdown_speaks_of_properties_only_where_there_are_any() -> None:
    assert "## Properties" not in markdown(matrix(whole(result())))


def test_markdown_cell_tells_must_from_should() -> None:
    text = markdown(matrix(whole(result(clauses=["cli.host"], level="should"))))
    assert "| cli.host | must, should | must —; should ✓ 1 |\n" in text


def test_markdown_escapes_what_is_not_in_a_fence() -> None:
    hostile = "a|b <script> *c* `d` [e](f)\n# g"
    text = markdown(matrix(whole(result(title=hostile, outcome="failed"))))
    assert r"**a\|b \<script> \*c\* \`d\` \[e\](f) # g**" in text


def test_markdown_fence_is_longer_than_any_in_the_text() -> None:
    text = markdown(matrix(whole(result(outcome="failed", message="x\n````\ny"))))
    assert "\n`````text\nx\n````\ny\n`````\n" in text


def test_markdown_tables_have_no_gap() -> None:
    lines = markdown(matrix(whole(result()), whole(result(), head=named("b")))).splitlines()
    widths = {
        line.count("|")
        for line in lines
        if line.startswith(("| filter", "| clause", "|---|---|---|---|"))
    }
    assert widths == {5}


# The command line.


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    path.write_bytes(whole(result()))
    return path


def test_writes_what_is_asked_for(results: Path, tmp_path: Path) -> None:
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    assert main(["report", str(results), "--html", str(page), "--markdown", str(text)]) == 0
    assert page.read_text("utf-8").startswith("<!doctype html>\n")
    assert text.read_text("utf-8").startswith("# postprox conformance\n")


def test_dash_is_standard_output(results: Path, capfdbinary: Any) -> None:
    assert main(["report", str(results), "--markdown", "-"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"# postprox conformance\n")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "missing --html FILE, --markdown FILE or --badge FILE"),
        (["--html", "-", "--markdown", "-"], "--html and --markdown must not both be '-'"),
        (["--badge", "x.txt"], "--badge x.txt: must be FILE.svg or FILE.json"),
        (["--html", "/"], "/: is a directory"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], error: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(results), *options]) == 2
    assert error in capsys.readouterr().err


def test_a_failure_unfolds_its_transcript() -> None:
    failed = result(transcript="relay/one-message.smtp", outcome="failed", message="no")
    page = html(matrix(whole(failed)))
    assert "  |   | C&gt; MAIL FROM:&lt;a@example&gt;" in page


def test_the_verdict_stands_in_every_report(tmp_path: Path) -> None:
    for render in (html, markdown):
        assert "conformant: all 1 at must" in render(matrix(whole(result())))


def test_wrong_file_is_one_line_and_nothing_is_written(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.write_bytes(b"hello\n")
    page = tmp_path / "r.html"
    assert main(["report", str(results), "--html", str(page)]) == 2
    assert re.fullmatch(
        rf"report: {re.escape(str(results))}:1: not JSON: .*\n", capsys.readouterr().err
    )
    assert not page.exists()


@pytest.mark.parametrize(
    ("missing", "why"),
    [("results.jsonl", "No such file"), ("no/such/r.html", "missing directory")],
)
def test_path_that_is_not_there_is_named(
    missing: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "given.jsonl"
    source.write_bytes(whole(result()))
    arguments = {
        "results.jsonl": [str(tmp_path / missing), "--html", "-"],
        "no/such/r.html": [str(source), "--html", str(tmp_path / missing)],
    }[missing]
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / missing) in error
    assert why in error
