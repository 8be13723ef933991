"""Tests of postprox-check's parsers, the detected connections and the levels of its findings.

tests/postfix tests the findings for whole configurations with a real postconf(1).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postprox.check import postconf, unit, xforward
from postprox.check.findings import LEVELS
from postprox.check.postconf import UnreadableError, join_words, parse, split_words
from postprox.check.probe.units import installed_units
from postprox.check.routes import Endpoint, arguments, is_proxy
from postprox.check.values import seconds
from postprox.core.envelope import Envelope

DOCUMENT = Path(__file__).parents[2] / "docs/check.md"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spawn user=a argv=/b -c d", ["spawn", "user=a", "argv=/b", "-c", "d"]),
        ("-c {/f --x {y} 'z w'} up", ["-c", "/f --x {y} 'z w'", "up"]),
        ("-c { /f x } up", ["-c", "/f x", "up"]),
        ("a{b c}d", ["a{b c}d"]),
        ("  ", []),
    ],
)
def test_master_cf_is_split_into_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_split_words_reverses_join_words() -> None:
    words = ("argv=/b", "-c", "/f --x 'y z'", "up")
    assert tuple(split_words(join_words(words))) == words


@pytest.mark.parametrize(
    ("text", "value"), [("100s", 100), ("2m", 120), ("1h", 3600), ("7", 7), ("soon", None)]
)
def test_time_values_are_converted_to_seconds(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_service_parameters_override_main_cf() -> None:
    read = parse(
        main="content_filter = a:b\nmynetworks = 127.0.0.0/8\n",
        master="smtp inet n - n - - smtpd -o content_filter=\n",
        overrides="smtp/inet/content_filter =\n",
    )
    (service,) = read.services
    assert service.parameter("content_filter") == ""
    assert service.parameter("mynetworks") == "127.0.0.0/8"
    assert service.parameter("smtpd_proxy_timeout") == "100s"
    assert service.limit() == 100


@pytest.mark.parametrize(
    ("main", "master"), [("no equals sign\n", ""), ("", "smtp inet n - n - smtpd\n")]
)
def test_unexpected_postconf_output_is_rejected(main: str, master: str) -> None:
    with pytest.raises(UnreadableError, match=r"postconf -[nM] printed"):
        parse(main, master, "")


def test_later_drop_in_overrides_earlier_settings() -> None:
    read = unit.parse(
        "postprox.service",
        [
            "[Unit]\nUser=nobody\n[Service]\nExecStart=/a 1 \\\n  2\nUser=first\n",
            "[Service]\nExecStart=\nExecStart=/b '3 4'\n",
        ],
        {},
    )
    assert read.words == ("/b", "3 4")
    assert (read.user, read.private_tmp, read.replaced) == ("first", False, ())


def test_unit_variables_are_expanded() -> None:
    text = "[Service]\nEnvironment=A=1 'B=2 3'\nEnvironmentFile=-/etc/p\nExecStart=/p $B ${B} $C\n"
    read = unit.parse("postprox.service", [text], {"/etc/p": "# comment\nC='-c x y'\n"})
    assert read.words == ("/p", "2", "3", "2 3", "-c", "x", "y")


def test_administrator_drop_in_replaces_package_drop_in_of_same_name(
    tmp_path: Path,
) -> None:
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    for directory in (etc, usr):
        (directory / "postprox.service.d").mkdir(parents=True)
    for path, words in [
        (usr / "postprox@.service", "/template"),
        (usr / "postprox.service", "/package"),
        (usr / "postprox.service.d/10-a.conf", "/usr/10-a"),
        (etc / "postprox.service.d/10-a.conf", "/etc/10-a"),
        (etc / "postprox.service.d/20-b.conf", "/etc/20-b"),
    ]:
        path.write_text(f"[Service]\nExecStart={words}\n")
    read = [(unit.name, unit.words) for unit in installed_units([str(etc), str(usr)])]
    assert read == [("postprox.service", ("/etc/20-b",)), ("postprox@.service", ("/template",))]
    (etc / "postprox.service.d/20-b.conf").unlink()
    assert next(installed_units([str(etc), str(usr)])).words == ("/etc/10-a",)


@pytest.mark.parametrize(
    ("command", "words", "replaced"),
    [
        ("/p -l %i up", ("/p", "-l", "1", "up"), ()),
        ("/p --metrics /run/%N/p.prom", ("/p", "--metrics", "/run/postprox@1/p.prom"), ()),
        ("/p -c 'f 50%% $$EMAIL'", ("/p", "-c", "f 50% $EMAIL"), ()),
        ("/p -c 'date +%H'", ("/p", "-c", "date +%H"), ("%H",)),
        ("/p -c 'f 50%'", ("/p", "-c", "f 50%"), ("%",)),
        ("/p -c 'f \"${EMAIL}\"'", ("/p", "-c", 'f "${EMAIL}"'), ("${EMAIL}",)),
        ("/p -c 'f \"$EMAIL\"' ${OTHER}", ("/p", "-c", 'f "$EMAIL"', ""), ()),
    ],
)
def test_specifiers_and_variables_in_exec_start_are_expanded(
    command: str, words: tuple[str, ...], replaced: tuple[str, ...]
) -> None:
    read = unit.parse("postprox@.service", [f"[Service]\nExecStart={command}\n"], {})
    assert (read.words, read.replaced) == (words, replaced)


@pytest.mark.parametrize(
    "words", [("/p", "-c", 'f "$EMAIL" 50%'), ("/p", "", "a'b", "c\\d", "e f"), ("/p", "a\tb")]
)
def test_quoting_and_parsing_preserve_command_line(words: tuple[str, ...]) -> None:
    text = f"[Service]\nExecStart={unit.quoted(words)}\n"
    assert unit.parse("p.service", [text], {}).words == words


def test_list_of_filter_variables_matches_proxy() -> None:
    given = {name.decode() for name in Envelope().environment(b"")}
    assert set(unit.FILTER_VARIABLES) == given | {"EMAIL", "OUTFILE"}


def test_dynamic_user_implies_private_tmp() -> None:
    assert unit.parse("p", ["[Service]\nDynamicUser=yes\n"], {}).private_tmp


@pytest.mark.parametrize(
    ("here", "listener", "reached"),
    [
        (Endpoint("127.0.0.1", 25), Endpoint("127.0.0.1", 25), True),
        (Endpoint("127.0.0.1", 25), Endpoint("127.0.0.1", 26), False),
        (Endpoint("127.0.0.1", 25), Endpoint("", 25), True),
        (Endpoint("localhost", 25), Endpoint("::1", 25), True),
        (Endpoint("127.0.0.1", 25), Endpoint("::1", 25), False),
        (Endpoint("mx.example", 25), Endpoint("", 25), False),
        (Endpoint("", 0, "/a"), Endpoint("", 0, "/a"), True),
        (Endpoint("", 0, "/a"), Endpoint("", 0), False),
    ],
)
def test_endpoint_matches_only_reachable_listener(
    here: Endpoint, listener: Endpoint, reached: bool
) -> None:
    assert here.is_at(listener) == reached


@pytest.mark.parametrize(
    ("hosts", "target", "permitted"),
    [
        ([], "127.0.0.1", False),
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.0/8"], "::1", False),
        (["[::1]/128"], "::1", True),
        (["!127.0.0.1", "127.0.0.0/8"], "127.0.0.1", False),
        (["localhost"], "127.0.0.1", True),
        (["hash:/etc/postfix/hosts"], "127.0.0.1", None),
        (["mx.example"], "127.0.0.1", False),
    ],
)
def test_xforward_permission_depends_on_authorized_hosts(
    hosts: list[str], target: str, permitted: bool | None
) -> None:
    assert xforward.permits(hosts, target) is permitted


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["/usr/local/sbin/postprox", "up"], True),
        (["/usr/bin/python3", "-m", "postprox", "up"], True),
        (["/usr/bin/python3", "-Im", "postprox", "up"], True),
        (["/usr/bin/python3", "-W", "ignore", "/opt/postprox", "up"], True),
        (["nice", "-n", "5", "/p/postprox", "up"], True),
        (["nice", "--adjustment", "5", "ionice", "-c2", "-t", "/p/postprox", "up"], True),
        (["ionice", "--class", "best-effort", "/p/postprox", "up"], True),
        (["taskset", "-c", "0,1", "/p/postprox", "up"], True),
        (["chrt", "--batch", "0", "/p/postprox", "up"], True),
        (["env", "LC_ALL=C", "python3", "-m", "postprox", "up"], True),
        (["stdbuf", "-oL", "-e", "L", "/p/postprox", "up"], True),
        (["setpriv", "--no-new-privs", "--bounding-set", "-all", "/p/postprox", "up"], True),
        (["env", "-i", "/p/postprox", "up"], False),
        (["chrt", "-f", "10", "/p/postprox", "up"], False),
        (["ionice", "-c", "1", "/p/postprox", "up"], False),
        (["setpriv", "--reuid=mail", "/p/postprox", "up"], False),
        (["setsid", "/p/postprox", "up"], False),
        (["timeout", "300", "/p/postprox", "up"], False),
        (["python3", "-m", "other", "postprox"], False),
        (["python3", "/opt/other.py", "/p/postprox"], False),
        (["/usr/bin/python3", "postgrey"], False),
        (["/usr/sbin/proxsmtpd"], False),
        ([], False),
    ],
)
def test_proxy_command_is_recognised(words: list[str], ours: bool) -> None:
    assert is_proxy(words) == ours
    assert not ours or arguments(words) == ("up",)


def test_documentation_lists_every_finding_with_its_level() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([12]) \|", DOCUMENT.read_text(), re.M)
    assert {name: int(level) for name, level in rows} == LEVELS


def test_every_postconf_default_is_used() -> None:
    sources = "".join(path.read_text() for path in Path(postconf.__file__).parent.glob("*.py"))
    asked = {name for name in postconf.DEFAULTS if sources.count(f'"{name}"') > 1}
    assert asked == set(postconf.DEFAULTS)
