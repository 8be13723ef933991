"""The ways in which a site can filter mail, with the programs and filters that they require.

Rule: a way is measured if its programs are in PATH or in the usual directories. Otherwise the
results contain the reason. Every way with a test must reject a message that contains `MARK`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.postfix.instance import PROGRAMS, Address

from .figures import Bench

HERE = Path(__file__).parent
MARK = "POSTPROX-BENCHMARK-MARK"

#: The filters, which get the file's name as argument or in EMAIL.
FILTERS = {
    "script": f"""#!/bin/sh
if grep -q {MARK} "${{1:-$EMAIL}}"; then
    echo 'this message is not accepted' >&2
    exit 1
fi
""",
    "python": f"""#!/usr/bin/python3
import os, sys
with open(sys.argv[1] if len(sys.argv) > 1 else os.environ["EMAIL"], "rb") as file:
    if b"{MARK}" in file.read():
        sys.exit("this message is not accepted")
""",
    "clamdscan": """#!/bin/sh
exec clamdscan --config-file={clamd.conf} --fdpass --quiet --no-summary "${1:-$EMAIL}"
""",
    "true": "",
}
#: The program that accepts every message, as the lower limit of a filter's cost.
TRUE = "/bin/true"

#: Runs clamd(8) with a signature for `MARK` alone.
CLAMD_CONF = """DatabaseDirectory {files}/signatures
LocalSocket {files}/clamd
User root
Foreground yes
MaxThreads 100
"""
SIGNATURE = f"Benchmark:0:*:{MARK.encode().hex()}\n"

PROXSMTPD = """OutAddress: {upstream}
Listen: {proxy}
FilterType: file
FilterCommand: exec {filter}
TempDirectory: {spool}
MaxConnections: 200
"""
CLAMSMTPD = """OutAddress: {upstream}
Listen: {proxy}
ClamAddress: {files}/clamd
TempDirectory: {spool}
MaxConnections: 200
Header:
"""
CLAMAV_MILTER = """MilterSocket unix:{own}/socket
MilterSocketMode 666
ClamdSocket unix:{files}/clamd
User root
Foreground yes
OnInfected Reject
"""
#: The "simple content filter" of Postfix's FILTER_README.
SIMPLE = """#!/bin/sh
trap "rm -f in.$$" 0 1 2 3 15
cd {queue.spool} || exit 75
cat >in.$$ || exit 75
{filter} in.$$ || exit 69
/usr/sbin/sendmail -G -i "$@" <in.$$
exit $?
"""
HARAKA_PLUGIN = """const fs = require('fs');
const {execFile} = require('child_process');
exports.hook_lookup_rdns = (next) => next(OK, 'mx.mail.test');
exports.hook_rcpt = (next) => next(OK);
exports.hook_data_post = (next, connection) => {
    const path = '{spool}/' + connection.transaction.uuid;
    const file = fs.createWriteStream(path);
    file.on('close', () => execFile('{filter}', [path], (error) => {
        fs.unlink(path, () => error ? next(DENY, 'not accepted') : next());
    }));
    connection.transaction.message_stream.pipe(file);
};
"""
HARAKA = {
    "package.json": "{}\n",
    "plugins/scan.js": HARAKA_PLUGIN,
    "config/plugins": "scan\nqueue/smtp_proxy\n",
    "config/smtp.ini": "listen={proxy}\nnodes=0\n",
    "config/smtp_proxy.ini": "host={upstream.host}\nport={upstream.port}\n",
    "config/loglevel": "LOGCRIT\n",
    "config/me": "mx.mail.test\n",
    "config/host_list": "mail.test\n",
}

#: Lines of master.cf.
SMTPD = "{front} inet n - n - - smtpd{options}\n"
SPAWN = "{proxy} inet n n n - 20 spawn user={user} argv={command}\n"
PIPE = """simple unix - n n - 10 pipe flags=Rq user={user} null_sender=
    argv={command} -f ${{sender}} -- ${{recipient}}
"""
#: The user of spawned proxies and filters.
USER = "nobody"
Template = tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """A way to filter mail.

    Commands and files contain placeholders for addresses and paths (`Places`).
    """

    name: str
    #: The command of a server that runs all the time.
    server: Template = ()
    #: The command that spawn(8) runs for each connection, or that pipe(8) runs for each message.
    spawned: Template = ()
    piped: Template = ()
    #: The options of the smtpd(8) that receives the message.
    options: str = ""
    #: The files of the way, with their paths relative to `{files}/NAME`.
    files: Mapping[str, str] = field(default_factory=dict)
    #: The filters with which the way is measured.
    filters: tuple[str, ...] = tuple(FILTERS)
    #: Whether the way rejects messages.
    tests: bool = True
    #: Whether the way only serves for comparison, because no site would use it.
    reference: bool = False
    #: The required programs, and the Debian package or project that contains them.
    requires: tuple[str, ...] = ()
    source: str = ""

    def absent(self) -> str:
        """Return the reason why the way cannot be measured here, or ""."""
        missing = [name for name in self.requires if not (found(name) or Path(name).exists())]
        return f"requires {', '.join(missing)} ({self.source})" if missing else ""


BEFORE = " -o smtpd_proxy_filter={proxy}"
AFTER = " -o content_filter=scan:{proxy}"
MILTER = " -o smtpd_milters=unix:{own}/socket -o milter_default_action=tempfail"
#: The names of the ways to which others are compared.
UNFILTERED = "unfiltered"
RELAY_BEFORE = "a relay that only copies, before the queue"
RELAY_AFTER = "a relay that only copies, after the queue"
LISTENING_BEFORE = "postprox, listening, before the queue"
LISTENING_AFTER = "postprox, listening, after the queue"
SPAWNED_AFTER = "postprox, spawned, after the queue"
SIMPLE_FILTER = "simple content filter, after the queue"


def found(name: str) -> str | None:
    """Return the path of a program."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PROGRAMS}")


def haraka() -> dict[str, str]:
    """Return the files of Haraka. It requires its default connection.ini."""
    installed = Path(found("haraka") or "bin/haraka").resolve().parents[1]
    default = installed / "config/connection.ini"
    if not default.exists():
        return HARAKA
    return {**HARAKA, "config/connection.ini": default.read_text(encoding="utf-8")}


def ways(bench: Bench) -> Iterator[Way]:
    """Yield all ways, beginning with unfiltered mail."""
    yield Way(UNFILTERED, tests=False)
    relay = (bench.python, "-IS", str(HERE / "relay.py"), "{upstream}", "{proxy}")
    copying = Way("", relay, tests=False, reference=True)
    yield replace(copying, name=RELAY_BEFORE, options=BEFORE)
    yield replace(copying, name=RELAY_AFTER, options=AFTER)
    for subject in bench.subjects:
        filtering = (*subject.template, "-d", "{spool}", "-c", "{filter}")
        other = subject is not bench.postprox
        server = (*filtering, "--foreground", "--listen", "{proxy}")
        listening = Way("", server, reference=other)
        command = (*subject.template, "-d", "{queue.spool}", "-c", "{filter}")
        spawned = Way("", spawned=command, reference=other)
        name = f"{subject.name}, "
        yield replace(listening, name=f"{name}listening, before the queue", options=BEFORE)
        yield replace(listening, name=f"{name}listening, after the queue", options=AFTER)
        yield replace(spawned, name=f"{name}spawned, after the queue", options=AFTER)
    yield Way(
        "proxsmtpd, before the queue",
        ("proxsmtpd", "-d", "0", "-f", "{own}/conf"),
        options=BEFORE,
        files={"conf": PROXSMTPD},
        requires=("proxsmtpd",),
        source="Debian's proxsmtp",
    )
    yield Way(
        "E-MailRelay, before the queue",
        (
            *("emailrelay", "--no-daemon", "--no-syslog", "--immediate", "--user", "root"),
            *("--interface", "{proxy.host}", "--port", "{proxy.port}", "--domain", "mx.mail.test"),
            *("--forward-to", "{upstream}", "--spool-dir", "{own}", "--filter", "{filter}"),
        ),
        options=BEFORE,
        requires=("emailrelay",),
        source="emailrelay.sourceforge.net",
    )
    yield Way(
        "Haraka, before the queue",
        ("node", str(Path(found("haraka") or "haraka").resolve()), "-c", "{own}"),
        options=BEFORE,
        files=haraka(),
        requires=("node", "haraka"),
        source="npm's Haraka",
    )
    yield Way(
        SIMPLE_FILTER,
        piped=("{own}/script",),
        options=" -o content_filter=simple:dummy",
        files={"script": SIMPLE},
        requires=("sendmail",),
        source="Debian's postfix",
    )
    yield Way(
        "a milter with the test in its process",
        ("/usr/bin/python3", "-I", str(HERE / "milter.py"), "unix:{own}/socket", MARK),
        options=MILTER,
        filters=("script",),
        requires=("/usr/lib/python3/dist-packages/Milter",),
        source="Debian's python3-milter",
    )
    yield Way(
        "clamsmtpd with clamd, before the queue",
        ("clamsmtpd", "-f", "{own}/conf", "-d", "0"),
        options=BEFORE,
        files={"conf": CLAMSMTPD},
        filters=("script", "clamdscan"),
        requires=("clamsmtpd", "clamd"),
        source="Debian's clamsmtp and clamav-daemon",
    )
    yield Way(
        "clamav-milter with clamd",
        ("clamav-milter", "--config-file", "{own}/conf"),
        options=MILTER,
        files={"conf": CLAMAV_MILTER},
        filters=("script", "clamdscan"),
        requires=("clamav-milter", "clamd"),
        source="Debian's clamav-milter and clamav-daemon",
    )
    yield Way(
        "spampd that tests nothing, before the queue",
        (
            *("spampd", "--host={proxy}", "--relayhost={upstream}", "--pid={own}/pid"),
            *("--user=root", "--group=root", "--local-only", "--maxsize=0", "--nodetach"),
            *("--", "serialize=none"),
        ),
        options=BEFORE,
        filters=("script", "true"),
        tests=False,
        requires=("spampd",),
        source="Debian's spampd",
    )


@dataclass(frozen=True)
class Places:
    """The directories and addresses of a site.

    `queue` is a directory whose name is in the command lines of spawned proxies. `files` is another
    one.
    """

    queue: Path
    files: Path
    addresses: Mapping[str, Address]
    filter: str

    def filled(self, text: str, way: str) -> str:
        """Replace all placeholders in a text."""
        upstream, proxy = self.addresses["upstream"], self.addresses[f"to {way}"]
        values = {
            "{upstream}": str(upstream),
            "{upstream.host}": upstream.host,
            "{upstream.port}": str(upstream.port),
            "{proxy}": str(proxy),
            "{proxy.host}": proxy.host,
            "{proxy.port}": str(proxy.port),
            "{filter}": self.filter,
            "{files}": str(self.files),
            "{own}": str(self.own(way)),
            "{spool}": str(self.files / "spool"),
            "{queue.spool}": str(self.queue / "spool"),
        }
        mark = re.compile("|".join(map(re.escape, values)))
        return mark.sub(lambda match: values[match[0]], text)

    def own(self, way: str) -> Path:
        """Return the directory for the files of a way."""
        return self.files / re.sub(r"\W+", "-", way)

    def command(self, template: Template, way: str) -> list[str]:
        """Return a command."""
        program, *words = (self.filled(word, way) for word in template)
        return [found(program) or program, *words]

    def write(self, way: Way) -> None:
        """Write the files of a way."""
        self.own(way.name).mkdir()
        for name, text in way.files.items():
            path = self.own(way.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.filled(text, way.name), encoding="utf-8")
            path.chmod(0o755)

    def service(self, way: Way) -> str:
        """Return the lines of master.cf for a way."""
        options = self.filled(way.options, way.name)
        lines = SMTPD.format(front=self.addresses[way.name], options=options)
        for template, line in (way.spawned, SPAWN), (way.piped, PIPE):
            if template:
                command = " ".join(self.command(template, way.name))
                proxy = self.addresses[f"to {way.name}"]
                lines += line.format(proxy=proxy, user=USER, command=command)
        return lines
