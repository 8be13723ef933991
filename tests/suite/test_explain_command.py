"""The subcommand `explain`, and its JSON output of the specification."""

from __future__ import annotations

import json

import pytest

from tests.conformance.__main__ import main
from tests.conformance.format.loader import load_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.paths import TRANSCRIPTS

pytestmark = pytest.mark.any_account

CITED = load_transcript(TRANSCRIPTS / "relay" / "one-message.smtp").subject
FAMILY = next(one for one in specification().families if one.name == "relay.order")


def test_explain_command_prints_requirement_with_source_and_transcripts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", CITED.id]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"{CITED.id} ({CITED.level.upper()}, {CITED.harm}) {CITED.sentence}")
    assert f"source: {', '.join(CITED.sources)}" in text
    assert "transcripts: " in text
    assert " relay/one-message.smtp [stdio, listen] " in text


def test_explain_command_prints_all_requirements_in_family(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", FAMILY.name]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(one.sentence in text for one in FAMILY.requirements)


def test_explain_command_without_arguments_lists_families(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [one.name for one in specification().families]


def test_unknown_requirement_results_in_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "relay.ordr-1"]) == 2
    message = "unknown requirement relay.ordr-1 (did you mean 'relay.order-1'?)"
    assert message in capsys.readouterr().err


def test_json_output_contains_every_requirement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["version"] == specification().version
    assert [one["id"] for family in table["families"] for one in family["requirements"]] == list(
        specification().requirements
    )


@pytest.mark.parametrize("name", [CITED.family, CITED.id])
def test_list_command_accepts_family_and_requirement(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["list", name]) == 0
    cited = [line.split("\t")[3] for line in capsys.readouterr().out.splitlines()]
    assert cited
    assert all(name in one for one in cited)


def test_requirement_without_transcript_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conformance.format.loader.citing", lambda _name: [])
    assert main(["list", CITED.id]) == 2
    assert f"no transcript cites {CITED.id}" in capsys.readouterr().err
