"""Mistakes of a filter that damage messages, mix them up or run text from the SMTP session."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postprox.check import script_copies
from postprox.check.script_mistakes import Mistake

pytestmark = pytest.mark.any_account

EXAMPLES = Path(__file__).parents[2] / "examples/filters"
PIPED = """\
grep virus "$EMAIL" | while read -r line; do
found=1
done
if [ -n "$found" ]; then echo 550 no >&2; exit 1; fi
"""
CORRECTED_LOOP = """\
while read -r line; do [ -n "$line" ] || continue
found=1
done <<END
$(grep virus "$EMAIL")
END
if [ -n "$found" ]; then echo 550 no >&2; exit 1; fi
"""
COPY = 'echo "X-A: b"\nwhile read line; do\necho $line\ndone < "$EMAIL"\n'
BLANK = 'echo "X-A: b"\necho\ncat "$EMAIL"\n'
FIXED = 'cp "$EMAIL" /tmp/mail || exit 2\ngrep -q x /tmp/mail && exit 1\n'
TEMPORARY = "copy=$(mktemp) || exit 2; trap 'rm -f \"$copy\"' EXIT\n"


def found_in(script: str) -> list[Mistake]:
    """Return the mistakes in a script for sh(1)."""
    return list(script_copies.mistakes(f"#!/bin/sh\n{script}"))


@pytest.mark.parametrize(
    ("script", "kind", "corrected"),
    [
        (PIPED, script_copies.SUBSHELL, CORRECTED_LOOP),
        (COPY, script_copies.READ, 'echo "X-A: b"\ncat "$EMAIL"\n'),
        (BLANK, script_copies.BLANK, 'echo "X-A: b"\ncat "$EMAIL"\n'),
        (FIXED, script_copies.SHARED, TEMPORARY + FIXED.replace("/tmp/mail", '"$copy"')),
        (
            'sh -c "echo $HELO >> /srv/log"\n',
            script_copies.INJECTION,
            "sh -c 'echo $HELO >> /srv/log'\n",
        ),
    ],
)
def test_mistake_is_corrected(script: str, kind: str, corrected: str) -> None:
    (found,) = found_in(script)
    assert found.kind == kind
    command = ["sed", found.correction]
    text = f"#!/bin/sh\n{script}"
    sed = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert sed.stdout == f"#!/bin/sh\n{corrected}"
    assert found_in(corrected) == []
    assert "\n" not in found.correction


@pytest.mark.parametrize("word", ["virus", "nothing"])
def test_corrected_loop_finds_only_viruses(tmp_path: Path, word: str) -> None:
    mail = tmp_path / "mail"
    mail.write_text(f"Subject: x\n\n{word}\n")
    ended = subprocess.run(
        ["/bin/sh", "-c", CORRECTED_LOOP],
        env={"EMAIL": str(mail)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == (word == "virus")


def test_eval_of_sender_has_no_correction() -> None:
    (found,) = found_in('eval "x=$SENDER"\n')
    assert (found.kind, found.correction) == (script_copies.INJECTION, "")


@pytest.mark.parametrize(
    "script",
    [
        'grep virus "$EMAIL" | while read -r line; do\nlogger "$line"\ndone\nexit 0\n',
        'while read line; do\ncase $line in x) exit 1;; esac\ndone < "$EMAIL"\n',
        'echo "X-A: b"\ncat "$EMAIL"\n',
        'echo "$(date)" > /tmp/last\n',
        "{ id; } > /tmp/id\nlogger -f /tmp/id\n",
        'grep -c x "$EMAIL" 2> /tmp/errors\ncat /tmp/errors\n',
        "sh -c 'echo $HELO'\n",
        'logger "$HELO"\n',
    ],
)
def test_harmless_script_is_not_reported(script: str) -> None:
    assert found_in(script) == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sh")), ids=lambda file: str(file.name))
def test_example_filter_contains_no_mistakes(file: Path) -> None:
    assert list(script_copies.mistakes(file.read_text())) == []
