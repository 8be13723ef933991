"""postprox-check: words in main.cf and master.cf that a Postfix program refuses."""

from __future__ import annotations

import pytest

from tests.unit.checking import FRONT, MAIN, PROXY, found, names

QUIET = names(found())
SCAN = "scan unix - - n - 20 smtp\n"
AFTER = "smtpd_proxy_filter =\ncontent_filter = scan:[127.0.0.1]:10025\n"
FRONT_AFTER = f"{FRONT}{PROXY}{SCAN}"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("smtpd_proxy_options = speedadjust", "smtpd_proxy_options=speed_adjust"),
        ("smtpd_proxy_options = fast, speed_adjust", "smtpd_proxy_options=speed_adjust"),
        ("receive_override_options = no_milter", "receive_override_options=no_milters"),
        ("mynetworks = 10.0.0.1/8 [::1]/128", "'mynetworks=10.0.0.0/8,[::1]/128'"),
        ("mynetworks = !127.0.0.0/33", "'mynetworks=!127.0.0.0/8'"),
        ("mynetworks = 10.0.0.0/33", "mynetworks="),
        ("mynetworks = 9.9.9.9/2", "mynetworks=9.9.9.9/32"),
        ("mynetworks = 9.9.9.9/28", "mynetworks=9.9.9.0/28"),
        ("mynetworks = [::1]/64", "'mynetworks=[::1]/128'"),
    ],
)
def test_invalid_word_in_main_cf_is_reported(line: str, remedy: str) -> None:
    (finding,) = (each for each in found(f"{line}\n") if each.name == "value")
    assert (finding.level, finding.where) == (2, "main.cf")
    assert finding.remedy == f"postconf -e {remedy}"


@pytest.mark.parametrize(
    "line",
    [
        "smtpd_proxy_options = Speed_Adjust",
        "smtpd_proxy_options =",
        "receive_override_options = no_milters, no_address_mappings",
        "mynetworks = 127.0.0.0/8 [::1]/128 [fe80::]/64 192.0.2.1 hash:/etc/postfix/networks",
        "mynetworks = cidr:/etc/postfix/networks.cidr /etc/postfix/24/file !10.0.0.0/8 a.test/b",
    ],
)
def test_valid_word_in_main_cf_is_not_reported(line: str) -> None:
    assert "value" not in names(found(f"{line}\n"))


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("20 smtpd", "20 smtpd # comment", "#"),
        ("20 smtpd", "20 smtpd -o x", "-o x"),
        ("20 smtpd", "20 smtpd -o x =", "x ="),
        ("20 smtpd", "20 smtpd - o x=y", "- o"),
        ("spawn user=", "spawn flags=Rq user=", "flags=Rq"),
        ("spawn user=nobody", "spawn user = nobody", "user ="),
        ("spawn user=nobody", "spawn user:nobody", "user:nobody"),
        ("spawn user=nobody", "spawn user=nobody,", "user=nobody,"),
        ("argv=", "argv:", "no argv="),
        ("spawn user=", "pipe flags=Rq user=", "no spawn"),
        ("argv=", "", "no argv="),
        (FRONT, f"{FRONT}qmgr unix n - n 300 1 qmgr _o a=b\n", "qmgr(8) does not accept '_o'"),
    ],
)
def test_wrong_argument_is_reported(old: str, new: str, wrong: str) -> None:
    master = f"{FRONT}{PROXY}"
    assert old in master
    (finding,) = (
        each for each in found(master=master.replace(old, new)) if each.name == "arguments"
    )
    assert finding.level == 2
    assert wrong in finding.problem
    assert finding.remedy.startswith("postconf -F ")


FILTER = "smtpd_proxy_filter=127.0.0.1:10025"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("-o smtpd_proxy_filter 127.0.0.1:10025", f"-o {FILTER}"),
        ("-o smtpd_proxy_filter: 127.0.0.1:10025", f"-o {FILTER}"),
        ("-o smtpd_proxy_filter:127.0.0.1:10025", f"-o {FILTER}"),
        ("-o smtpd_proxy_filter= 127.0.0.1:10025", f"-o {FILTER}"),
        ("-o smtpd_proxy_filter =127.0.0.1:10025", f"-o {FILTER}"),
        ("-o smtpd_proxy_filter = 127.0.0.1:10025", f"-o {FILTER}"),
        (f"-0 {FILTER}", f"-o {FILTER}"),
        (f"\u2013o {FILTER}", f"-o {FILTER}"),
        (f"o {FILTER}", f"-o {FILTER}"),
        (
            "\u2013o smtpd_authorized_xforward_hosts=::1 \u2014o mynetworks=::1 \u2212O relay=b",
            "-o smtpd_authorized_xforward_hosts=::1 -o mynetworks=::1 -o relay=b",
        ),
        ("-o mynetworks=::1, ::2 stress= -\u043e a=b", "-o mynetworks=::1,::2 -o stress= -o a=b"),
        (f"-o a=b {FILTER}", f"-o a=b -o {FILTER}"),
        (f"-o a=b - {FILTER}", f"-o a=b -o {FILTER}"),
        (f"-o content_filter=-o {FILTER}", f"-o content_filter= -o {FILTER}"),
        (
            f"-o content_filter=-o smtp_a=b -o {FILTER}",
            f"-o content_filter= -o smtp_a=b -o {FILTER}",
        ),
    ],
)
def test_remedy_keeps_filter_specified_with_misspelt_option(given: str, kept: str) -> None:
    main = "smtpd_proxy_filter =\n"
    master = f"{FRONT}{PROXY}".replace("20 smtpd", f"20 smtpd {given}")
    (finding,) = found(main, master)
    assert finding.name == "arguments"
    assert finding.remedy == f"postconf -F 'smtp/inet/command=smtpd {kept}'"


def test_remedy_keeps_parameters_of_spawned_proxy() -> None:
    master = f"{FRONT}{PROXY}".replace("spawn ", "spawn \u2013o a=b ~o c=d ")
    (finding,) = found(master=master)
    assert finding.remedy.startswith(
        "postconf -F '127.0.0.1:10025/inet/command=spawn -o a=b -o c=d user=nobody argv=/p/postprox"
    )


def test_filter_parameter_without_value_is_not_removed() -> None:
    master = f"{FRONT}{PROXY}".replace("20 smtpd", "20 smtpd -o smtpd_proxy_filter -v")
    (finding,) = found("smtpd_proxy_filter =\n", master)
    assert (finding.name, finding.remedy) == ("arguments", "")
    (finding,) = found("", master)
    assert finding.remedy == "postconf -F 'smtp/inet/command=smtpd -v'"
    hosts = "smtp/inet/smtpd_authorized_xforward_hosts = 127.0.0.0/8\n"
    (finding,) = found("", master, hosts)
    assert finding.remedy == "postconf -F 'smtp/inet/command=smtpd -v -o smtpd_proxy_filter='"


@pytest.mark.parametrize(
    "new",
    [
        "20 smtpd -v -o x=y",
        "20 smtpd -o { x = y z }",
        "20 smtpd -o smtpd_banner={a # b}",
        "20 smtpd -D",
    ],
)
def test_accepted_argument_is_not_reported(new: str) -> None:
    assert names(found(master=f"{FRONT}{PROXY}".replace("20 smtpd", new))) == QUIET


def test_remedy_removes_spaces_around_equals_sign_of_user() -> None:
    master = f"{FRONT}{PROXY}".replace("user=nobody", "user = nobody")
    (finding,) = (each for each in found(master=master) if each.name == "arguments")
    assert " user=nobody argv=" in finding.remedy.replace("user=postprox", "user=nobody")
    assert "user = " not in finding.remedy


@pytest.mark.parametrize("new", ["user:nobody argv=", "user=nobody, argv=", "user=nobody argv:"])
def test_remedy_keeps_user_and_program(new: str) -> None:
    master = f"{FRONT}{PROXY}".replace("user=nobody argv=", new)
    (finding,) = (each for each in found(master=master) if each.name == "arguments")
    assert " user=nobody argv=/p/postprox --strict " in finding.remedy


def test_server_in_master_cf_is_reported() -> None:
    master = f"{FRONT}{PROXY}".replace("--strict", "-l 10025 --foreground --strict")
    (finding,) = (each for each in found(master=master) if each.name == "background")
    assert "-l" not in finding.remedy.split()
    assert "--foreground" not in finding.remedy


@pytest.mark.parametrize("program", ["discard", "local", "pipe"])
def test_transport_without_smtp_is_reported(program: str) -> None:
    assert "transport" not in names(found(AFTER, FRONT_AFTER))
    master = FRONT_AFTER.replace("20 smtp\n", f"20 {program}\n")
    assert "transport" in names(found(AFTER, master))


def test_remedy_does_not_keep_arguments_of_pipe() -> None:
    pipe = "20 pipe -o x=y flags=Rq user=nobody null_sender= argv=/f -f ${sender}\n"
    master = FRONT_AFTER.replace("20 smtp\n", pipe)
    findings = found(AFTER, master, "scan/unix/x = y\n")
    (finding,) = (each for each in findings if each.name == "transport")
    assert "command=smtp -o syslog_name=postfix/scan " in finding.remedy
    assert finding.remedy.endswith(" -o smtp_fallback_relay= -o x=y'")
    assert "argv=" not in finding.remedy
    assert "flags=" not in finding.remedy


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("defer_transports = hold scan", "inherited"),
        ("scan_destination_rate_delay = 1m", "inherited-risk"),
        ("default_destination_rate_delay = 1s", "inherited-risk"),
        ("scan_transport_rate_delay = 1s", "inherited-risk"),
        ("default_transport_rate_delay = 0s", None),
        ("scan_destination_rate_delay = 0s\ndefault_destination_rate_delay = 5s", None),
        ("defer_transports = scanner", None),
    ],
)
def test_parameter_override_for_queue_manager_is_reported(line: str, name: str | None) -> None:
    new = names(found(f"{AFTER}{line}\n", FRONT_AFTER)) - names(found(AFTER, FRONT_AFTER))
    assert new == ({name} if name else set())


@pytest.mark.parametrize("host", ["mail.invalid", "127.0.0.l"])
def test_remedy_keeps_proxy_with_unresolvable_host_name(host: str) -> None:
    other = PROXY.replace("10025", "10035")
    main = MAIN.replace("127.0.0.1", host)
    users = "submission inet n - n - - smtpd -o smtpd_proxy_filter=127.0.0.1:10035\n"
    overrides = "submission/inet/smtpd_proxy_filter = 127.0.0.1:10035\n"
    assert "unused" not in names(found(main, f"{FRONT}{PROXY}{other}{users}", overrides))


# Names, columns and addresses


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("127.0.0.1.10026", "127.0.0.1:10026"),
        ("127.0.0.1;10026", "127.0.0.1:10026"),
        ("127.0.0.1:10O26", "127.0.0.1:10026"),
        ("127.0.0.l:10026", "127.0.0.1:10026"),
        ("127.0.0.999:10026", ""),
    ],
)
def test_invalid_service_name_is_reported(name: str, new: str) -> None:
    (finding,) = found(master=f"{FRONT}{PROXY}{name} inet n - n - - smtpd\n")
    assert (finding.name, finding.level) == ("arguments", 2)
    assert (f"postconf -M '{new}/inet={new} inet " in finding.remedy) == bool(new)
    assert bool(finding.remedy) == bool(new)


def test_misspelt_port_name_is_corrected() -> None:
    (finding,) = found(master=FRONT.replace("smtp ", "smpt ") + PROXY)
    assert "postconf -M 'smtp/inet=smtp inet " in finding.remedy
    findings = found(master=FRONT + FRONT.replace("smtp ", "smpt ") + PROXY)
    assert [each.remedy for each in findings if each.name == "arguments"] == [""]


@pytest.mark.parametrize("name", ["[127.0.0.1]:10036", "[::1]:10036", "mail.test:10036", "10036"])
def test_valid_service_name_is_not_reported(name: str) -> None:
    assert "arguments" not in names(found(master=f"{FRONT}{PROXY}{name} inet n - n - - smtpd\n"))


def test_transport_of_type_inet_is_reported() -> None:
    (finding,) = found(AFTER, FRONT_AFTER.replace("scan unix", "scan inet"))
    assert finding.remedy == "postconf -F scan/inet/type=unix"


@pytest.mark.parametrize("column", ["y", "-"])
def test_private_inet_service_is_reported(column: str) -> None:
    master = f"{FRONT}{PROXY}127.0.0.1:10036 inet {column} - n - - smtpd\n"
    (finding,) = (each for each in found(master=master) if each.name == "columns")
    assert finding.remedy == "postconf -F 127.0.0.1:10036/inet/private=n"


def test_transport_that_is_not_private_is_reported() -> None:
    master = FRONT_AFTER.replace("scan unix -", "scan unix n")
    (finding,) = (each for each in found(AFTER, master) if each.name == "transport")
    assert finding.remedy == "postconf -F scan/unix/private=-"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("smtpd_proxy_filter = scan:127.0.0.1:10025", "smtpd_proxy_filter=127.0.0.1:10025"),
        ("smtpd_proxy_filter = loclahost:10025", "smtpd_proxy_filter=127.0.0.1:10025"),
        ("smtpd_proxy_filter = = 127.0.0.1:10025", "smtpd_proxy_filter=127.0.0.1:10025"),
        (f"{AFTER[:-1]} # the proxy", "content_filter=scan:[127.0.0.1]:10025"),
        (f"{AFTER[:-1]}, scan:[127.0.0.1]:10025", "content_filter=scan:[127.0.0.1]:10025"),
    ],
)
def test_filter_address_with_extra_words_is_reported(line: str, remedy: str) -> None:
    findings = [each for each in found(f"{line}\n", FRONT_AFTER) if each.name == "wrong-port"]
    assert findings
    assert {each.remedy.replace("'", "") for each in findings} == {f"postconf -e {remedy}"}


def test_lmtp_transport_is_kept_if_recipe_transport_exists() -> None:
    lmtp = f"{AFTER}".replace("scan:", "lmtp:")
    master = f"{FRONT}{PROXY}lmtp unix - - n - 20 lmtp\n"
    (finding,) = (each for each in found(lmtp, master) if each.name == "lmtp")
    own = "smtp -o smtp_send_xforward_command=yes"
    assert finding.remedy == f"postconf -F 'lmtp/unix/command={own}'"
    scan = "scan/unix/smtp_send_xforward_command = yes\n"
    (finding,) = (each for each in found(lmtp, master + SCAN, scan) if each.name == "lmtp")
    assert finding.remedy == "postconf -e 'content_filter=scan:[127.0.0.1]:10025'"


@pytest.mark.parametrize("wrapper", ["/usr/bin/nice -n 5", "/usr/bin/timeout 300"])
def test_program_that_runs_spawned_proxy_is_accepted(wrapper: str) -> None:
    master = f"{FRONT}{PROXY.replace('argv=', f'argv={wrapper} ')}"
    assert names(found(master=master)) <= QUIET
