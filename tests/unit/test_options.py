"""Tests of the proxy's command line: values, defaults and errors."""

from __future__ import annotations

import syslog
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postprox.core import limits, log_levels
from postprox.core import options as module
from postprox.core.options import LISTENING, TABLE, Options, UsageError, parse

if TYPE_CHECKING:
    from postprox.core.options import Record


def test_omitted_options_have_defaults() -> None:
    options = parse(["mx.example:10026"])
    assert options.target.text == "mx.example:10026"
    assert options.command is None
    assert options.directory == "/tmp"
    assert options.timeout == 30
    assert not options.reject
    assert not options.strict
    assert options.log_level == log_levels.WARNING
    assert options.listen is None
    assert (options.metrics, options.pid_file) == ("", "")
    assert not options.foreground
    assert options.max_sessions == limits.SESSIONS
    assert options.information == ""
    assert Options().log_level == log_levels.WARNING


def settings_of(options: Options) -> tuple[object, ...]:
    return (
        options.target.text,
        options.command,
        options.directory,
        options.timeout,
        options.reject,
        options.log_level,
        options.listen,
    )


EVERYTHING = ("up:25", "cmd x", "/spool", 5.0, True, log_levels.INFO, ("127.0.0.1", 2525))


@pytest.mark.parametrize(
    "arguments",
    [
        ["up:25", "-c", "cmd x", "-d", "/spool", "-t", "5", "-r", "-v", "-l", "2525"],
        ["-c", "cmd x", "-d", "/spool", "-t", "5", "-rv", "-l", "2525", "up:25"],
        ["-c", "cmd x", "-d", "/spool", "up:25", "-t5", "-vr", "-l2525"],
        ["-ccmd x", "-d/spool", "-rvt5", "-l", "127.0.0.1:2525", "--", "up:25"],
        ["-rvl2525", "up:25", "-rt", "5", "-d", "/spool", "-c", "cmd x"],
        [
            "--command=cmd x",
            "--tempdir=/spool",
            "--timeout=5",
            "--reject",
            "--verbose",
            "--listen=2525",
            "up:25",
        ],
        [
            "--command",
            "cmd x",
            "--tempdir",
            "/spool",
            "--timeout",
            "5.0",
            "--rej",
            "--verb",
            "--lis",
            ":2525",
            "up:25",
        ],
        ["up:25", "-t9", "-t5", "-c", "old", "-c", "cmd x", "-d/", "-d/spool", "-rv", "-l2525"],
    ],
)
def test_all_option_spellings_are_parsed(arguments: list[str]) -> None:
    assert settings_of(parse(arguments)) == EVERYTHING


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ([], log_levels.WARNING),
        (["-v"], log_levels.INFO),
        (["-vv"], log_levels.DEBUG),
        (["-v", "--verbose", "-vvv"], log_levels.DEBUG),
    ],
)
def test_each_v_option_increases_log_level(arguments: list[str], level: int) -> None:
    assert parse([*arguments, "up"]).log_level == level


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1.0), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("007", 7.0), ("1000000", 1e6)],
)
def test_timeout_is_parsed(text: str, seconds: float) -> None:
    assert parse(["up", "-t", text]).timeout == seconds


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.0",
        "00",
        "-5",
        "+5",
        "1e3",
        "inf",
        "nan",
        "x",
        "5s",
        "5 ",
        " 5",
        "1_000",
        "0x10",
        "1.2.3",
        ".",
        "",
        "\u0665",
        "²",
        "9" * 400,
    ],
)
def test_invalid_timeout_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="positive number") as raised:
        parse(["up", f"--timeout={text}"])
    assert str(raised.value).startswith(f"--timeout {text!r}: ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("2525", ("127.0.0.1", 2525)),
        (":2525", ("127.0.0.1", 2525)),
        ("0.0.0.0:2525", ("0.0.0.0", 2525)),
        ("localhost:2525", ("localhost", 2525)),
        ("[::1]:2525", ("::1", 2525)),
        ("[::]:2525", ("::", 2525)),
        ("1", ("127.0.0.1", 1)),
        ("65535", ("127.0.0.1", 65535)),
        ("00025", ("127.0.0.1", 25)),
    ],
)
def test_listen_address_is_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse(["up", "-l", text]).listen == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "99999",
        "000000070000",
        "00000170000",
        "-1",
        "+25",
        "smtp",
        "2525x",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:x",
        "::1",
        "::1:2525",
        "[::1]",
        "[::1]2525",
        "[::1:2525",
        "[::1]:25]",
        "[::1]::25",
        "000025",
        "\u0665",
    ],
)
def test_invalid_listen_address_is_rejected(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(["up", "-l", text])
    assert str(raised.value).startswith(f"-l {text!r}: ")


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("100", 100), ("9" * 5000, 999_999_999)])
def test_session_limit_is_parsed(text: str, count: int) -> None:
    assert parse(["up", "-l25", "--max-sessions", text]).max_sessions == count


@pytest.mark.parametrize("text", ["0", "-1", "+1", "1.5", "many", "", " 1", "\u0665"])
def test_invalid_session_limit_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="positive whole number") as raised:
        parse(["up", "-l25", f"--max-sessions={text}"])
    assert repr(text) in str(raised.value)


LISTENING_ONLY = ["--foreground", "--max-sessions=5", "--metrics=/m", "--pid-file=/p"]


@pytest.mark.parametrize(
    ("arguments", "log"),
    [
        ((), ""),
        (("--log", "syslog"), "syslog"),
        (("-l25", "--log=syslog"), "syslog"),
        (("-l25", "--foreground", "--log=stderr"), "stderr"),
    ],
)
def test_log_destination_is_parsed(arguments: tuple[str, ...], log: str) -> None:
    assert parse(["up", *arguments]).log == log


@pytest.mark.parametrize("text", ["", "Syslog", "stdout", "/dev/log", "stderr "])
def test_unknown_log_destination_is_rejected(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(["up", "-l25", "--foreground", f"--log={text}"])
    assert str(raised.value) == f"--log {text!r}: must be syslog or stderr"


@pytest.mark.parametrize("arguments", [(), ("-l25",)])
def test_stderr_log_requires_foreground_server(
    arguments: tuple[str, ...],
) -> None:
    with pytest.raises(UsageError, match=r"^--log stderr requires --listen .* and --foreground$"):
        parse(["up", "--log=stderr", *arguments])


def test_foreground_option_without_listen_option_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"^--foreground requires --listen \[IP:\]PORT$"):
        parse(["up", "--log=stderr", "--foreground"])


def test_same_file_for_metrics_and_pid_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"^--metrics and --pid-file '/run/p': must be different"):
        parse(["up", "-l25", "--metrics=/run/p", "--pid-file=/run/p"])


def test_server_options_are_parsed() -> None:
    options = parse(["up", "-l25", *LISTENING_ONLY])
    assert options.foreground
    assert (options.max_sessions, options.metrics, options.pid_file) == (5, "/m", "/p")


def test_strict_option_implies_reject_option() -> None:
    options = parse(["up", "--strict"])
    assert (options.strict, options.reject) == (True, True)


def test_empty_command_is_accepted() -> None:
    assert parse(["up", "-c", ""]).command == ""


def test_option_table_covers_every_attribute_of_options() -> None:
    attributes = {attribute for _, _, _, attribute, *_ in TABLE}
    assert set(Options.__slots__) - attributes == {"clock_speed", "target"}


def test_option_names_are_unique() -> None:
    names = [name for letter, long, *_ in TABLE for name in (letter, long) if name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("record", TABLE, ids=[name for _, name, *_ in TABLE])
def test_every_option_in_table_is_parsed(record: Record) -> None:
    _, name, argument, attribute, _, applies, _ = record
    value = {"[IP:]PORT": "26", "SEC": "5", "N": "5", "syslog|stderr": "syslog"}
    words = [f"--{name}"] + [value.get(argument, "/x")] * bool(argument)
    listen = ["-l25"] * (applies == LISTENING)
    options = parse([*words, *listen, "up"])
    assert getattr(options, attribute) != getattr(Options(), attribute)


def test_no_option_name_is_prefix_of_another() -> None:
    names = sorted(name for _, name, *_ in TABLE)
    assert not [one for one, next_ in pairwise(names) if next_.startswith(one)]


def test_log_levels_match_syslog() -> None:
    given = (log_levels.ERROR, log_levels.WARNING, log_levels.INFO, log_levels.DEBUG)
    assert given == (syslog.LOG_ERR, syslog.LOG_WARNING, syslog.LOG_INFO, syslog.LOG_DEBUG)


def test_clock_speed_is_read_from_environment() -> None:
    assert parse(["up"], b"60").clock_speed == 60


@pytest.mark.parametrize("speed", [b"0", b"fast", b"\xff"])
def test_invalid_clock_speed_is_rejected(speed: bytes) -> None:
    with pytest.raises(UsageError, match=r"^POSTPROX_CLOCK_SPEED in the environment '"):
        parse(["up"], speed)


@pytest.mark.parametrize("option", LISTENING_ONLY)
def test_server_option_without_listen_option_is_rejected(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(UsageError, match=rf"^{name} requires --listen \[IP:\]PORT$"):
        parse(["up", option])


@pytest.mark.parametrize("option", LISTENING_ONLY)
def test_server_option_before_listen_option_is_accepted(option: str) -> None:
    assert parse([option, "up", "-l", "25"]).listen == ("127.0.0.1", 25)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["-h"], "help"),
        (["-L"], "license"),
        (["-V"], "version"),
        (["--help"], "help"),
        (["--license"], "license"),
        (["--version"], "version"),
        (["--vers"], "version"),
        (["-rvh"], "help"),
        (["up", "-t", "5", "-V"], "version"),
        (["-h", "--nonsense"], "help"),
        (["--foreground", "-h"], "help"),
    ],
)
def test_informational_option_is_parsed(arguments: list[str], wanted: str) -> None:
    assert parse(arguments).information == wanted


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "HOST:PORT is missing; give the address of the upstream server"),
        (["--"], "HOST:PORT is missing; give the address of the upstream server"),
        (["up", "down"], "unexpected argument 'down'; HOST:PORT is already 'up'"),
        (["up", "--", "-v"], "unexpected argument '-v'; HOST:PORT is already 'up'"),
        (["up", "-x"], "unknown option -x"),
        (["up", "-rx"], "unknown option -x in -rx"),
        (["up", "-rv="], "unknown option -= in -rv="),
        (["up", "-r\r"], r"unknown option '-\r' in '-r\r'"),
        (["up", "--non\nsense"], r"unknown option '--non\nsense'"),
        (["up", "--nonsense"], "unknown option --nonsense"),
        (["up", "--nonsense=5"], "unknown option --nonsense"),
        (["up", "--Reject"], "unknown option --Reject"),
        (["up", "--li=25"], "ambiguous option --li; use --listen or --license"),
        (["up", "--reject=yes"], "option --reject takes no value; got 'yes'"),
        (["up", "--reject="], "option --reject takes no value; got ''"),
        (["up", "--help=me"], "option --help takes no value; got 'me'"),
        (["up", "-c"], "option -c requires a value"),
        (["up", "-rc"], "option -c requires a value"),
        (["up", "--command"], "option --command requires a value"),
        (["up", "--comm"], "option --command requires a value"),
        (["up", "-d", ""], "-d: the directory name is missing"),
        (["up", "--tempdir="], "--tempdir: the directory name is missing"),
        (["up", "--metrics="], "--metrics: the file name is missing"),
        (["up", "--pid-file="], "--pid-file: the file name is missing"),
        ([""], "HOST:PORT '': the host is missing"),
        (
            ["[::1]:25]"],
            "HOST:PORT '[::1]:25]': the port must be a number from 1 to 65535, not '25]'",
        ),
        (["up:x"], "HOST:PORT 'up:x': the port must be a number from 1 to 65535, not 'x'"),
    ],
)
def test_invalid_command_line_raises_usage_error(arguments: list[str], error: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(arguments)
    assert str(raised.value) == error


def test_lone_hyphen_is_positional_argument() -> None:
    assert parse(["-"]).target.text == "-"


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["up:25", "-", "--", "-c", "-rv", "-t5", "-t", "0", "-l", "--li", "-x", "[::1"]
    ),
)


@given(st.lists(WORDS, max_size=6))
@example(["\ud800"])
def test_any_command_line_is_parsed_or_rejected(arguments: list[str]) -> None:
    try:
        options = parse(arguments)
    except UsageError:
        return
    assert options.information or options.target.text


def test_unix_socket_address_sets_only_path() -> None:
    target = parse(["unix:/run/up"]).target
    assert (target.host, target.port, target.path) == ("", 25, "/run/up")


def test_host_with_equals_sign_is_rejected() -> None:
    with pytest.raises(UsageError, match="a host name cannot contain an equals sign"):
        parse(["NAME=mx.example:10026"])


def test_packaged_unit_sets_postprox_environment_file_variable() -> None:
    unit = Path(__file__).parents[2] / "packaging/postprox.service"
    assert f"\nEnvironment={module.ENVIRONMENT_FILE.decode()}=/" in unit.read_text()
