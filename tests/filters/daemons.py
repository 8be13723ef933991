"""The daemons that the example filters use. The tests start and stop them.

Rule: a daemon uses neither the machine's configuration nor the network. It has a private directory
with a Unix domain socket and a few signatures or rules.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

#: The time limit for the start of a daemon, in seconds.
PATIENCE = 60.0
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The harmless test string that every scanner detects, split so that scanners ignore this file.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

_CLAMD = """\
Foreground yes
DatabaseDirectory {dir}/db
LocalSocket {dir}/clamd.sock
LocalSocketMode 666
MaxThreads 2
"""

# Debian's rules would take seconds to load and would query the DNS. The included file defines the
# header fields that the filter reads.
_SPAMASSASSIN = r"""
include /usr/share/spamassassin/10_default_prefs.cf
use_bayes 0
skip_rbl_checks 1
dns_available no
report_safe 0
body TEST_SPAM /cheap pills/
score TEST_SPAM 6
body TEST_CERTAIN /cheapest pills of all/
score TEST_CERTAIN 20
header TEST_SENDER EnvelopeFrom =~ /^spammer\@example\.net$/
score TEST_SENDER 6
"""

_RSPAMD = """
options {{
    pidfile = "{dir}/rspamd.pid"; control_socket = "{dir}/control.sock mode=0600";
    hs_cache_dir = "{dir}"; cache_file = "{dir}/cache"; stats_file = "{dir}/stats";
    history_file = "{dir}/history"; url_tld = "{dir}/domains"; filters = ""; explicit_modules = [];
    dns {{ nameserver = ["127.0.0.1:1"]; }}
}}
logging {{ type = "console"; level = "warning"; }}
worker "normal" {{ bind_socket = "{dir}/rspamd.sock mode=0666"; count = 1; }}
lua = "{dir}/rules.lua";
modules {{ path = "{dir}/none.lua"; }}
actions {{ reject = 15; add_header = 6; rewrite_subject = 8; subject = "[spam] %s"; greylist = 4; }}
"""

_RSPAMD_RULES = """
local function rule(name, score, matches)
    rspamd_config:register_symbol{name = name, score = score, callback = matches}
end
local function has(text)
    return function(task) return tostring(task:get_rawbody()):find(text, 1, true) ~= nil end
end
rule('MAYBE', 5, has('perhaps pills'))
rule('SPAM', 7, has('cheap pills'))
rule('LOTTERY', 9, has('lottery'))
rule('CERTAIN', 20, has('cheapest pills of all'))
rule('ENVELOPE', 20, function(task)
    return task:get_from('smtp')[1].addr == 'spammer@example.net'
        and task:get_recipients('smtp')[1].addr == 'b@example.org'
        and tostring(task:get_from_ip()) == '192.0.2.66'
        and task:get_helo() == 'evil.example'
end)
rule('LATER', 1, function(task)
    if has('later')(task) then task:set_pre_result('soft reject', 'Come back later') end
end)
rule('WORDS', 1, function(task)
    if has('own words')(task) then task:set_pre_result('reject', 'We know you\\n250 too well') end
end)
rule('HEADERS', 0, function(task)
    if has('headers')(task) then
        task:set_milter_reply({
            add_headers = {
                ['X-Added'] = 'one\\n two', ['X-Twice'] = {{value = 'a'}, {value = 'b'}},
            },
            remove_headers = {['X-Spam-Level'] = 0, ['X-Kept'] = 2, ['X-Last'] = -1},
        })
    end
end)
"""


@contextlib.contextmanager
def clamd(directory: Path) -> Iterator[Path]:
    """Run a clamd whose only signature is EICAR. Yield its configuration file."""
    (directory / "db").mkdir()
    (directory / "db/test.ndb").write_text(f"Test.EICAR:0:*:{EICAR.encode().hex()}\n")
    config = directory / "clamd.conf"
    config.write_text(_CLAMD.format(dir=directory))
    with _running(["clamd", f"--config-file={config}"], directory / "clamd.sock"):
        yield config


@contextlib.contextmanager
def spamd(directory: Path) -> Iterator[Path]:
    """Run a spamd with three test rules. Yield its socket."""
    (directory / "local.cf").write_text(_SPAMASSASSIN)
    (directory / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    path = directory / "spamd.sock"
    command = ["spamd", "--local", "--nouser-config", "--syslog=stderr"]
    command += [] if os.geteuid() else ["--username=nobody"]  # only root can become another user
    command += ["--max-children=1", f"--socketpath={path}", "--socketmode=0666"]
    command += [f"--configpath={directory}", f"--siteconfigpath={directory}"]
    with _running(command, path):
        yield path


@contextlib.contextmanager
def rspamd(directory: Path) -> Iterator[Path]:
    """Run an rspamd with test rules. Yield its socket."""
    (directory / "rspamd.conf").write_text(_RSPAMD.format(dir=directory))
    (directory / "rules.lua").write_text(_RSPAMD_RULES)
    (directory / "none.lua").touch()
    (directory / "domains").write_text("example\nnet\norg\n")
    path = directory / "rspamd.sock"
    # rspamd runs as the current user, to which the directory belongs.
    command = ["rspamd", "--no-fork", "--insecure", f"--config={directory}/rspamd.conf"]
    with _running(command, path, _pings):
        yield path


#: Differences from a real site: a known socket and a short list of domains, which loads fast.
_SITE = {
    "override.d/worker-normal.inc": 'bind_socket = "{dir}/rspamd.sock mode=0666"; count = 1;',
    # No network reaches this nameserver, so each query fails immediately.
    "override.d/options.inc": 'url_tld = "{dir}/domains"; dns {{ nameserver = ["192.0.2.53"]; }}',
    "override.d/logging.inc": 'type = "console"; level = "warning";',
}

#: Runs both programs in a network namespace that contains only 127.0.0.1.
_ALONE = """
ip link set lo up
setpriv --pdeathsig KILL \\
    redis-server --bind 127.0.0.1 --unixsocket {dir}/redis.sock --save "" >/dev/null &
exec rspamd --no-fork --insecure --config={dir}/etc/rspamd.conf --var=CONFDIR={dir}/etc \\
    --var=LOCAL_CONFDIR={dir}/etc --var=DBDIR={dir} --var=RUNDIR={dir} --var=LOGDIR={dir}
"""


@contextlib.contextmanager
def packaged_rspamd(directory: Path, local: Mapping[str, str]) -> Iterator[Path]:
    """Run an rspamd with the package's configuration and files in local.d. Yield its socket."""
    site = shutil.copytree("/etc/rspamd", directory / "etc")
    for name in ("local.d", "override.d"):
        shutil.rmtree(site / name, ignore_errors=True)
        (site / name).mkdir()
    for name, text in local.items():
        (site / "local.d" / name).write_text(text)
    for name, text in _SITE.items():
        (site / name).write_text(text.format(dir=directory))
    (directory / "domains").write_text("example\nnet\norg\n")
    path = directory / "rspamd.sock"
    # The shell executes rspamd, and redis ends with it.
    command = ["unshare", "--net", "/bin/sh", "-c", _ALONE.format(dir=directory)]
    with _running(command, path, _pings):
        yield path


def _pings(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        return b"pong" in client.recv(4096)


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    return True


@contextlib.contextmanager
def _running(
    command: Sequence[str], path: Path, serves: Callable[[Path], bool] = _connects
) -> Iterator[None]:
    program = shutil.which(command[0], path=PROGRAMS)
    assert program is not None
    log = path.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": PROGRAMS},
        ) as process,
    ):
        try:
            _wait(process, lambda: serves(path), log)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait(process: subprocess.Popen[bytes], serves: Callable[[], bool], log: Path) -> None:
    """Poll until the daemon serves clients."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if serves():
                return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} does not serve: {log.read_text(errors='replace')}")
