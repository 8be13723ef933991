"""A certificate and an authentication server for a submission service.

The server implements the protocol of Dovecot's authentication service and accepts every login.
"""

from __future__ import annotations

import contextlib
import functools
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.client import Session, connect

from .instance import Address

HANDSHAKE = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n"

SETTINGS = """
smtpd_tls_chain_files = {dir}/tls.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dir}/auth.sock
"""


class _Users(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(HANDSHAKE.encode())
        for line in self.rfile:
            command, *fields = line.rstrip(b"\n").split(b"\t")
            if command == b"AUTH":
                self.wfile.write(b"OK\t" + fields[0] + b"\tuser=alice\n")


@contextlib.contextmanager
def running_users(directory: Path) -> Iterator[None]:
    """Run the authentication server for `smtpd_sasl_path`, and create the certificate."""
    path = directory / "auth.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), _Users) as server:
        server.daemon_threads = True
        path.chmod(0o666)
        make_certificate(directory / "tls.pem")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


MAKE_CERTIFICATE = """
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mx.mail.test -out - -keyout -
"""


@functools.cache
def key_and_certificate() -> bytes:
    """Return a key and a self-signed certificate, cached because a key is slow to generate."""
    return subprocess.run(MAKE_CERTIFICATE.split(), check=True, capture_output=True).stdout


def make_certificate(path: Path) -> None:
    """Write a key and a self-signed certificate to one file."""
    path.write_bytes(key_and_certificate())
    path.chmod(0o600)


def _trust_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


#: The address of a remote client, which is local neither to Postfix nor to the signer.
HOME = "198.51.100.9"


@contextlib.contextmanager
def log_in(server: Address, wrapped: bool) -> Iterator[Session]:
    """Begin the session of an authenticated remote user."""
    context = _trust_all()
    with connect(server, "laptop.example", tls=context if wrapped else None) as session:
        assert session.command(f"XCLIENT ADDR={HOME}")[0] == 220
        session.run(session.smtp.ehlo())
        if not wrapped:
            session.run(session.smtp.starttls(tls_context=context))
        session.run(session.smtp.login("alice", "secret"))
        yield session
