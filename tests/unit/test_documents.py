"""Tests of the README, the administrator's pages and the navigation of the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_account

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FAQ = (ROOT / "docs/faq.md").read_text("utf-8")
NAVIGATION = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
#: The pages that an administrator needs for each task, with their sections.
TASKS = {
    "packaging/README.md": ("The Debian package", "Listening with systemd"),
    "docs/setup.md": ("What you need", "See that it works", "What can go wrong"),
    "docs/opendkim.md": ("What you need", "See that it works", "What can go wrong"),
    "docs/amavis.md": ("What you need", "See that it works", "What can go wrong"),
    "docs/rspamd.md": ("What you need", "See that it works", "What can go wrong"),
    "docs/containers.md": ("Health", "Signals"),
    "docs/monitoring.md": ("Alerts", "See that it works", "What can go wrong"),
    "docs/troubleshooting.md": (
        *("Mail is deferred with 451", "Mail passes unfiltered", "Connection refused"),
        *("DKIM signatures are missing or invalid", "Mail loops", "Messages arrive twice"),
        "Mail is slow",
    ),
    "docs/growing.md": ("Multiple proxies on one port", "Separate filter machines"),
    "docs/faq.md": ("Choose and set up", "In operation", "Filters"),
}
#: Pages in which no line of code is longer than this.
NARROW = ("README.md", *(f"docs/{name}.md" for name in ("setup", "growing", "opendkim", "amavis")))
COLUMNS = 91
QUESTIONS = dict(re.findall(r"(?ms)^### (.*?)\n(.*?)(?=^##|\Z)", FAQ))


def code(text: str) -> list[str]:
    """Return the lines of all code blocks, fenced or indented."""
    fenced = "".join(re.findall(r"(?ms)^```\w*\n(.*?)^```$", text))
    return fenced.splitlines() + re.findall(r"(?m)^    .*$", text)


def test_readme_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", NARROW)
def test_code_blocks_on_page_have_short_lines(page: str) -> None:
    lines = code((ROOT / page).read_text("utf-8"))
    assert lines
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("page", TASKS)
def test_navigation_lists_task_page_above_reference_section(page: str) -> None:
    tasks, _, reference = NAVIGATION.partition("  - Reference:\n")
    assert f": {page}\n" in tasks
    assert f": {page}\n" not in reference


@pytest.mark.parametrize("page", TASKS)
def test_task_page_has_required_sections(page: str) -> None:
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / page).read_text("utf-8"))
    assert [name for name in TASKS[page] if name not in headings] == []


def test_faq_has_12_to_20_questions() -> None:
    assert 12 <= len(QUESTIONS) <= 20
    assert [question for question in QUESTIONS if not question.endswith("?")] == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_answer_is_short_and_links_to_a_page(question: str) -> None:
    answer = " ".join(QUESTIONS[question].split())
    assert re.search(r"\]\([^)]+\)", answer)
    assert 2 <= len(re.findall(r"[.?](?= [A-Z`]|$)", answer)) <= 5
