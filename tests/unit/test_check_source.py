"""postprox-check: mistakes in the text of main.cf and master.cf."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from postprox.check.findings import Fault
from postprox.check.fixes import plan, set_own
from postprox.check.probe import postfix
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.source_text import Correction, corrections, misplaced, orphans
from tests.unit.checking import postconf

SPAWN = "127.0.0.1:10025 inet n n n - 20 spawn\n  user=u argv=/p -c /f up\n"
MASTER = "smtp inet n - y - - smtpd\n" + SPAWN + "pickup unix n - y 60 1 pickup\n"
MAIN = "# a: comment\ncompatibility_level = 3.6\nsmtpd_proxy_filter = 127.0.0.1:10025\n"
LIST = "smtpd_client_restrictions =\n  permit_mynetworks,\n  reject\n"


def corrected(found: list[Correction], file: str, text: str) -> str:
    """Return the corrected text, which must be the same from sed(1) and from Python."""
    by_sed = text
    for each in found:
        if each.file == file:
            text = each.applied(text)
            command = ["env", "LC_ALL=C", "sed", "-E", each.script]
            done = subprocess.run(command, input=by_sed, capture_output=True, text=True, check=True)
            by_sed = done.stdout
    assert text == by_sed
    return text


def test_correct_text_needs_no_correction() -> None:
    assert corrections(MAIN + LIST, MASTER) == []
    assert corrections("x =\n# a\\\nalias_maps = hash:/a \\\n", "# x\n#smtp inet n\n") == []


def test_value_on_line_of_its_own_is_indented() -> None:
    text = MAIN.replace("filter = ", "filter =\n")
    (found,) = corrections(text, MASTER)
    assert corrected([found], "main.cf", text) == MAIN.replace("filter = ", "filter =\n    ")
    assert "the value of smtpd_proxy_filter is on a line that does not begin" in found.problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"smtpd_proxy_filter = ", r"smtpd_proxy_filter: "),
        (r"smtpd_proxy_filter = ", r"smtpd_proxy_filter := "),
        (r"smtpd_proxy_filter = ", r"smtpd_proxy_filter "),
        (r"smtpd_proxy_filter = ", "smtpd_proxy_filter\u00a0= "),
        (r"smtpd_proxy_filter = ", "smtpd_proxy_filter =\u00a0\u00a0"),
        ("  permit_mynetworks,\n", "permit_mynetworks,\n"),
        ("  permit_mynetworks,\n", "  permit_mynetworks, \\\n"),
    ],
)
def test_mistake_in_main_cf_is_corrected(old: str, new: str) -> None:
    text = (MAIN + LIST).replace(old, new)
    (found,) = corrections(text, MASTER)
    result = corrected([found], "main.cf", text)
    assert result.replace("    permit", "  permit") == MAIN + LIST
    assert found.problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n n n - 20 spawn", "n n n 20 spawn"),
        ("n n n - 20 spawn", "n n n - - 20 spawn"),
        ("n - y - - smtpd", "n - y - - - smtpd"),
        ("10025 inet n", "10025 n"),
        ("10025 inet n", "10025 inte n"),
        ("pickup unix n", "pickup n"),
        ("\n  user=u", "\nuser=u"),
        ("spawn\n", "spawn \\\n"),
    ],
)
def test_mistake_in_master_cf_is_corrected(old: str, new: str) -> None:
    text = MASTER.replace(old, new)
    (found,) = corrections(MAIN, text)
    result = corrected([found], "master.cf", text)
    assert " ".join(result.split()) == " ".join(MASTER.split())
    assert [line[:1].isspace() for line in result.split("\n")] == [
        line[:1].isspace() for line in MASTER.split("\n")
    ]
    assert found.problem


@pytest.mark.parametrize(
    "columns",
    ["n - 20", "n y 20", "n", "n n n n n n - 20", "x n n - 20", "n n n - 5x", "n n n - o"],
)
def test_ambiguous_column_is_not_corrected(columns: str) -> None:
    assert corrections(MAIN, MASTER.replace("n n n - 20", columns)) == []


def test_joined_option_is_separated_for_postconf() -> None:
    text = MASTER.replace("smtpd\n", "smtpd -v -osmtpd_proxy_filter=a:1\n  -vo{a = b} -o c=d\n")
    (found,) = corrections(MAIN, text)
    assert found.problem == ""
    result = corrected([found], "master.cf", text)
    assert "smtpd -v -o smtpd_proxy_filter=a:1\n  -vo {a = b} -o c=d\n" in result
    assert corrections(MAIN, MASTER.replace("-c", "-ox=y -c")) == []


ENTRY = "127.0.0.1:10026 inet n - n - - smtpd\n    -o x=y\n    # a\n\n# b\n  -o z=\n"
SCAN = "scan unix - - n - 20 smtp -o a=b\n"
PARAMETERS = "content_filter = scan:[::1]:10025\n# c\na_b =\n    d\n    # e\n  f\n"


def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str, master: str) -> list[str]:
    """Return main.cf, master.cf, and the arguments of postconf(1) after the commands have run.

    The corrected texts must contain the same lines.
    """
    postconf(tmp_path, monkeypatch, f'printf "%s\\n" "$@" >> {tmp_path}/log')
    texts = {"main.cf": main, "master.cf": master}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "log").write_text("")
    for lines in misplaced(main, master):
        texts = lines.applied(texts)
        commands = lines.commands(str(tmp_path), f"{tmp_path}/programs/postconf")
        for _ in range(2):  # the second time, the commands change nothing
            subprocess.run(["/bin/sh", "-ec", "; ".join(commands)], check=True)
    assert not misplaced(*texts.values())
    assert not corrections(*texts.values())
    assert (tmp_path / "master.cf").read_text() == texts["master.cf"]
    return [(tmp_path / name).read_text() for name in ("main.cf", "master.cf", "log")]


def test_entries_in_main_cf_move_to_master_cf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, master, _ = moved(tmp_path, monkeypatch, f"{MAIN}{ENTRY}{SCAN}x = y\n", MASTER.rstrip())
    assert main == f"{MAIN}\n# b\nx = y\n"
    assert master == MASTER + ENTRY.replace("\n\n# b", "") + SCAN
    (found,) = misplaced(MAIN + ENTRY + SCAN, MASTER)
    assert (
        "the entries 127.0.0.1:10026/inet, scan/unix belong in master.cf; no Postfix"
        in found.problem
    )


def test_indented_entry_in_main_cf_moves_to_master_cf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, master, _ = moved(tmp_path, monkeypatch, f"{MAIN}\t {SCAN}  -o c=d\nx = y\n", MASTER)
    assert (main, master) == (f"{MAIN}x = y\n", f"{MASTER}{SCAN}  -o c=d\n")


def test_copy_of_entry_in_main_cf_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, master, _ = moved(tmp_path, monkeypatch, MAIN + SCAN + ENTRY, MASTER + ENTRY)
    assert (main, master) == (f"{MAIN}\n# b\n", f"{MASTER}{ENTRY}{SCAN}")


def test_parameters_in_master_cf_move_to_main_cf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = MASTER + PARAMETERS + SCAN + "  relayhost = x\n"
    _, kept, log = moved(tmp_path, monkeypatch, MAIN + ENTRY, master)
    assert kept == f"{MASTER}# c\n{SCAN}  relayhost = x\n" + ENTRY.replace("\n\n# b", "")
    assert log == "-e\ncontent_filter=scan:[::1]:10025\na_b=d f\n" * 2


@pytest.mark.parametrize(
    ("main", "master"),
    [
        (MAIN + LIST, MASTER + ENTRY + SCAN),
        ("# smtp inet n - y - - smtpd\nx =\n  inet n - y - - smtpd\n", MASTER),
        # The parameter probably belongs to the entry.
        (MAIN, f"{SCAN}smtp_a=b\n"),
        (MAIN, f"{SCAN}smtp_a =\n"),
        (MAIN, "x unix - n n - - pipe\nuser=a argv=b\nnull_sender=\n"),
    ],
)
def test_line_in_right_file_is_not_moved(main: str, master: str) -> None:
    assert misplaced(main, master) == []


def test_postconf_reads_entry_moved_to_master_cf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postconf(tmp_path, monkeypatch, 'test "$3" != -M || tail -n 1 "$2/master.cf"')
    (tmp_path / "main.cf").write_text(MAIN + SCAN)
    (tmp_path / "master.cf").write_text(MASTER)
    read = postfix.read_configuration(str(tmp_path))
    assert [service.label for service in read.services] == ["scan/unix"]
    (finding,) = judge(Setup(read, [], {}))
    assert (finding.name, finding.where) == ("arguments", "main.cf")
    assert finding.remedy.endswith(f" {tmp_path}/main.cf >> {tmp_path}/master.cf")


WRONG_DASHES = [
    ("-o x=y -o mynetworks=::1", "\u2013o x=y \u2014o mynetworks=::1"),
    ("-o x=y", "\u2013ox=y"),
    ("-o x=y", "\u2212 O x=y"),
    ("-o x=y", "-\u2011o x=y"),
    ("-o { x = y }", "\u2013\u2013o { x = y }"),
    ("\n    -o x=y\n  # \u2013o z=\n\t-o z=", "\n\u2013o x=y\n  # \u2013o z=\n\t\u2013o z="),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG_DASHES)
def test_dash_is_replaced_by_hyphen(right: str, wrong: str) -> None:
    text = MASTER.replace("smtpd\n", f"smtpd {wrong}\n").replace("/f", "\u2013o x=y")
    found = corrections(MAIN, text)
    expected = MASTER.replace("smtpd\n", f"smtpd {right}\n").replace("/f", "\u2013o x=y")
    assert corrected(found, "master.cf", text) == expected
    assert found[0].problem.startswith("the entry smtp has another dash")
    # Two entries are corrected with one command.
    text += f"scan unix n - y - - smtp {wrong}\n"
    found = corrections(MAIN, text)
    assert found[0].problem.startswith("the entries smtp, scan have another dash")
    assert len({each.script for each in found}) == len(found)


def test_postconf_reads_corrected_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postconf(tmp_path, monkeypatch, 'test "$3" != -M || sed 1q "$2/master.cf"')
    (tmp_path / "main.cf").write_text(MAIN)
    (tmp_path / "master.cf").write_text("smtp inet n - y - - smtpd -oa=b\n")
    read = postfix.read_configuration(str(tmp_path))
    assert read.services[0].words == ("smtpd", "-o", "a=b")
    # postconf(1) would write back the entry that it misread, so the file is corrected first.
    fault = Fault("value", "", "", (set_own(read.services[0], "a", "c"),))
    first, second = plan(read, [fault])[0].commands
    assert first == f"sed -E -i {shlex.quote(read.corrections[0].script)} {tmp_path}/master.cf"
    assert second.endswith(" -P smtp/inet/a=c")


def test_byte_order_mark_is_removed() -> None:
    found = corrections(f"\ufeff{MAIN}", f"\ufeff{MASTER}")
    assert [each.file for each in found] == ["main.cf", "master.cf"]
    assert corrected(found, "main.cf", f"\ufeff{MAIN}") == MAIN
    assert corrected(found, "master.cf", f"\ufeff{MASTER}") == MASTER


@pytest.mark.parametrize("line", ["smtp", "\u2013", "smtp inet", "x unix n"])
def test_incomplete_line_is_not_corrected(line: str) -> None:
    assert corrections(MAIN, f"{line}\n{MASTER}") == []


PIPE = "mailman unix - n n - - pipe\n  flags=R user=list argv=/bin/mailman\n"
#: Lines that Postfix reads as arguments of mailman, and the lines between them.
AFTER_COMMENT = "  -o x=y\n    # a\n# b\n\n\t-o z=\n"


@pytest.mark.parametrize("comment", ["#{}", "##  {}", "#{}# c\n#smtp x\n"])
def test_remaining_lines_of_commented_out_entry_are_found(comment: str) -> None:
    entry = "127.0.0.1:10026 inet n - n - - smtpd\n"
    text = f"{PIPE}{comment.format(entry)}{AFTER_COMMENT}{SCAN}"
    (found,) = orphans(text)
    assert (found.name, found.type, found.program) == ("127.0.0.1:10026", "inet", "smtpd")
    assert (found.owner, found.owner_program) == ("mailman/unix", "pipe")
    corrected_texts = []
    for script in (found.uncomment, found.comment_out):
        command = ["sed", "-E", script]
        for _ in range(2):  # the second time, sed(1) changes nothing
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
            corrected_texts.append(done.stdout)
    uncommented, _, commented, _ = corrected_texts
    assert corrected_texts == [uncommented, uncommented, commented, commented]
    assert uncommented == f"{PIPE}{comment.format(entry).lstrip('# ')}{AFTER_COMMENT}{SCAN}"
    lines = AFTER_COMMENT.replace("  -o", "#  -o").replace("\t-o", "#\t-o")
    assert commented == f"{PIPE}{comment.format(entry)}{lines}{SCAN}"
    assert orphans(uncommented) == orphans(commented) == []


@pytest.mark.parametrize(
    "text",
    [
        f"{PIPE}#{SCAN}#  -o x=y\n{SCAN}  -o x=y\n",
        f"{PIPE}#{SCAN}{SCAN}  -o x=y\n",
        # The comment is another version of the same entry.
        f"{SCAN}#{SCAN}  -o x=y\n",
        f"{SCAN}# scan unix is the transport\n  -o x=y\n",
        f"#{SCAN}  -o x=y\n",
    ],
)
def test_comment_between_entries_is_no_problem(text: str) -> None:
    assert orphans(text) == []
