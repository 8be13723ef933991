"""postprox-check: the remedies of mistakes that a blind trial found."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import machine, recipe, sandbox, source_text
from postprox.check.facts import ProgramFacts, ProxyFacts, SpoolFacts
from postprox.check.findings import Finding
from postprox.check.postconf import UnreadableError, parse
from postprox.check.probe import accounts, postfix, programs, proxy_facts, spool, system
from postprox.check.routes import FilterStage, spawned_proxies
from postprox.check.rules import judge, unchecked
from postprox.check.scripts.pipelines import lost_status
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, SEEN, found, names, postconf
from tests.unit.test_check_running import ROOT, Site, check, site

__all__ = ["site"]
BEHIND = "127.0.0.1:10026 inet n - n - - smtpd\n"
USERS = "submission inet n - n - 20 smtpd\n"
NAME = "smtpd_proxy_filter"
SCAN = "scan unix - - n - 20 smtp\n"
TO_BEHIND = PROXY.replace(" up\n", " 127.0.0.1:10026\n")
AFTER = (
    "scan/unix/smtp_send_xforward_command = yes\n"
    "127.0.0.1:10026/inet/content_filter =\n"
    "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
    "127.0.0.1:10026/inet/receive_override_options = no_address_mappings\n"
)


def seen(facts: ProxyFacts, program: str = "", master: str = FRONT + PROXY) -> list[Finding]:
    """Return the findings for facts about the proxy, with or without an installed program."""
    configuration = parse(MAIN, master, "")
    proxies = list(spawned_proxies(configuration))
    setup = Setup(configuration, proxies, dict.fromkeys(proxies, facts), program=program)
    return judge(setup)


def only(findings: list[Finding], name: str) -> Finding:
    (finding,) = (each for each in findings if each.name == name)
    return finding


# Mistakes in main.cf because of which no mail reaches the proxy


@pytest.mark.parametrize(
    ("line", "expanded", "cause", "remedy"),
    [
        (
            "smtp_proxy_filter = 127.0.0.1:10025",
            "",
            ", because main.cf sets smtp_proxy_filter instead of smtpd_proxy_filter",
            "postconf -X smtp_proxy_filter; ",
        ),
        ("smtp_proxy_filter = 127.0.0.1:10026", "", "", ""),
        ("my_filter = 127.0.0.1:10025", "", "", ""),
        ("smtpd_proxy_filter2 = 127.0.0.1:10025\nx = $smtpd_proxy_filter2", "", "", ""),
        (
            "adress = 127.0.0.1:10025\nsmtpd_proxy_filter = $address",
            "smtpd_proxy_filter =\n",
            f", because $address in {NAME} has no value ($adress is defined, but not used)",
            "",
        ),
        (
            "smtpd_proxy_filter = ${proxy}",
            "smtpd_proxy_filter =\n",
            ", because $proxy in smtpd_proxy_filter has no value",
            "",
        ),
        (
            "smtpd_proxy_filter = 127.0.0.1:10025\nx = y\nsmtpd_proxy_filter =",
            "smtpd_proxy_filter =\n",
            ", because a later line in main.cf sets smtpd_proxy_filter to an empty value",
            "",
        ),
        ("smtpd_proxy_filter =", "smtpd_proxy_filter =\n", "", ""),
    ],
)
def test_mistake_that_leaves_filter_empty_is_named(
    line: str, expanded: str, cause: str, remedy: str
) -> None:
    master = FRONT + TO_BEHIND + BEHIND
    overrides = "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
    configuration = parse(f"compatibility_level = 3.6\n{expanded}", master, overrides)
    configuration = replace(configuration, written=source_text.assignments(f"{line}\n"))
    proxies = list(spawned_proxies(configuration))
    finding = only(judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN))), "no-way")
    problem = "no Postfix service sends mail to 127.0.0.1:10025"
    assert finding.problem == f"{problem}{cause}; mail passes unfiltered"
    assert finding.remedy == f"{remedy}postconf -e smtpd_proxy_filter=127.0.0.1:10025"


# Words that belong to the value before them


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            "-o smtpd_relay_restrictions=permit_mynetworks, reject",
            "-o smtpd_relay_restrictions=permit_mynetworks,reject",
        ),
        (
            "-o smtpd_relay_restrictions=permit_mynetworks reject -o x=y",
            "-o smtpd_relay_restrictions=permit_mynetworks,reject -o x=y",
        ),
        ("-o x=a , b", "-o x=a,b"),
        ("-o mynetworks=127.0.0.0/8, # own, b", "-o mynetworks=127.0.0.0/8,"),
        ("-o x=a b", "-o x=a"),
    ],
)
def test_remedy_corrects_list_with_blanks_in_parameter_override(given: str, kept: str) -> None:
    finding = only(found(master=f"{FRONT[:-1]} {given}\n{PROXY}"), "arguments")
    assert finding.remedy == f"postconf -F 'smtp/inet/command=smtpd {kept}'"


# A proxy without a route


@pytest.mark.parametrize(
    ("front", "overrides", "first"),
    [
        (FRONT, "", ""),
        (
            f"{FRONT}smtp unix - - n - - smtp\n",
            "smtp/unix/content_filter = scan:[127.0.0.1]:10025\n",
            "postconf -PX smtp/unix/content_filter; ",
        ),
        (
            "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n",
            "smtp/inet/content_filter = scan:[127.0.0.1]:10025\n",
            "postconf -PX smtp/inet/content_filter; ",
        ),
    ],
)
def test_after_queue_remedy_sets_content_filter(front: str, overrides: str, first: str) -> None:
    master = front + SCAN + TO_BEHIND + BEHIND
    finding = only(found("smtpd_proxy_filter =\n", master, AFTER + overrides), "no-way")
    assert finding.remedy == f"{first}postconf -e 'content_filter=scan:[127.0.0.1]:10025'"
    assert ("which has no effect there" in finding.problem) == bool(first)


def test_before_queue_recipe_sets_smtpd_proxy_filter() -> None:
    finding = only(found("smtpd_proxy_filter =\n", FRONT + TO_BEHIND + BEHIND, ""), "no-way")
    edits = finding.remedy.split("; ")
    assert edits == [
        "postconf -P 127.0.0.1:10026/inet/smtpd_proxy_filter=",
        "postconf -e smtpd_proxy_filter=127.0.0.1:10025",
    ]


def test_override_behind_postscreen_is_removed() -> None:
    master = "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n" + PROXY
    assert "no-way" not in names(found(master=master))
    finding = only(found(master=master, overrides="smtpd/pass/smtpd_proxy_filter =\n"), "no-way")
    assert finding.remedy == "postconf -PX smtpd/pass/smtpd_proxy_filter"
    assert "smtpd/pass in master.cf sets smtpd_proxy_filter to an empty" in finding.problem


def test_finding_unsigned_warns_that_remedy_bypasses_filter() -> None:
    users = "submission inet n - n - - smtpd\n"
    overrides = "submission/inet/smtpd_relay_restrictions = permit_sasl_authenticated,reject\n"
    findings = found("smtpd_milters = inet:127.0.0.1:8891\n", FRONT + users + PROXY, overrides)
    finding = only(findings, "unsigned")
    assert finding.remedy == "postconf -P submission/inet/smtpd_proxy_filter="
    assert "passes unfiltered" in finding.problem


# The proxy program


@pytest.mark.parametrize(
    ("installed", "path"),
    [("/usr/sbin/postprox", "/usr/sbin/postprox"), ("", "/usr/local/sbin/postprox")],
)
def test_program_in_home_directory_is_replaced(installed: str, path: str) -> None:
    program = ProgramFacts("/root/venv/bin/postprox", exists=True, closed_directory="/root")
    finding = only(seen(replace(SEEN, program=program), installed), "program")
    assert f"argv={path} --strict" in finding.remedy
    assert "chmod" not in finding.remedy
    assert ("install postprox as" in finding.problem) == (not installed)


def test_remedy_replaces_missing_program_with_installed_program() -> None:
    facts = replace(SEEN, program=ProgramFacts("/p/postprox", exists=False))
    assert only(seen(facts), "program").remedy == "ls -l /p/postprox"
    assert "argv=/opt/postprox " in only(seen(facts, "/opt/postprox"), "program").remedy


def test_unreadable_package_of_launcher_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = tmp_path / "postprox-versions"
    source = versions / "1" / "postprox" / "__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    (tmp_path / "postprox").symlink_to("postprox-versions/1")
    program = tmp_path / "launcher"
    program.write_text(f'#!/usr/bin/python3\nlibrary = "{tmp_path}/postprox"\n')
    refused = ""
    monkeypatch.setattr(accounts, "may", lambda _, right, path: right != os.X_OK or path != refused)
    assert proxy_facts._closed_library(str(program), "nobody") == ""
    assert proxy_facts._closed_library("/bin/sh", "nobody") == ""
    refused = str(versions)
    closed = proxy_facts._closed_library(str(program), "nobody")
    assert closed == str(versions)
    monkeypatch.setattr(accounts, "may", lambda _, right, path: right != os.R_OK)
    assert proxy_facts._closed_library(str(program), "nobody") == str(versions / "1")
    finding = only(seen(replace(SEEN, closed_library=closed)), "program")
    assert finding.remedy == f"chmod -R a+rX {closed}"


def test_program_of_unit_is_replaced_by_installed_program(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = tmp_path / "default"
    options.write_text(
        'POSTPROX_UPSTREAM="127.0.0.1:10026"\n'
        f'POSTPROX_OPTIONS="--strict -d /run/postprox -t 60 -c {site.filter}"\n'
    )
    line = "ExecStart={} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    lines = ["User=nobody", "ExecStart=", line.format("/gone/postprox"), "EnvironmentFile="]
    site.drop_in("postprox.service", "Service", *lines, f"EnvironmentFile={options}")
    monkeypatch.setattr(
        "postprox.check.probe.installation.public_program", lambda: str(site.launcher)
    )
    result = check(site, capsys, "--offline")
    assert result.names() == ["program"]
    assert f"'{line.format(site.launcher)}'" in result.remedy
    assert str(options) not in result.remedy


def test_dash_of_word_processor_is_corrected() -> None:
    for dash in ("\u2013-", "\u2014", "-\u2013", "\u2013\u2013"):
        master = FRONT + PROXY.replace("--strict", f"{dash}strict")
        assert " --strict -t 60" in only(found(master=master), "command-line").remedy


# Words of Postfix that are missing or wrong


@pytest.mark.parametrize("file", ["main.cf", "master.cf"])
def test_nonbreaking_space_is_reported_and_replaced(tmp_path: Path, file: str) -> None:
    name, text = "smtpd_proxy_filter", "smtpd_proxy_filter =\u00a0127.0.0.1:10025\n"
    main, master = text, FRONT + PROXY
    if file == "master.cf":
        main, text = "", f"-o\u00a0{name}="
        master = master.replace("20 smtpd", f"20 smtpd {text}")
    finding = only(found(main, master), "arguments")
    assert f"{file}" in finding.where
    assert "no-break space" in finding.problem
    (tmp_path / file).write_text(text)
    command = finding.remedy.replace('"$(postconf -h config_directory)/', f'"{tmp_path}/')
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert (tmp_path / file).read_text() == text.replace("\u00a0", " ")


def test_nonbreaking_space_in_text_is_not_reported() -> None:
    assert names(found("smtpd_banner = a\u00a0b\n")) == names(found())


@pytest.mark.parametrize(
    ("own", "remedy"),
    [
        ("permit_mynetworks", "postconf -P 127.0.0.1:10026/inet/{}=permit_mynetworks,reject"),
        ("", "postconf -P 127.0.0.1:10026/inet/{}=permit_mynetworks,reject"),
        ("permit_mynetworks, reject", ""),
        ("permit_mynetworks reject_unauth_destination", ""),
        ("DEFER_IF_PERMIT", ""),
        ("strict", ""),
    ],
)
def test_service_without_required_restriction_is_reported(own: str, remedy: str) -> None:
    name = "smtpd_relay_restrictions"
    label = "127.0.0.1:10026/inet"
    overrides = (
        f"{label}/{name} = {own}\n{label}/smtpd_recipient_restrictions =\n"
        f"{label}/smtpd_proxy_filter =\n"
    )
    main = "smtpd_restriction_classes = strict\n"
    findings = found(main, FRONT + TO_BEHIND + BEHIND, overrides)
    assert [f.remedy for f in findings if f.name == "value"] == [remedy.format(name)] * bool(remedy)


def test_remedy_adds_reject_only_to_service_behind_filter() -> None:
    main = "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = reject_unauth_destination\n"
    overrides = (
        "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
        "127.0.0.1:10026/inet/smtpd_recipient_restrictions = permit_mynetworks\n"
    )
    finding = only(found(main, FRONT + TO_BEHIND + BEHIND, overrides), "value")
    assert finding.where == "master.cf, 127.0.0.1:10026/inet"
    own = "127.0.0.1:10026/inet/smtpd_relay_restrictions=permit_mynetworks,reject"
    assert finding.remedy == f"postconf -P {own}"


def test_recipient_restrictions_can_replace_relay_restrictions() -> None:
    main = "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = {}\n"
    assert "value" not in names(found(main.format("reject_unauth_destination")))
    finding = only(found(main.format("permit_mynetworks")), "value")
    assert finding.remedy == "postconf -e smtpd_relay_restrictions=reject_unauth_destination"


@pytest.mark.parametrize("stage", ["recipient", "relay", "data"])
@pytest.mark.parametrize("first", ["", "permit_sasl_authenticated, ", "permit_mynetworks, "])
def test_second_query_of_policy_server_is_reported(stage: str, first: str) -> None:
    main = f"smtpd_{stage}_restrictions = {first}check_policy_service inet:127.0.0.1:10023, defer\n"
    overrides = "127.0.0.1:10026/inet/smtpd_proxy_filter =\n"
    findings = found(main, FRONT + TO_BEHIND + BEHIND, overrides)
    is_reported = any("policy server" in finding.problem for finding in findings)
    assert is_reported == (first != "permit_mynetworks, ")


def test_typing_error_in_option_is_corrected() -> None:
    findings = found("receive_override_options = no_unknown_recipients_checks\n")
    remedy = only(findings, "value").remedy
    assert remedy == "postconf -e receive_override_options=no_unknown_recipient_checks"


@pytest.mark.parametrize(
    ("own", "users", "unchecked_count", "remedies"),
    [
        ("smtpd/pass/content_filter =\n", USERS, 1, []),
        (
            "smtpd/pass/content_filter =\n",
            "",
            0,
            ["postconf -PX smtpd/pass/content_filter"],
        ),
        ("smtpd/pass/content_filter =\nsmtpd/pass/smtpd_proxy_filter =\n", "", 1, []),
        ("", "", 0, []),
    ],
)
def test_filter_that_gets_no_mail_from_outside_is_reported(
    own: str, users: str, unchecked_count: int, remedies: list[str]
) -> None:
    master = (
        "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"
        "pickup unix n - n 60 1 pickup\n"
    )
    own += "submission/inet/smtpd_relay_restrictions = permit_sasl_authenticated,reject\n"
    main = f"{MAIN}smtpd_proxy_filter =\ncontent_filter = scan:[127.0.0.1]:10025\n"
    configuration = parse(main, master + users + SCAN + PROXY, own)
    proxies = list(spawned_proxies(configuration))
    setup = Setup(configuration, proxies, dict.fromkeys(proxies, SEEN))
    items = list(unchecked(setup))
    found = [each.remedy for each in judge(setup) if each.name == "no-way"]
    assert found == remedies
    count = sum("from outside" in item and "smtpd/pass" in item for item in items)
    assert count == unchecked_count


@pytest.mark.parametrize(
    ("overrides", "remedies"),
    [
        ("pickup/unix/content_filter =\n", ["postconf -PX pickup/unix/content_filter"]),
        ("pickup/unix/content_filter =\npickup/unix/smtpd_proxy_filter =\n", []),
        ("pickup/unix/content_filter = other:[127.0.0.1]:10024\n", []),
        ("submission/inet/content_filter =\n", []),
        ("", []),
    ],
)
def test_pickup_that_overrides_filter_is_reported(overrides: str, remedies: list[str]) -> None:
    master = FRONT + USERS + "pickup unix n - n 60 1 pickup\n" + SCAN + TO_BEHIND + BEHIND
    main = "smtpd_proxy_filter =\ncontent_filter = scan:[127.0.0.1]:10025\n"
    findings = found(main, master, AFTER + overrides)
    assert [each.remedy for each in findings if each.name == "unfiltered"] == remedies


def test_pickup_that_overrides_other_filter_is_not_reported() -> None:
    master = FRONT + "pickup unix n - n 60 1 pickup\n" + SCAN + TO_BEHIND + BEHIND
    main = "content_filter = amavis:[127.0.0.1]:10024\n"
    assert "unfiltered" not in names(found(main, master, "pickup/unix/content_filter =\n"))


@pytest.mark.parametrize("own", ["pickup/unix/content_filter =\n", ""])
def test_recipe_keeps_pickup_deliberately_unfiltered(own: str) -> None:
    master = FRONT + "pickup unix n - n 60 1 pickup\n"
    configuration = parse("compatibility_level = 3.6\n", master, own)
    folder = Path(__file__).parents[2] / "examples/postfix"
    examples = {each.name: each.read_text() for each in folder.glob("*.cf")}
    installed = recipe.Installation(examples, "/p/postprox")
    lines = recipe.commands(configuration, FilterStage.AFTER_QUEUE, installed)
    assert any("pickup/unix/smtpd_proxy_filter=" in line for line in lines) == bool(own)


def test_unindented_line_of_master_cf_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postconf(tmp_path, monkeypatch, "echo 'postconf: fatal: line 9: bad field count' >&2; exit 1")
    with pytest.raises(UnreadableError, match="must begin with a blank or tab"):
        postfix.read_configuration("")


# The filter


@pytest.mark.parametrize(
    ("script", "mended"),
    [
        ('clamdscan - < "$EMAIL"\nexit 0\n', 'clamdscan - < "$EMAIL"\n'),
        ('clamdscan - < "$EMAIL"\n\n  true ;\n# end\n', 'clamdscan - < "$EMAIL"\n\n# end\n'),
        ('spamc -c < "$EMAIL" || true\n', 'spamc -c < "$EMAIL"\n'),
        ('spamc -c < "$EMAIL"; exit 0', 'spamc -c < "$EMAIL"'),
        ('clamdscan "$EMAIL" 2>&1 | logger -t x\n', 'clamdscan "$EMAIL"\n'),
        ('\n\tspamc -c < "$EMAIL" |/usr/bin/tee /x', '\n\tspamc -c < "$EMAIL"'),
    ],
)
def test_filter_that_hides_status_of_scanner_is_corrected(
    tmp_path: Path, script: str, mended: str
) -> None:
    path = tmp_path / "filter"
    path.write_text(f"#!/bin/sh\n{script}")
    program = replace(
        programs.program_facts(str(path), "root", "/bin"), executable=True, open_paths=()
    )
    finding = only(seen(replace(SEEN, filter=program)), "exit-status")
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", finding.remedy], check=True)
        assert path.read_text() == f"#!/bin/sh\n{mended}"


def test_remedy_prints_script_if_other_command_follows_scanner() -> None:
    assert lost_status("clamdscan -\nlogger done\nexit 0\n") == ("exit 0", 0)
    program = ProgramFacts("/f", exists=True, executable=True, lost_status="exit 0")
    assert only(seen(replace(SEEN, filter=program)), "exit-status").remedy == "cat -n /f"


@pytest.mark.parametrize(
    "script",
    [
        "clamdscan - || exit 1\nexit 0\n",
        'clamdscan -; s=$?\n[ $s = 1 ] && exit "$s"\nexit 0\n',
        "set -e\nclamdscan -\nexit 0\n",
        "set -ue\nclamdscan -\nexit 0\n",
        "clamdscan -\nexit\n",
        "clamdscan -\nexit 00 || exit 3\n",
        "clamdscan - || kill $$\nexit 0\n",
        ". /etc/filter.sh\nclamdscan - || die\nexit 0\n",
        'spamc < "$EMAIL" > "$OUTFILE"\nexit 0\n',
        'cp "$EMAIL" /srv/archive\nexit 0\n',
        "clamdscan - || true\nclamdscan -\n",
        "set -o pipefail\nclamdscan - | logger\n",
        "clamdscan - || logger failed\n",
        "x=$(clamdscan - | tail -n 1)\n",
        "clamdscan - 'x | logger'\n",
        "# clamdscan\nexit 0\n",
        "",
    ],
)
def test_filter_that_keeps_exit_status_of_scanner_is_not_reported(script: str) -> None:
    assert lost_status(script) == ("", 0)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples/filters").glob("*.sh")), ids=lambda path: path.name
)
def test_example_filter_does_not_lose_exit_status(file: Path) -> None:
    assert lost_status(file.read_text()) == ("", 0)


def test_script_of_another_language_is_not_read_as_shell() -> None:
    script = b"clamdscan -\nexit 0\n"
    assert machine.lost_status("/usr/bin/python3", script) == ("", 0)
    assert machine.lost_status("/bin/sh", script) == ("exit 0", 2)


def test_filter_not_in_search_path_gets_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own-filter"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    for directory, remedy in ((tmp_path, f"-c {{{path} a}} up"), ("/bin", "command -v own-filter")):
        monkeypatch.setattr(system, "SYSTEMD_PATH", str(directory))
        program, _ = programs.filter_facts("own-filter a", "root", system.SPAWN_PATH)
        master = FRONT + PROXY.replace("-c /f", "-c {own-filter a}")
        finding = only(seen(replace(SEEN, filter=program), master=master), "filter")
        assert "is not in /usr/bin:/bin, the PATH that spawn(8) sets" in finding.problem
        assert remedy in finding.remedy


# Variables and the directory for messages


@pytest.mark.parametrize("more", ["", "-v "])
def test_systemd_variables_in_master_cf_are_reported(more: str) -> None:
    start = PROXY.index("--strict")
    master = f"{FRONT}{PROXY[:start]}{more}$POSTPROX_OPTIONS $POSTPROX_UPSTREAM\n"
    finding = only(found(master=master), "command-line")
    assert "spawn(8) does not expand $POSTPROX_OPTIONS" in finding.problem
    command = "-v --strict -t 60 -d /var/spool/postprox -c /usr/local/bin/mail-filter"
    assert (f"postprox {command} 127.0.0.1:10026" in finding.remedy) == (not more)
    assert bool(finding.remedy) == (not more)


@pytest.mark.parametrize("exists", [False, True])
def test_relative_spool_is_replaced_with_absolute_path(exists: bool) -> None:
    spool = SpoolFacts(exists=exists, writable=False)
    master = FRONT + PROXY.replace("-c /f", "-d var/spool/postprox -c /f")
    finding = only(seen(replace(SEEN, spool=spool), master=master), "spool")
    assert "(relative to Postfix's queue directory)" in finding.problem
    create, change = finding.remedy.split("; ")
    assert create.endswith(" -m 0700 /var/spool/postprox")
    assert " -d /var/spool/postprox -c /f " in change


def test_variable_as_spool_is_replaced_with_path() -> None:
    spool = SpoolFacts(exists=False, writable=False)
    master = FRONT + PROXY.replace("-c /f", "-d $SPOOL -c /f")
    finding = only(seen(replace(SEEN, spool=spool), master=master), "spool")
    assert finding.problem.startswith("$SPOOL is not expanded")
    assert " -d /var/spool/postprox -c /f " in finding.remedy


def test_remedy_runs_spawned_proxy_as_spool_owner() -> None:
    spool = SpoolFacts(exists=True, writable=False, owner="postprox")
    finding = only(seen(replace(SEEN, spool=spool)), "spool")
    assert "spawn user=postprox argv=" in finding.remedy
    spool = replace(spool, owner="root")
    assert "install -d -o nobody" in only(seen(replace(SEEN, spool=spool)), "spool").remedy


@pytest.mark.parametrize(
    ("files", "is_reported"),
    [
        ({"etc/postprox.conf": "d {} 0700 root root 1d"}, True),
        ({"etc/postprox.conf": "# x\nD! {}/ 0700"}, True),
        ({"etc/postprox.conf": "d {} 0700 nobody nogroup"}, False),
        ({"etc/postprox.conf": "d {} 0700 65534 nogroup"}, False),
        ({"etc/postprox.conf": "d {} 0700 :root :root"}, False),
        ({"etc/postprox.conf": "r {}/*\nd {}/other 0700 root root"}, False),
        ({"etc/clean.conf": "R! {}"}, True),
        ({"etc/clean.conf": "r {}*"}, True),
        ({"etc/clean.conf": "R! {}", "lib/postprox.conf": "d {} 0700 nobody -"}, False),
        ({"fstab": "tmpfs {} tmpfs size=1g,mode=0700 0 0"}, True),
        ({"fstab": "tmpfs {} tmpfs size=1g,mode=0700,uid=nobody 0 0"}, False),
        ({"fstab": "#tmpfs {} tmpfs size=1g 0 0\n/dev/sdb1 {} ext4 defaults 0 2\n"}, False),
        ({"etc/a.conf": "d {} 0700 nobody -", "lib/b.conf": "d {} - root -"}, False),
        ({"etc/b.conf": "d {} 0700 nobody -", "lib/a.conf": "d {} - root -"}, True),
        ({"etc/a.conf": "", "lib/a.conf": "d {} - root -"}, False),
        ({"etc/postprox.txt": "d {} 0700 root root"}, False),
        ({}, False),
    ],
)
def test_spool_state_after_boot_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], is_reported: bool
) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("{}", str(directory)))
    places = [str(tmp_path / name) for name in ("etc", "lib")]
    monkeypatch.setattr(spool, "TMPFILES_DIRECTORIES", places)
    monkeypatch.setattr(spool, "MOUNTS", str(tmp_path / "fstab"))
    monkeypatch.setattr(accounts, "may", lambda user, right, path: True)
    found_names = spool_findings(directory)
    assert [each.name for each in found_names] == ["spool-boot"] * is_reported
    for finding in found_names:
        assert f"echo 'd {directory} 0700 nobody nobody " in finding.remedy


@pytest.mark.parametrize(
    ("line", "corrected"),
    [
        ("d /s.1 0700 root root 1d", "d /s.1 0700 nobody nobody 1d"),
        ("  D!  /s.1/ - root", "D! /s.1/ 0700 nobody nobody"),
        ("d /s.1", "d /s.1 0700 nobody nobody"),
    ],
)
def test_local_tmpfiles_line_for_spool_is_corrected(
    tmp_path: Path, line: str, corrected: str
) -> None:
    name = "/etc/tmpfiles.d/postprox.conf"
    spool = SpoolFacts(exists=True, writable=True, boot_line=line, boot_file=name)
    facts = replace(SEEN, spool=spool)
    (remedy,) = (each.remedy for each in seen(facts) if each.name == "spool-boot")
    file = tmp_path / "postprox.conf"
    file.write_text(f"# d /s.1 0700 root root 1d\n{line}\nd /sx1 0700 root root 1d\n")
    subprocess.run(["/bin/sh", "-c", remedy.replace(name, str(file))], check=True)
    lines = ["# d /s.1 0700 root root 1d", corrected, "d /sx1 0700 root root 1d"]
    assert file.read_text().splitlines() == lines


def test_spool_below_run_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "may", lambda user, right, path: True)
    monkeypatch.setattr(spool, "TMPFILES_DIRECTORIES", (str(tmp_path),))
    monkeypatch.setattr(sandbox, "is_below", lambda path, directories: "/run" in directories)
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    (finding,) = spool_findings(directory)
    assert (finding.name, finding.level) == ("spool-boot", 1)
    assert "is below /run" in finding.problem
    monkeypatch.setattr(Path, "is_mount", lambda path: True)
    assert spool_findings(directory) == []


def spool_findings(directory: Path) -> list[Finding]:
    """Return the findings about a spawned proxy's directory for messages."""
    configuration = parse(MAIN, FRONT + PROXY.replace("-t 60", f"-t 60 -d {directory}"), "")
    (proxy,) = spawned_proxies(configuration)
    facts = replace(SEEN, spool=spool.spool_facts(configuration, proxy))
    findings = judge(Setup(configuration, [proxy], {proxy: facts}))
    return [each for each in findings if each.name.startswith("spool")]
