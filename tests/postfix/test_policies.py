"""The Postfix, postgrey and OpenDKIM configurations in docs/, which run unchanged."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.filters import printed
from tests.support.client import Reply

from . import login
from .client import connect_from, message
from .devlog import may_unshare
from .instance import Address, Postfix, program, public_directory, wait_for
from .recipe import AFTER, ARCHIVE, BEFORE, BOB, OUTSIDE, SPAWNED, Recipe, running_recipe
from .signer import accepts, fits, is_signed

FOLDER = "/etc/postfix"
FORGED, COMPARE = "Forged senders", "Compare addresses"
OURS = (550, b"5.7.1 Mail from example.org comes from our own servers only")

pytestmark = pytest.mark.usefixtures("needs_postfix")


def forms(domain: str) -> list[str]:
    """Return the page's table of spellings for the address of boss at the domain."""
    rows = re.findall(r"(?m)^\| (`.*`) \|", printed.section(COMPARE))
    typed = [form for row in rows for form in re.findall(r"`([^`]+)`", row)]
    comment = "(" + "x" * 97 + ")"
    typed.append(f"{comment}boss@example.org")
    return [re.sub("(?i)example.org", domain, form) for form in typed]


def envelope(server: Address, sender: str, recipient: str, client: str = OUTSIDE) -> Reply:
    """Send an envelope with unmodified addresses. Return the last reply."""
    with connect_from(server, client) as session:
        reply = session.command(f"MAIL FROM:<{sender}>")
        return session.command(f"RCPT TO:<{recipient}>") if reply[0] == 250 else reply


@contextlib.contextmanager
def site(heading: str, services: Callable[[Mapping[str, Address]], str]) -> Iterator[Postfix]:
    """Run a Postfix for example.org with the files from a section."""
    with public_directory("postprox-policies-") as directory:
        main = ""
        for name, text in printed.files(heading, FOLDER):
            if name == "main.cf":
                main += text.replace(FOLDER, str(directory))
            else:
                (directory / name).write_text(text)

        def settings(addresses: Mapping[str, Address]) -> str:
            own = "myorigin = example.org\nrelay_domains = example.org\n"
            policy = re.sub(r"127\.0\.0\.1:10023", str(addresses["policy"]), main)
            return own + login.SETTINGS.format(dir=directory) + policy

        names = ["smtp", "submission", "policy", "signer"]
        with login.running_users(directory), Postfix(directory, names, services, settings) as own:
            yield own


def front(addresses: Mapping[str, Address]) -> str:
    return f"{addresses['smtp']} inet n - n - - smtpd\n"


# --- forged senders ---------------------------------------------------------------------------


def with_submission(addresses: Mapping[str, Address]) -> str:
    """Return the site's services. The submission service has the option that the page specifies."""
    (option,) = re.findall(r"`(-o smtpd_sender_restrictions=\S+)`", printed.section(FORGED))
    return front(addresses) + (
        f"{addresses['submission']} inet n - n - - smtpd\n"
        "    -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes\n"
        "    -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n"
        f"    -o smtpd_helo_restrictions= -o smtpd_recipient_restrictions= {option}\n"
    )


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postfix]:
    with site(FORGED, with_submission) as postfix:
        yield postfix


@pytest.mark.parametrize("sender", [*forms("example.org"), "boss@sub.example.org"])
def test_external_client_with_local_sender_is_rejected(guarded: Postfix, sender: str) -> None:
    code, text = envelope(guarded.addresses["smtp"], sender, "bob@example.org")
    assert (code, text[-48:]) == (550, OURS[1][-48:])


@pytest.mark.parametrize("sender", ["", "boss@example.net", "boss@notexample.org"])
def test_external_client_with_external_sender_is_accepted(guarded: Postfix, sender: str) -> None:
    assert envelope(guarded.addresses["smtp"], sender, "bob@example.org")[0] == 250


def test_client_in_mynetworks_with_local_sender_is_accepted(guarded: Postfix) -> None:
    reply = envelope(guarded.addresses["smtp"], "boss@example.org", "x@example.org", "127.0.0.9")
    assert reply[0] == 250


@pytest.mark.parametrize(
    "helo", ["example.org", "MX.example.org", "example.org.", "x.example.org."]
)
def test_external_client_with_local_helo_is_rejected(guarded: Postfix, helo: str) -> None:
    with connect_from(guarded.addresses["smtp"], OUTSIDE, helo) as session:
        session.command("MAIL FROM:<>")
        assert session.command("RCPT TO:<bob@example.org>")[0] == 550


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        ("alice@example.org", 250),
        ("ALICE@example.org.", 250),
        ("info@example.org", 250),
        ("boss@example.org", 553),
        ("boss @ example.org", 553),
        ("(x)boss@example.org.", 553),
        ("alice@example.net", 553),
    ],
)
def test_sender_address_of_another_user_is_rejected(
    guarded: Postfix, sender: str, code: int
) -> None:
    with login.log_in(guarded.addresses["submission"], wrapped=False) as session:
        session.command(f"MAIL FROM:<{sender}>")
        assert session.command("RCPT TO:<bob@example.net>")[0] == code


# --- greylisting ------------------------------------------------------------------------------


@contextlib.contextmanager
def running_postgrey(directory: Path, address: Address) -> Iterator[None]:
    postgrey = program("postgrey")
    if postgrey is None:
        pytest.skip("postgrey is not installed (Debian: apt-get install postgrey)")
    database = directory / "postgrey"
    database.mkdir()
    shutil.chown(database, "postgrey", "postgrey")
    command = [postgrey, f"--inet={address}", f"--dbdir={database}", "--delay=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        wait_for("postgrey to listen", lambda: accepts(address))
        try:
            yield
        finally:
            daemon.terminate()


def test_postgrey_first_defers_then_accepts_external_client() -> None:
    with site("Greylisting", front) as postfix:
        server = postfix.addresses["smtp"]
        # While postgrey is down, mail waits.
        assert envelope(server, "a@example.net", "bob@example.org")[0] == 451
        with running_postgrey(postfix.directory, postfix.addresses["policy"]):
            code, text = envelope(server, "a@example.net", "bob@example.org")
            assert (code, b"Greylisted" in text) == (450, True)
            wait_for(
                "postgrey to accept the message",
                lambda: envelope(server, "a@example.net", "bob@example.org")[0] == 250,
            )
            assert envelope(server, "b@example.net", "bob@example.org", "127.0.0.9")[0] == 250


# --- DKIM -------------------------------------------------------------------------------------

#: Runs the page's commands with a private /etc/dkimkeys.
SIGNER = """
set -e
mount -t tmpfs -o mode=755 tmpfs /etc/dkimkeys
{commands}
exec {opendkim} -f -x {configuration}
"""


@contextlib.contextmanager
def running_signer(directory: Path, address: Address) -> Iterator[None]:
    """Run OpenDKIM with the page's configuration and key."""
    opendkim = program("opendkim")
    if opendkim is None or program("opendkim-genkey") is None or not may_unshare():
        pytest.skip("requires OpenDKIM (Debian: opendkim, opendkim-tools) and a mount namespace")
    configuration = directory / "opendkim.conf"
    text = printed.file("Set up OpenDKIM", "/etc/opendkim.conf")
    configuration.write_text(text.replace("8891@127.0.0.1", f"{address.port}@{address.host}"))
    script = SIGNER.format(
        commands=printed.script("Set up OpenDKIM"), opendkim=opendkim, configuration=configuration
    )
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["unshare", "--mount", "/bin/sh", "-c", script]
    with subprocess.Popen(command, env={"PATH": path}, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_for("opendkim to listen", lambda: accepts(address))
            yield
        finally:
            daemon.kill()


def test_documented_opendkim_configuration_signs_only_local_mail() -> None:
    def services(addresses: Mapping[str, Address]) -> str:
        return front(addresses).replace(
            "smtpd\n", f"smtpd -o smtpd_milters=inet:{addresses['signer']}\n"
        )

    content = message("signed").replace(b"alice@mail.test", b"alice@example.org")
    with (
        site("Set up OpenDKIM", services) as postfix,
        running_signer(postfix.directory, postfix.addresses["signer"]),
    ):
        for client, recipient in (("127.0.0.1", "bob@example.org"), (OUTSIDE, "eve@example.org")):
            with connect_from(postfix.addresses["smtp"], client) as session:
                assert session.transact("alice@example.org", [recipient], content)[0] == 250
        signed = postfix.wait_delivered("bob@example.org")
        assert (is_signed(signed), fits(signed)) == (True, True)
        assert re.search(rb"d=example\.org;\s+s=mail2026;", signed)
        assert not is_signed(postfix.wait_delivered("eve@example.org"))


# --- addresses as typed -----------------------------------------------------------------------

REPORT = """#!/bin/sh
{ printf 'X-Seen: %s|%s\\n' "$SENDER" "$RECIPIENT"; cat "$EMAIL"; } >"$OUTFILE" || exit 2
"""


def plain_in_sh(address: str) -> str:
    """Return the output of the page's shell function."""
    (text,) = re.findall(r"(?ms)^`small-list`:\n\n```sh\n(.*?)^```$", printed.TEXT)
    (function,) = re.findall(r"(?ms)^plain\(\) \{\n.*?^\}\n", text)
    done = subprocess.run(
        ["/bin/sh", "-c", f'{function}plain "$1"', "sh", address],
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    return done.stdout.strip()


def plain_in_python(address: str) -> str:
    """Return the result of the page's Python function."""
    (text,) = re.findall(r"(?ms)^`small_list.py`:\n\n```python\n(.*?)^```$", printed.TEXT)
    names: dict[str, object] = {"__name__": "small_list"}
    exec(text, names)  # noqa: S102
    plain = SimpleNamespace(**names).plain(address.encode(errors="surrogateescape"))
    return "" if plain is None else str(plain.decode())


@pytest.fixture(scope="module")
def before() -> Iterator[Recipe]:
    with running_recipe(BEFORE, SPAWNED, REPORT) as recipe:
        yield recipe


@pytest.mark.parametrize("form", forms("mail.test"))
def test_filter_receives_unmodified_address(before: Recipe, form: str) -> None:
    boss = form if form == "BOSS@mail.test" else "boss@mail.test"
    known = len(before.postfix.delivered(boss))
    with connect_from(before.postfix.addresses["smtp"], OUTSIDE) as session:
        assert session.transact(form, [form], message("typed"))[0] == 250
    before.postfix.wait_quiet()
    (delivered,) = before.postfix.delivered(boss)[known:]
    ((sender, recipient),) = re.findall(rb"(?m)^X-Seen: (.*)\|(.*)$", delivered)
    assert sender == recipient != b"boss@mail.test"
    for plain in (plain_in_sh, plain_in_python):
        assert plain(recipient.decode()) in ("", "boss@mail.test")


PLAIN = [
    ("boss@example.org", "boss@example.org"),
    ("Boss+X@Example.ORG.", "boss+x@example.org"),
    *((f"{'x' * 87}@example.org"[-length:], "" if length == 99 else None) for length in (98, 99)),
    *((form, "") for form in ("", "<>", "boss", "@example.org", "boss@", "a@b@c", "boss@a..b")),
    *((form, "") for form in ("boss@example.org..", "boss@.a", "*@a", "b\u00f6ss@a", "\udcff@a")),
    *((form, "") for form in ("boss@a\n", "boss@a\nb", "boss @ a", "(x)boss@a", '"boss"@a')),
]


@pytest.mark.parametrize(("address", "expected"), PLAIN)
@pytest.mark.parametrize("plain", [plain_in_sh, plain_in_python])
def test_python_and_shell_code_return_same_plain_address(
    plain: Callable[[str], str], address: str, expected: str | None
) -> None:
    assert plain(address) == (address if expected is None else expected)


def test_always_bcc_address_becomes_first_recipient() -> None:
    with running_recipe(AFTER, SPAWNED, REPORT) as recipe:
        assert recipe.send(message("copied"), BOB)[0] == 250
        assert f"|{ARCHIVE}\n".encode() in recipe.arrival(BOB, "copied")
