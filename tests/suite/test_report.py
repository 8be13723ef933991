"""The reports, whose contents come only from the result files."""

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

pytestmark = pytest.mark.any_account


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
    """Return the text of a clause's row and of its expanded details."""
    match = re.search(rf'<details class="clause" id="{re.escape(name)}".*?</details>', page, re.S)
    assert match
    return _Page(match[0]).text


# Reading result files.

#: The beginning of the error about a header or footer on the second line.
MISPLACED = (
    'f:2: "type" must be "result" between the header (first line) and the footer (last line), not'
)


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
        (octets(header(format=5)), 'f:1: "format" must be one of 1, 2, 3, 4, not 5'),
        (octets({"type": "header"}), 'f:1: "format" is missing'),
        (octets(header(started="today")), "f:1: \"started\" must be an ISO 8601 time, not 'today'"),
        (octets(header(modes="stdio")), "f:1: \"modes\" must be a list of strings, not 'stdio'"),
        (octets(header(suite=3)), 'f:1: "suite" must be an object, not 3'),
        (octets(header(), header()), f"{MISPLACED} 'header'"),
        (octets(header(), footer(), result()), f"{MISPLACED} 'footer'"),
        (
            octets(header(), result(outcome="good")),
            "f:2: \"outcome\" must be one of passed, failed, diverged, stale, skipped, not 'good'",
        ),
        (octets(header(), result(level=1)), 'f:2: "level" must be a string, not 1'),
        (
            octets(header(), result(divergence={"kind": "x"})),
            "f:2: \"kind\" must be one of bug, wontfix, unclear, not 'x'",
        ),
        (
            octets(header(), footer(passed=True)),
            'f:2: "passed" must be a non-negative integer, not True',
        ),
        (octets(header(), result()) + b"{\n" + octets(footer()), "f:3: not JSON"),
        (
            octets(header(), result(), result()),
            "f:3: duplicate result for filter/reject.smtp in mode stdio; the first is on line 2",
        ),
    ],
)
def test_error_about_invalid_file_contains_line_number(content: bytes, error: str) -> None:
    with pytest.raises(ResultFileError) as caught:
        parse_run(content, "f")
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("content", "gaps"),
    [
        (whole(result()), ()),
        (octets(header(), result()), ("missing footer; the run did not finish",)),
        (octets(header()), ("missing footer; the run did not finish",)),
        (
            octets(header(), result()) + b'{"type": "res',
            ("the last line is incomplete", "missing footer; the run did not finish"),
        ),
        (
            octets(header(), result(), footer(passed=5)),
            ("the footer counts 5 passed, but the file has 1",),
        ),
    ],
)
def test_incomplete_result_file_is_reported_with_reason(
    content: bytes, gaps: tuple[str, ...]
) -> None:
    assert parse_run(content, "f").gaps == gaps


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["unasked/stop", "invariant/stop"])
def test_old_and_new_invariant_names_are_accepted(number: int, name: str) -> None:
    content = octets(header(format=number), result(transcript=name, mode="listen"))
    (read,) = parse_run(content, "f").results
    assert read.transcript == "invariant/stop"
    assert read.is_invariant


def test_last_line_without_newline_is_read() -> None:
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
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


# Counting.


def cell(shown: Matrix, clause: str, column: int = 0) -> dict[str, dict[str, int]]:
    (row,) = (row for group in shown.groups for row in group.rows if row.family.name == clause)
    return {level: dict(tally.counts) for level, tally in row.cells[column].tallies}


def test_each_mode_of_transcript_is_counted() -> None:
    shown = matrix(whole(result(), result(mode="listen", outcome="failed")))
    assert cell(shown, "filter.reject") == {"must": {"passed": 1, "failed": 1}}


def test_result_is_counted_in_every_cited_clause() -> None:
    shown = matrix(whole(result(clauses=["filter.reject", "relay.order"], level="should")))
    assert cell(shown, "filter.reject") == {"must": {}, "should": {"passed": 1}}
    assert cell(shown, "relay.order") == {"should": {"passed": 1}}


def test_result_is_counted_once_per_group_and_in_total() -> None:
    families = [Family("cli.a", ()), Family("cli.b", ())]
    shown = build(families, [parse_run(whole(result(clauses=["cli.a", "cli.b"])), "f")])
    assert shown.groups[0].tallies[0].counts == (("passed", 1),)
    assert shown.columns[0].tally().counts == (("passed", 1),)


def test_tally_of_level_without_results_is_empty() -> None:
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
def test_cell_shows_most_severe_outcome(outcomes: tuple[str, ...], verdict: str) -> None:
    results = [result(mode=str(n), outcome=outcome) for n, outcome in enumerate(outcomes)]
    (row,) = matrix(whole(*results)).groups[2].rows
    assert row.cells[0].verdict == verdict


def test_equal_failures_in_both_modes_are_merged() -> None:
    failed = [result(mode=mode, outcome="failed", message="no") for mode in ("listen", "stdio")]
    (finding,) = matrix(whole(*failed)).columns[0].found("failed")
    assert finding.modes == ("stdio", "listen")


def test_skips_with_same_reason_are_merged() -> None:
    skips = [result(transcript=name, outcome="skipped", message="no ipv6") for name in "ab"]
    (finding,) = matrix(whole(*skips)).columns[0].found("skipped")
    assert finding.transcripts == ("a", "b")


def test_clause_missing_from_specification_is_listed() -> None:
    shown = matrix(whole(result(clauses=["mime.type"])))
    assert shown.groups[-1].name == "mime"
    assert cell(shown, "mime.type") == {"must": {"passed": 1}}


def test_columns_with_equal_labels_show_file_names() -> None:
    shown = matrix(whole(result()), whole(result()))
    assert [column.label for column in shown.columns] == [
        "postprox 1.0 (0.jsonl)",
        "postprox 1.0 (1.jsonl)",
    ]


# Both report formats.

RENDERERS = pytest.mark.parametrize("render", [html, markdown], ids=["html", "markdown"])


@RENDERERS
def test_report_shows_date_transcript_count_and_implementation(render: Any) -> None:
    text = render(matrix(whole(result())))
    for needed in ("postprox 1.0", "my postprox", "2025-11-22 14:31:07 UTC", "1 of 1 transcripts"):
        assert needed in text


@RENDERERS
def test_clauses_are_in_specification_order(render: Any) -> None:
    text = render(matrix(whole(result())))
    places = [text.index(clause.name) for clause in FAMILIES]
    assert places == sorted(places)


@RENDERERS
def test_columns_are_in_order_of_result_files(render: Any) -> None:
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
def test_report_warns_about_incomplete_run(render: Any, content: bytes, word: str) -> None:
    assert word in render(matrix(content))


@RENDERERS
@pytest.mark.parametrize("word", ["PARTIAL", "SELECTION", "MIXED"])
def test_report_does_not_warn_about_complete_run(render: Any, word: str) -> None:
    assert word not in render(matrix(whole(result())))


@RENDERERS
def test_report_warns_about_different_suite_versions(render: Any) -> None:
    other = header(suite={"transcripts": 1, "version": "8"})
    assert "MIXED" in render(matrix(whole(result()), whole(result(), head=other)))


@RENDERERS
def test_partial_run_is_never_reported_as_conformant(render: Any) -> None:
    content = octets(header(), result(), footer(passed=5))
    assert "as expected" not in render(matrix(content))


@RENDERERS
@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "✓ as expected"), (1, "✗ not as expected"), (2, "✗ the harness failed (exit status 2)")],
)
def test_report_contains_exit_status(render: Any, status: int, words: str) -> None:
    assert words in render(matrix(octets(header(), footer(exit_status=status))))


@RENDERERS
def test_report_shows_kind_and_reason_of_divergence(render: Any) -> None:
    known = result(outcome="diverged", divergence={"kind": "wontfix", "reason": "it is so"})
    assert re.search(
        r"Known divergence, wontfix:(</strong>|\*\*) it is so", render(matrix(whole(known)))
    )


@RENDERERS
def test_failure_text_is_printed_only_once(render: Any) -> None:
    names = [clause.name for clause in FAMILIES]
    failed = result(clauses=names, outcome="failed", message="expected 554\n     got 250")
    assert render(matrix(whole(failed))).count("expected 554\n     got 250") == 1


@RENDERERS
def test_equal_result_files_produce_equal_reports(render: Any) -> None:
    files = [whole(result(outcome="failed")), whole(result(), head=named("b"))]
    assert render(matrix(*files)) == render(matrix(*files))


# The HTML report.


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


def test_malicious_text_is_escaped() -> None:
    page = _Page(hostile_page())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count(HOSTILE) > 10


def test_failures_with_same_cause_are_grouped() -> None:
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
    words = ("all that was said", "1 more with the same cause:", "<pre>c</pre>", "<pre>alone</pre>")
    assert sorted(words, key=failures.index) == list(words)
    assert "told already" not in failures


def test_failure_text_is_printed_unchanged() -> None:
    message = f"expected  <b>&amp;\n  got     {HOSTILE}"
    page = _Page(html(matrix(whole(result(outcome="failed", message=message)))))
    assert message in page.texts or message in "".join(page.texts)


def test_page_with_arbitrary_message_can_be_encoded() -> None:
    page = html(matrix(whole(result(outcome="failed", message="\udcff\0"))))
    assert b"\\udcff\\x00" in page.encode()


def test_page_is_self_contained() -> None:
    page = _Page(html(matrix(whole(result()))))
    assert page.attributes("src") == []
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert "url(" not in "".join(page.texts)


def test_content_security_policy_permits_only_one_script() -> None:
    page = html(matrix(whole()))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_link_targets_exist_and_ids_are_unique() -> None:
    results = [
        result(transcript=outcome, outcome=outcome, clauses=["cli.host", "filter.reject"])
        for outcome in OUTCOMES
    ]
    page = _Page(html(matrix(whole(*results), whole(*results, head=named("b")))))
    places = page.attributes("id")
    assert len(places) == len(set(places))
    assert {link[1:] for link in page.attributes("href")} <= set(places)


def test_clause_contains_statement_and_transcripts() -> None:
    failed = result(mode="listen", outcome="failed")
    text = clause_part(html(matrix(whole(result(), failed))), "filter.reject")
    for needed in ("status 1", TITLE, "filter/reject.smtp", "✗ failed listen", "✓ passed stdio"):
        assert needed in text


def test_implementations_are_listed_side_by_side() -> None:
    files = whole(result(), head=named("one")), whole(result(outcome="failed"), head=named("two"))
    text = clause_part(html(matrix(*files)), "filter.reject")
    assert text.startswith(
        "filter.reject must one 1.0 ✓ 1 passed two 1.0 ✗ 1 failed filter.reject-1 status 1"
    )
    assert text.endswith("✓ passed stdio ✗ failed stdio")


def test_transcript_missing_from_one_column_is_marked() -> None:
    only = result(transcript="filter/only.smtp")
    files = whole(result(), only, head=named("one")), whole(result(), head=named("two"))
    text = clause_part(html(matrix(*files)), "filter.reject")
    assert "filter/only.smtp · must ✓ passed stdio — not tested" in text


def test_clause_without_result_is_marked() -> None:
    text = clause_part(html(matrix(whole(result()))), "cli.host")
    assert "— not tested" in text
    assert text.endswith("No transcript has tested this clause.")


def test_markdown_in_statement_becomes_html() -> None:
    page = html(matrix(whole(result())))
    assert "SHOULD be <code>[IPv6]:PORT</code> as well" in page
    assert "the <strong>order</strong> of" in page


def test_every_part_of_partial_report_shows_warning() -> None:
    page = html(matrix(octets(header(), result())))
    assert "<title>PARTIAL: postprox conformance" in page
    assert '<p class="alert"><strong>PARTIAL</strong> The results of postprox 1.0' in page
    assert page.count('<span class="badge partial">PARTIAL</span>') == 3


def test_html_report_can_be_filtered_by_level() -> None:
    failed = result(clauses=["cli.host"], level="should", outcome="failed")
    page = html(matrix(whole(failed)))
    assert 'id="cli.host" data-levels="must should" data-failed="should"' in page
    assert 'id="filter.reject" data-levels="must" data-failed=""' in page


def test_report_controls_are_hidden_without_javascript() -> None:
    assert '<form id="controls" hidden>' in html(matrix(whole()))


# The Markdown report.


def test_markdown_cells_show_counts() -> None:
    files = (
        whole(result(), result(mode="listen", outcome="skipped"), head=named("one")),
        whole(result(outcome="failed"), head=named("two")),
    )
    text = markdown(matrix(*files))
    assert "| clause | level | one 1.0 | two 1.0 |\n|---|---|---|---|\n" in text
    assert "| filter.reject | must | ✓ 1 ○ 1 | ✗ 1 |\n" in text
    assert "| cli.host | must, should | — | — |\n" in text
    assert "| all | ✓ 1 ○ 1 | ✗ 1 |\n" in text


def test_markdown_contains_row_for_each_property() -> None:
    passed = result(transcript="properties/sessions")
    failed = result(transcript="properties/crowds", mode="listen", outcome="failed")
    files = whole(passed, head=named("one")), whole(passed, failed, head=named("two"))
    text = markdown(matrix(*files))
    assert (
        "| property | one 1.0 | two 1.0 |\n|---|---|---|\n"
        "| properties/crowds | — | ✗ 1 |\n| properties/sessions | ✓ 1 | ✓ 1 |\n"
    ) in text


def test_markdown_without_properties_omits_properties_section() -> None:
    assert "## Properties" not in markdown(matrix(whole(result())))


def test_markdown_cell_separates_must_and_should_results() -> None:
    text = markdown(matrix(whole(result(clauses=["cli.host"], level="should"))))
    assert "| cli.host | must, should | must —; should ✓ 1 |\n" in text


def test_markdown_outside_fence_is_escaped() -> None:
    hostile = "a|b <script> *c* `d` [e](f)\n# g"
    text = markdown(matrix(whole(result(title=hostile, outcome="failed"))))
    assert r"**a\|b \<script> \*c\* \`d\` \[e\](f) # g**" in text


def test_markdown_fence_is_longer_than_inner_fences() -> None:
    text = markdown(matrix(whole(result(outcome="failed", message="x\n````\ny"))))
    assert "\n`````text\nx\n````\ny\n`````\n" in text


def test_markdown_tables_are_rectangular() -> None:
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


def test_requested_reports_are_written(results: Path, tmp_path: Path) -> None:
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    assert main(["report", str(results), "--html", str(page), "--markdown", str(text)]) == 0
    assert page.read_text("utf-8").startswith("<!doctype html>\n")
    assert text.read_text("utf-8").startswith("# postprox conformance\n")


def test_hyphen_selects_standard_output(results: Path, capfdbinary: Any) -> None:
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
def test_invalid_options_are_reported(
    options: list[str], error: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(results), *options]) == 2
    assert error in capsys.readouterr().err


def test_failure_includes_its_transcript() -> None:
    failed = result(transcript="relay/one-message.smtp", outcome="failed", message="no")
    page = html(matrix(whole(failed)))
    assert "  |   | C&gt; MAIL FROM:&lt;a@example&gt;" in page


def test_every_report_shows_verdict(tmp_path: Path) -> None:
    for render in (html, markdown):
        assert "conformant: all 1 passed at level MUST" in render(matrix(whole(result())))


def test_invalid_result_file_is_reported_on_one_line(
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
def test_missing_path_is_reported(
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
