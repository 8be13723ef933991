"""docs/migrating.md: the page's configuration, filter and commands are used unchanged.

Debian's proxsmtpd runs in the same Postfix to check the page's statements about proxsmtp.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.client import Reply

from .client import connect_from, message, unix
from .instance import Address, Postfix, public_directory, wait_for, without_trace
from .proxies import GROUP, UPSTREAM_OPTIONS, USER, Installation
from .recipe import own_names, renamed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/migrating.md").read_text()
HELLO = "postprox/rehearse/demo/1-hello.eml"
FAILED = "451 4.3.0 The mail filter has failed, try again later"
SCRIPTS = dict(
    zip(("from-proxsmtp", "old-filter"), re.findall(r"(?ms)^```sh\n(.*?)^```$", PAGE), strict=True)
)
((OLD_CONFIGURATION),) = re.findall(r"(?ms)^```text\n(.*?)^```$", PAGE)
BLOCKS = [textwrap.dedent(text) + "\n" for text in PAGE.split("\n\n") if text[:1] == " "]
NEW, OLD = "127.0.0.1:10029", "127.0.0.1:10025"
SERVICE, ADAPTED = (block for block in BLOCKS if block.startswith(f"{NEW} inet"))
TO_THE_NEW, BACK = (block for block in BLOCKS if block.startswith("postconf -e"))
PROXSMTPD = shutil.which("proxsmtpd", path="/usr/sbin:/usr/local/sbin")
NAMES = ("smtp", "old", "new", "adapted", "filtered")
OUTSIDE, BOB, NOBODY = "192.0.2.1", "bob@mail.test", "nobody@mail.test"

pytestmark = pytest.mark.usefixtures("needs_postfix")


def own_places(addresses: Mapping[str, Address], new: str = "new") -> dict[str, str]:
    return {
        r"\b127\.0\.0\.1:10029\b": str(addresses[new]),
        r"\b127\.0\.0\.1:10025\b": str(addresses["old"]),
        r"\b127\.0\.0\.1:10026\b": str(addresses["filtered"]),
    }


@dataclass(frozen=True)
class Side:
    """A Postfix instance that uses the old or the new proxy, depending on its main.cf."""

    postfix: Postfix
    installation: Installation

    def send(self, recipient: str, subject: str, sender: str = "alice@mail.test") -> Reply:
        with connect_from(self.postfix.addresses["smtp"], OUTSIDE) as session:
            return session.transact(sender, [recipient], message(subject))

    def arrived(self, subject: str) -> bytes:
        """Return Bob's only message with the subject."""
        self.postfix.wait_quiet()
        title = f"\nSubject: {subject}\n".encode()
        (content,) = [each for each in self.postfix.delivered(BOB) if title in each]
        return without_trace(content)

    def run(self, commands: str, new: str) -> None:
        """Run the page's commands for the new service with the name `new`."""
        environment = {"PATH": os.defpath + ":/usr/sbin", "MAIL_CONFIG": self.config}
        reloads = self.postfix.log().count("reload -- version")
        named = renamed(commands, own_places(self.postfix.addresses, new))
        subprocess.run(["/bin/sh", "-ec", named], env=environment, check=True, capture_output=True)
        wait_for("Postfix to reload", lambda: self.postfix.log().count("reload --") > reloads)

    @property
    def config(self) -> str:
        return f"{self.postfix.directory}/etc"


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    if PROXSMTPD is None:
        pytest.skip("proxsmtpd is not installed (Debian: apt-get install proxsmtp)")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-migrating-"))
        installation = Installation(directory)
        scripts = {name: installation.executable(name, text) for name, text in SCRIPTS.items()}
        names = own_names(installation.launcher, scripts["old-filter"], installation.spool)
        names |= {rf"/usr/local/bin/{name}\b": str(path) for name, path in scripts.items()}

        def services(addresses: Mapping[str, Address]) -> str:
            plain = renamed(SERVICE, names | own_places(addresses))
            adapted = renamed(ADAPTED, names | own_places(addresses, "adapted"))
            front = f"{addresses['smtp']} inet n - n - - smtpd\n"
            back = f"{addresses['filtered']} inet n - n - - smtpd{UPSTREAM_OPTIONS}\n"
            return front + back + plain + adapted

        def settings(addresses: Mapping[str, Address]) -> str:
            return f"smtpd_proxy_filter = {addresses['old']}\n"

        postfix = stack.enter_context(Postfix(directory, NAMES, services, settings))
        old_spool = directory / "old-spool"
        old_spool.mkdir()
        shutil.chown(old_spool, USER, GROUP)
        configuration = directory / "mail.conf"
        spools = {r"/var/spool/proxsmtp\b": str(old_spool)}
        configuration.write_text(
            renamed(OLD_CONFIGURATION, names | spools | own_places(postfix.addresses))
        )
        command = [str(PROXSMTPD), "-d", "1", "-f", str(configuration)]
        proxsmtpd = subprocess.Popen(
            command, user=USER, group=GROUP, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL
        )
        stack.callback(proxsmtpd.wait)
        stack.callback(proxsmtpd.kill)
        wait_for("proxsmtpd", lambda: listens(postfix.addresses["old"]))
        yield Side(postfix, installation)


def listens(address: Address) -> bool:
    octets = bytes(reversed([int(part) for part in address.host.split(".")])).hex().upper()
    return f" {octets}:{address.port:04X} 00000000:0000 0A " in Path("/proc/net/tcp").read_text()


def test_adapter_preserves_behaviour_of_old_filter(side: Side) -> None:
    side.run(BACK, "adapted")
    before = side.send(BOB, "by the old"), side.send(NOBODY, "by the old")
    side.run(TO_THE_NEW, "adapted")
    after = side.send(BOB, "by the new"), side.send(NOBODY, "by the new")
    assert [code for code, _ in before] == [250, 550]
    assert [code for code, _ in after] == [250, 550]
    assert after[1] == before[1]
    marked = f"X-Came-From: {OUTSIDE}\n".encode()
    for subject in ("by the old", "by the new"):
        arrived = side.arrived(subject)
        assert arrived.startswith(marked)
        assert without_trace(arrived.removeprefix(marked)) == unix(message(subject))


def test_documented_command_restores_old_filter(side: Side) -> None:
    side.run(TO_THE_NEW, "new")
    side.run(BACK, "new")
    assert side.send(BOB, "back again")[0] == 250
    assert side.arrived("back again").startswith(b"X-Came-From: ")


FATES = [
    # The filter's output and exit status, and the reply of each proxy.
    ("echo 'no code' >&2; exit 1", "550 Content Rejected; no code", "554 no code"),
    ("echo '553 5.7.1 no' >&2; exit 1", "553 5.7.1 no", "553 5.7.1 no"),
    ("echo '250 gone' >&2; exit 1", "250 gone", "250 gone"),
    ("echo '550 no' >&2; exit 7", "550 no", FAILED),
    ("kill -9 $$", "550 Content Rejected; Killed", FAILED),
]


@pytest.mark.parametrize(("script", "there", "here"), FATES)
def test_filter_exit_status_has_documented_effect(
    side: Side, script: str, there: str, here: str
) -> None:
    old_filter = side.installation.directory / "bin/old-filter"
    old_filter.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
    side.run(BACK, "new")
    code, words = side.send(BOB, "fate")
    old_filter.write_text(SCRIPTS["old-filter"])
    assert f"{code} {words.decode()}" == there
    assert rehearsed(script, "-r") == here


def test_filter_timeout_counts_as_failure() -> None:
    assert rehearsed("sleep 9", "-r", "-t", "0.1") == FAILED


def test_adapter_fails_if_old_filter_writes_nothing(side: Side) -> None:
    adapter = side.installation.directory / "bin/from-proxsmtp"
    assert rehearsed(f"{adapter} true", "--strict") == FAILED
    assert rehearsed(f"{adapter} sh -c 'kill -9 $$'", "--strict") == FAILED
    assert rehearsed(f"{adapter} /nonexistent", "--strict", status=1) == FAILED
    assert rehearsed(f"{adapter} cat", "--strict").startswith("250 ")


def rehearsed(command: str, *options: str, status: int = 0) -> str:
    """Rehearse a message with the command. Return the proxy's reply."""
    done = subprocess.run(
        [sys.executable, "-m", "postprox.rehearse", "--json", *options, "-c", command, HELLO],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == status
    (said,) = json.loads(done.stdout)["messages"]
    return str(said["reply"])


def test_obsolete_command_line_is_reported() -> None:
    (command,) = re.findall(r"(?m)^    postprox-check -- (.*)$", PAGE)
    checked = subprocess.run(
        [sys.executable, "-m", "postprox.check", "--", *shlex.split(command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 2
    assert "-t" in checked.stdout


def test_documented_rehearsal_command_works(tmp_path: Path) -> None:
    (command,) = re.findall(r"(?m)^        postprox-rehearse (.*)$", PAGE)
    mail_filter = tmp_path / "mail-filter"
    mail_filter.write_text("#!/bin/sh\nexit 0\n")
    mail_filter.chmod(0o755)
    shutil.copy(ROOT / HELLO, tmp_path / "message.eml")
    words = shlex.split(command.replace("/usr/local/bin/mail-filter", str(mail_filter)))
    done = subprocess.run(
        [sys.executable, "-m", "postprox.rehearse", *words],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "1 message: 1 accepted" in done.stdout


def test_documented_replacement_for_filtertype_reject_sends_530_reply() -> None:
    (command,) = re.findall(r"`-c \{(echo .*?)\}`", PAGE)
    assert rehearsed(command, "--strict") == "530 No"
