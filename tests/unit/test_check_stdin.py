"""postprox-check: Python scripts that read the message from standard input, as for pipe(8)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from postprox.check.scripts import python
from tests.unit.test_check_results import run
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
EXAMPLES = Path(__file__).parents[2] / "examples/filters"
#: Octets that are not UTF-8, and line ends that a text file changes.
MAIL = b"Subject: \xe9\n\nx\r\n"
END = 'open(os.environ["OUTFILE"], "wb").write(b"X-A: b\\n" + message)\n'
TEXT = 'open(os.environ["OUTFILE"], "w").write("X-A: b\\n" + message)\n'


@pytest.mark.parametrize(
    "script",
    [
        f'"""Was: argv=filter."""\nimport os, sys\nmessage = sys.stdin.buffer.read()\n{END}',
        f"import sys, os\ndef f(x):\n message = x.read()\n {END}\nf(sys.stdin.buffer)\n",
        f"import sys\nimport os\nmessage = sys.stdin.read()\n{TEXT}",
        f'import os, sys\nmessage = "".join(sys.stdin)\n{TEXT}',
        f"import os, sys\nwith sys.stdin as file:\n    message = file.read()\n{TEXT}",
    ],
)
def test_remedy_reads_message_from_email(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, script: str
) -> None:
    site.filter.write_text(f"#!/usr/bin/python3\n{script}")
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "not on standard input; the filter checks nothing, and each message" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    (tmp_path / "mail").write_bytes(MAIL)
    assert run(site.filter, tmp_path / "mail") == 0
    assert (tmp_path / "mail.out").read_bytes() == b"X-A: b\n" + MAIL


def test_unread_message_passes_unfiltered(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.filter.write_text("#!/usr/bin/python3\nimport sys\nsys.exit('x' in sys.stdin.read())\n")
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "all mail passes unfiltered" in checked.problem


def test_command_may_redirect_standard_input(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text("#!/usr/bin/python3\nimport sys\nsys.exit('x' in sys.stdin.read())\n")
    old, new = str(site.filter), f"'{site.filter} < \"$$EMAIL\"'"
    site.write(site.arguments.replace(old, new))
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "script",
    [
        "import os, sys\nopen(os.environ['EMAIL']).read()\nsys.stdin.read()\n",
        "import sys\nopen(sys.argv[1])\nsys.stdin.read()\n",
        "import os, sys\nnames = dict(os.environ)\nsys.stdin.read()\n",
        "import sys, subprocess\nsubprocess.run('scan')\nsys.stdin.read()\n",
        "import sys, own\nown.main(sys.stdin)\n",
        "import sys\nsys.stdin.close()\nsys.exit(sys.stdin.isatty())\n",
        "import sys\n# sys.stdin.read()\nprint('sys.stdin.read()')\n",
        "import sys\nsys.stdin = open('/x')\nsys.stdin.read()\n",
    ],
)
def test_other_use_of_standard_input_is_not_found(script: str) -> None:
    assert list(python.standard_input(script, ["os", "sys", "subprocess"])) == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_reads_message(file: Path) -> None:
    assert list(python.standard_input(file.read_text(), sys.stdlib_module_names)) == []
