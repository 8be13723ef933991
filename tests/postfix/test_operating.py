"""The pages on operation, monitoring and troubleshooting: log lines, time limits and commands.

Every quoted log line occurs as described. The time limits match the proxy, the unit, the recipe and
Postfix.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from benchmarks import document, ways
from benchmarks.results import Results
from postprox.check import unit
from postprox.core import limits
from postprox.shell import log, stale_files
from tests.support.fixtures import Serve
from tests.support.proxies import Serving, starting
from tests.support.upstream import MESSAGE, Upstream, greeted, in_data

from . import readme
from .client import message, submit
from .instance import Postfix, missing, program, public_directory, wait_for
from .site import Site
from .test_setup_commands import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
MONITORING = (ROOT / "docs/monitoring.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()
PROXYS, POSTFIXS = TROUBLESHOOTING.partition("| message in Postfix's log |")[::2]
QUOTED = re.findall(r"(?m)^\| `([^`]+)` \|", PROXYS.partition("| message in the proxy's log |")[2])
QUOTED_OF_POSTFIX = re.findall(r"(?m)^\| `([^`]+)` \|", POSTFIXS)


# --- log lines -----------------------------------------------------------------------------------

#: The proxy variant and the filter that cause each log line.
FILTERS = {
    "filter failed: exit status 127 (the command was not found)": ("strict_before", "nosuch"),
    "filter failed: exit status 126 (the command cannot be executed)": (
        *("strict_before", "/etc/passwd"),
    ),
    "filter failed: exit status 2": ("strict_before", "exit 2"),
    "filter failed: timed out after": ("hasty-strict_before", "sleep 600"),
    "message passed unfiltered": ("open_before", "exit 2"),
    "cannot spool the message:": ("spoolless_before", "exit 0"),
    "cannot reach upstream:": ("cut-off_before", "exit 0"),
    "invalid command line:": ("misconfigured_before", "exit 0"),
}
LISTENING = {
    "filter failed: exit status 1 without a reply code (--strict)",
    "upstream closed the connection",
    "upstream does not speak SMTP",
    "session limit reached",
    "the client is silent",
    "the client is too slow",
    "the client speaks LMTP",
    "cannot write --metrics",
    "result=unknown",
    "stale files of a killed proxy",
    "log lines were dropped",
}
#: The service's log lines, each with the proxy arguments or the unit setting that cause it.
OF_SERVICE = {
    "(see /etc/default/postprox and postprox --help)": "-t never",
    "/etc/default/postprox: No such file or directory": "",
    "postprox cannot reload": "ExecReload",
}
OF_POSTFIX = {
    'rejected "connection request": "421 4.4.1': "cut-off_before",
    'rejected "connection request": "421 4.3.5': "misconfigured_before",
    "421 4.3.5 The mail filter speaks SMTP": "open_lmtp",
    'rejected "DATA": "452 4.3.1': "spoolless_before",
    "warning: timeout talking to proxy": "open_impatient",
    "said: 451 4.3.0 The mail filter has failed, try again later": "strict_after",
    "exit status 2": "misconfigured_before",
    "exit status 1": "cut-off_before",
}
NEVER_THERE = {
    "refused": "warning: connect to proxy filter",
    "userless": "fatal: unknown user name: ",
}


def test_every_documented_log_line_is_tested() -> None:
    assert set(QUOTED) == set(FILTERS) | LISTENING | OF_SERVICE.keys()
    assert set(QUOTED_OF_POSTFIX) == set(OF_POSTFIX) | set(NEVER_THERE.values())


@pytest.mark.parametrize("quoted", OF_SERVICE)
def test_service_error_is_logged_as_documented(tmp_path: Path, quoted: str) -> None:
    case, file = OF_SERVICE[quoted], tmp_path / "postprox"
    if case == "ExecReload":
        (line,) = re.findall(
            "(?m)^ExecReload=(.*)$", (ROOT / "packaging/postprox.service").read_text()
        )
        command = shlex.split(line)
    else:
        command = [sys.executable, "-m", "postprox", "-l", "1", "--foreground", *case.split()]
    if case:
        file.touch()
    environment = {**os.environ, "POSTPROX_ENVIRONMENT_FILE": str(file)}
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert quoted in done.stderr.replace(str(tmp_path), "/etc/default")


@pytest.fixture
def lines(site: Site) -> Site:
    if site.syslog is None:
        pytest.skip("a private /dev/log requires a mount namespace, which is not permitted")
    return site


@pytest.mark.parametrize(("quoted", "case"), FILTERS.items(), ids=list(FILTERS))
def test_filter_and_system_errors_are_logged_as_documented(
    lines: Site, quoted: str, case: tuple[str, str]
) -> None:
    assert lines.syslog is not None
    del lines.syslog.lines[:]
    way, script = case
    lines.send(way, lines.proxy.box(script), message("operating"))
    assert lines.wait_syslog(quoted)


@pytest.mark.parametrize(("quoted", "way"), OF_POSTFIX.items(), ids=list(OF_POSTFIX))
def test_postfix_log_lines_match_documentation(site: Site, quoted: str, way: str) -> None:
    before = site.postfix.log().count(quoted)
    script = "sleep 3" if way == "open_impatient" else "exit 2"
    site.send(way, site.proxy.box(script), message("operating"))
    wait_for(quoted, lambda: site.postfix.log().count(quoted) > before)
    site.proxy.wait_clean(site.postfix)


def test_postfix_log_lines_for_missing_proxy_match_documentation(needs_postfix: None) -> None:
    with (
        public_directory("postprox-operating-") as directory,
        Postfix(
            directory,
            ("refused", "userless", "proxy", "nowhere"),
            lambda at: (
                f"{at['refused']} inet n - n - - smtpd -o smtpd_proxy_filter={at['nowhere']}\n"
                f"{at['userless']} inet n - n - - smtpd -o smtpd_proxy_filter={at['proxy']}\n"
                f"{at['proxy']} inet n n n - 20 spawn user=no-such-user argv=/bin/true\n"
            ),
        ) as postfix,
    ):
        for name, quoted in NEVER_THERE.items():
            address = postfix.addresses[name]
            reply = submit(address, "a@mail.test", ["b@mail.test"], message("operating"))
            assert reply == (451, b"4.3.0 Error: queue file write error")
            postfix.wait_log(re.escape(quoted))


@pytest.fixture
def serve(serve: Serve, lines: Site) -> Serve:
    assert lines.syslog is not None
    return partial(serve, prelude=lines.syslog.private_dev())


def test_missing_reply_code_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    client = serve("--strict", "-c", "exit 1", upstream.address).client()
    in_data(client, upstream)
    client.says(*MESSAGE)
    assert lines.wait_syslog("filter failed: exit status 1 without a reply code (--strict)")


def test_upstream_disconnect_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    client = serve(upstream.address).client()
    greeted(client, upstream).leaves()
    assert lines.wait_syslog("upstream closed the connection")


def test_invalid_upstream_reply_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    serve(upstream.address).client()
    upstream.accepts().says(b"HTTP/1.1 400 Bad Request")
    assert lines.wait_syslog("upstream does not speak SMTP")


def test_session_limit_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    greeted(serve("--max-sessions", "1", upstream.address).client(), upstream)
    assert lines.wait_syslog("session limit reached (1), further clients wait")


FAST = {"POSTPROX_CLOCK_SPEED": "200"}


def test_silent_client_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    greeted(serve(upstream.address, variables=FAST).client(), upstream)
    assert lines.wait_syslog("the client is silent")


def test_slow_client_is_logged_as_documented(serve: Serve, upstream: Upstream, lines: Site) -> None:
    client = serve(upstream.address, variables=FAST).client()
    peer = in_data(client, upstream)
    for _ in range(int(limits.MESSAGE_TIME // limits.KEEPALIVE) - 1):
        peer.sees(b"NOOP")
        peer.says(b"250 ok")
        client.sends(b"x")
    assert lines.wait_syslog("the client is too slow")


def test_lmtp_client_is_logged_as_documented(serve: Serve, upstream: Upstream, lines: Site) -> None:
    client = serve(upstream.address).client()
    greeted(client, upstream)
    client.says(b"LHLO client.example")
    assert lines.wait_syslog("the client speaks LMTP")


def test_unwritable_metrics_file_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site, tmp_path: Path
) -> None:
    file = tmp_path / "there/postprox.prom"
    file.parent.mkdir()
    server = serve(
        *("--metrics", str(file), upstream.address), variables={"POSTPROX_CLOCK_SPEED": "100"}
    )
    greeted(server.client(), upstream)
    file.parent.rename(tmp_path / "gone")
    assert lines.wait_syslog("cannot write --metrics")


def test_lost_final_reply_is_logged_as_documented(
    serve: Serve, upstream: Upstream, lines: Site
) -> None:
    client = serve("-v", upstream.address).client()
    peer = in_data(client, upstream)
    client.says(*MESSAGE)
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    peer.sees(*MESSAGE)
    peer.leaves()
    client.sees_reply(b"451 ")
    assert lines.wait_syslog("result=unknown")


def test_stale_files_are_logged_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postprox-0123456789abcdef.email").touch()
    said: list[str] = []
    monkeypatch.setattr(log, "write", lambda _, text: said.append(text))
    hour_later = time.time() + 3600
    monkeypatch.setattr("time.time", lambda: hour_later)
    stale_files.remove_stale_files(str(tmp_path))
    assert said == [f"removed 1 stale files of a killed proxy from {tmp_path}"]


def test_dropped_log_lines_are_reported_as_documented() -> None:
    # tests/unit/test_log.py and test_stderr.py check the conditions under which lines are dropped.
    assert log.dropped(2).endswith("log lines were dropped")


# --- time limits and figures ---------------------------------------------------------------------

LIMITS = dict(re.findall(r"(?m)^\| ([^|]+) \| (\d+) \|", PAGE.partition("## Time limits")[2]))


def setting(name: str, key: str) -> int:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read(ROOT / "packaging/postprox.service")
    return int(parser[name][key])


def recipe(pattern: str) -> int:
    files = [readme.README, *sorted(readme.RECIPE.iterdir())]
    (value,) = set(re.findall(pattern, "".join(path.read_text() for path in files)))
    return int(value)


TIMES: dict[str, Callable[[], float]] = {
    "the proxy waits for the filter: `-t`": lambda: recipe(r"--strict -t (\d+) "),
    "Postfix waits for the proxy, before the queue: `smtpd_proxy_timeout`": (
        lambda: recipe(r"smtpd_proxy_timeout = (\d+)s")
    ),
    "the sender waits for a reply to its message": lambda: default("smtp_data_done_timeout"),
    "the proxy waits for a connection to the upstream server": lambda: limits.CONNECT,
    "the proxy waits for the upstream server's reply to a command": lambda: limits.UPSTREAM_REPLY,
    "the proxy waits for the upstream server's reply to DATA": lambda: limits.UPSTREAM_DATA,
    "the proxy waits for the upstream server's reply to the message": lambda: limits.UPSTREAM_FINAL,
    "the upstream server waits for a command: `smtpd_timeout` in the recipe": (
        lambda: recipe(r"-o stress= -o smtpd_timeout=(\d+)s")
    ),
    "the proxy waits for a silent client": lambda: limits.CLIENT_IDLE,
    "the proxy waits for a complete command line": lambda: limits.CLIENT_IDLE,
    "the proxy waits for a complete message, plus one second for every 400 octets": (
        lambda: limits.MESSAGE_TIME
    ),
    "spawn(8) waits for the session to end: `command_time_limit`": lambda: default(
        "command_time_limit"
    ),
    "the proxy waits for messages in progress before it stops": lambda: limits.STOP_GRACE,
    "systemd waits for the proxy to stop: `TimeoutStopSec`": lambda: setting(
        "Service", "TimeoutStopSec"
    ),
    "systemd waits for a watchdog notification: `WatchdogSec`": lambda: setting(
        "Service", "WatchdogSec"
    ),
    "systemd waits before it restarts the proxy: `RestartSec`": lambda: setting(
        "Service", "RestartSec"
    ),
}


def default(name: str) -> int:
    """Return Postfix's default value for a parameter."""
    if missing():
        pytest.skip("Postfix is not installed")
    command = [str(program("postconf")), "-dxh", name]
    value = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(value.strip().removesuffix("s"))


def test_every_documented_time_limit_is_tested() -> None:
    assert set(LIMITS) == set(TIMES)


@pytest.mark.parametrize("what", TIMES)
def test_time_limit_matches_documentation(what: str) -> None:
    assert int(LIMITS[what]) == TIMES[what]()


def test_message_rate_matches_documentation() -> None:
    assert f"for every {limits.MESSAGE_RATE} octets" in PAGE


def test_keepalive_is_sent_before_documented_postfix_timeout() -> None:
    assert f"NOOP after {limits.KEEPALIVE:g} s of silence" in PAGE
    (waits,) = (limit for what, limit in LIMITS.items() if "`smtpd_timeout`" in what)
    assert int(waits) > limits.KEEPALIVE


WAYS, PARTS = (Results.read(ROOT / path) for path in (document.WAYS, document.PARTS))


def processor(size: str, way: str) -> float:
    """Return the processor time of a message with a shell script as filter in ms."""
    (load,) = (each for each in WAYS.comparisons if each.name == f"path-script-{size}-8")
    (samples,) = (each.samples for each in load.ways if each.name == way)
    return median(samples)


def part(label: str) -> float:
    """Return the median of a figure."""
    (samples,) = (figure.samples for figure in PARTS.figures if figure.label == label)
    return median(samples)


@pytest.mark.parametrize(
    ("printed", "measured"),
    [
        (r"about (\d+) ms of processor time", processor("4kb", ways.LISTENING_BEFORE)),
        (r"unfiltered mail takes (\d+) ms", processor("4kb", ways.UNFILTERED)),
        (r"4 KB message, spawned \| about (\d+) ms", processor("4kb", ways.SPAWNED_AFTER)),
        (r"1 MB message, listening \| about (\d+) ms", processor("1mb", ways.LISTENING_BEFORE)),
        (r"unfiltered (\d+) ms \|", processor("1mb", ways.UNFILTERED)),
        (r"about ([\d.]+) KB of memory", part("memory per idle session")),
        (r"about (\d+) MB of memory", part("peak memory with a message of 1 GB and `-c true`")),
    ],
)
def test_documented_figure_matches_measurement(printed: str, measured: float) -> None:
    (value,) = re.findall(printed, PAGE)
    # The page contains approximate figures for sizing. docs/performance.md contains exact figures.
    assert float(value) == pytest.approx(measured, rel=0.5)


def test_descriptor_counts_match_documentation() -> None:
    own = limits.OWN_DESCRIPTORS
    assert f"{limits.SESSION_DESCRIPTORS} for each session, plus {own}" in PAGE
    allowed = setting("Service", "LimitNOFILE")
    assert f"the unit allows {allowed}, which is enough for about 400 sessions" in PAGE
    assert (allowed - own) // limits.SESSION_DESCRIPTORS // 100 == 4


# --- commands and configurations -----------------------------------------------------------------

BLOCKS = readme.indented(PAGE)
(FSTAB,), (MOUNT,) = (
    [block for block in BLOCKS if block.startswith(word)] for word in ("tmpfs", "mount")
)
(UPGRADE,) = (block for block in BLOCKS if block.startswith("sh packaging/install"))


def test_spool_in_tmpfs_is_created_as_documented(tmp_path: Path) -> None:
    user = readme.start().user
    seen = """
stat -f -c %T /var/spool/postprox; stat -c '%U %G %a' /var/spool/postprox
try() { python3 -m postprox.rehearse --json -d /var/spool/postprox -c true \
    postprox/rehearse/demo/1-hello.eml | grep -o '"reply": "...'; }
try
mount -o remount,size=64k /var/spool/postprox
cat /dev/zero > /var/spool/postprox/full 2>/dev/null || true
try
"""
    printed = run(tmp_path, f"{user}\ncat >> /etc/fstab <<'END'\n{FSTAB}END\n{MOUNT}{seen}")
    assert printed.splitlines() == [
        *("tmpfs", "postprox postprox 700"),
        *('"reply": "250', '"reply": "452'),
    ]


def test_upgrade_commands_work_as_documented(tmp_path: Path) -> None:
    printed = run(tmp_path, f"{UPGRADE}/usr/local/sbin/postprox --version\n")
    assert "\npostprox " in printed
    assert (tmp_path / "told").read_text() == "restart postprox.service\n"


def test_several_proxies_share_port_as_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs/growing.md").read_text()
    (commands,) = (block for block in readme.indented(page) if "postprox@1" in block)
    installed = "ls /usr/local/lib/systemd/system | grep @"
    printed = run(tmp_path, f"{readme.installation()}\n{commands}{installed}\n")
    assert printed.split()[-2:] == ["postprox@.service", "postprox@.socket"]
    said = "enable --now postprox@1.socket postprox@2.socket\n"
    assert (tmp_path / "told").read_text() == said


def test_documented_drop_in_gives_each_proxy_a_metrics_file() -> None:
    page = (ROOT / "docs/growing.md").read_text()
    drop_in, _ = re.findall(r"(?ms)^```systemd\n(.*?)^```$", page)
    service = (ROOT / "packaging/postprox.service").read_text()
    files = {"/etc/default/postprox": (ROOT / "packaging/postprox.default").read_text()}
    before, after = (
        unit.parse("postprox@1", texts, files).words for texts in ([service], [service, drop_in])
    )
    added = ("--metrics", "/run/postprox@1/postprox.prom")
    assert tuple(after) == (*before[:4], *added, *before[4:])


PARSER = program("apparmor_parser")
(PROFILE,) = re.findall(r"(?ms)^```apparmor\n(.*?)^```$", PAGE)


def apparmor(profile: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Compile the profile without loading it."""
    file = directory / "postprox"
    file.write_text(profile)
    command = [str(PARSER), "-Q", "-K", "-T", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(PARSER is None, reason="AppArmor is not installed (Debian: apparmor)")
def test_apparmor_accepts_profile(tmp_path: Path) -> None:
    assert apparmor(PROFILE, tmp_path).returncode == 0
    assert apparmor(PROFILE.replace(" rwkl,", " rwkl", 1), tmp_path).returncode != 0


(ALERTS,) = re.findall(r"(?ms)^```yaml\n(.*?)^```$", MONITORING)
PROMTOOL = program("promtool")


@pytest.fixture
def metrics(upstream: Upstream, tmp_path: Path) -> Path:
    """The metrics file of a server that has rejected a message."""
    file = tmp_path / "postprox.prom"
    for start in starting(Serving):
        server = start("-c", "exit 1", "--metrics", str(file), upstream.address)
        client = server.client()
        in_data(client, upstream)
        client.says(*MESSAGE)
        client.sees_reply(b"554 ")
        server.stop()
        client.leaves()
        server.exit_status()
    return file


def test_monitoring_command_prints_metrics(metrics: Path) -> None:
    *_, command = readme.indented(MONITORING)
    assert command == "cat /run/postprox/postprox.prom\n"
    command = command.replace("/run/postprox/postprox.prom", str(metrics))
    printed = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=True)
    assert "\npostprox_build_info{" in printed.stdout


def test_documented_options_write_metrics_file() -> None:
    (added,) = re.findall(r"Add `(--metrics \S+)` to `POSTPROX_OPTIONS`", MONITORING)
    options = (ROOT / "packaging/postprox.default").read_text()
    options = options.replace('\nPOSTPROX_OPTIONS="', f'\nPOSTPROX_OPTIONS="{added} ')
    texts = [(ROOT / "packaging/postprox.service").read_text()]
    words = unit.parse("postprox", texts, {"/etc/default/postprox": options}).words
    assert words[words.index("--metrics") + 1] == "/run/postprox/postprox.prom"
    assert "\nRuntimeDirectory=%N\n" in texts[0]


def test_metrics_used_in_alerts_exist(metrics: Path) -> None:
    written = set(re.findall(r"(?m)^(postprox_\w+)", metrics.read_text()))
    assert set(re.findall(r"postprox_\w+", ALERTS)) <= written


def test_every_metric_is_documented(metrics: Path) -> None:
    (table,) = re.findall(r"(?ms)^\| metric \| meaning \|\n(.*?)\n\n", MONITORING)
    documented = set(re.findall(r"`(postprox_\w+)", table))
    assert documented == set(re.findall(r"(?m)^# TYPE (postprox_\w+)", metrics.read_text()))


def check_metrics(text: str) -> tuple[int, str]:
    """Run promtool's parser and linter."""
    command = [str(PROMTOOL), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="Prometheus is not installed (Debian: prometheus)")
def test_promtool_accepts_metrics(metrics: Path) -> None:
    text = metrics.read_text()
    assert check_metrics(text) == (0, "")
    assert check_metrics(text.replace("message_bytes_total", "message_bytes"))[0] != 0


@pytest.mark.skipif(PROMTOOL is None, reason="Prometheus is not installed (Debian: prometheus)")
def test_prometheus_accepts_alerts(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    file.write_text(ALERTS)
    checked = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_accepts_unit_drop_in(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    (drop_in,) = re.findall(r"(?ms)^```systemd\n(.*?)^```$", PAGE)
    service = (ROOT / "packaging/postprox.service").read_text()
    for name in ("postprox.service", "postprox.socket"):
        text = (ROOT / "packaging" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/sbin/postprox", "/bin/true"))
    (tmp_path / "postprox.service.d").mkdir()
    (tmp_path / "postprox.service.d/spool.conf").write_text(drop_in)
    assert "\nReadWritePaths" not in service
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "postprox.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_documented_systemd_status_has_expected_format() -> None:
    (status,) = re.findall(r'`Status: "([^"]+)"`', MONITORING)
    assert re.fullmatch(r"sessions: \d+, filters: \d+; accept \d+, reject \d+", status)
