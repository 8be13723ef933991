"""Tests of the files that docs/containers.md prints for docker-mailserver.

They run against the parts of docker-mailserver's main.cf and master.cf that matter to a
filter, with the milter that `ENABLE_RSPAMD=1` adds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postfix.instance import MASTER_CF, missing
from tests.postfix.test_setup_commands import run

from .containerfile import CONTAINER, ROOT, parse
from .page import block

*_, IMAGE = parse((CONTAINER / "Containerfile").read_text()).values()
SCRIPT = block("sh", "`docker-data/dms/config/user-patches.sh` there:")
MAIN = """\
compatibility_level = 3.6
mynetworks = 127.0.0.0/8 [::1]/128 [fe80::]/64
smtpd_tls_security_level = may
smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks, reject_invalid_helo_hostname, permit
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
smtpd_client_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_sender_restrictions = permit_sasl_authenticated, permit_mynetworks
smtpd_discard_ehlo_keywords = silent-discard, dsn
smtpd_data_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_pipelining
milter_protocol = 6
milter_default_action = accept
rspamd_milter = inet:localhost:11332
smtpd_milters = $rspamd_milter
non_smtpd_milters =
"""
SUBMISSION = """\
 inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_discard_ehlo_keywords= -o milter_macro_daemon_name=ORIGINATING
  -o cleanup_service_name=sender-cleanup
"""
MASTER = f"""\
smtp inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
tlsproxy unix - - n - 0 tlsproxy
dnsblog unix - - n - 0 dnsblog
submission{SUBMISSION}submissions{SUBMISSION}sender-cleanup unix n - n - 0 cleanup
"""


def patched(tmp_path: Path, script: str, command: str) -> str:
    """Run the script as docker-mailserver does, and then a command."""
    if reason := missing():
        pytest.skip(reason)
    (tmp_path / "main.cf").write_text(MAIN)
    (tmp_path / "master.cf").write_text(MASTER + MASTER_CF)
    (tmp_path / "user-patches.sh").write_text(
        script.replace("/tmp/docker-mailserver", str(ROOT / "examples/postfix"))
    )
    setup = f"""
printf '#!/bin/sh\\nexit 0\\n' > /usr/local/bin/mail-filter
chmod 755 /usr/local/bin/mail-filter
install -d -o nobody -m 0700 /var/spool/postprox
mkdir /usr/local/sbin
printf '#!/bin/sh\\n' > /usr/local/sbin/postprox
chmod 755 /usr/local/sbin/postprox
cp {tmp_path}/main.cf {tmp_path}/master.cf /etc/postfix/
/bin/bash {tmp_path}/user-patches.sh
"""
    return run(tmp_path, f"{setup}{command}\n")


CHECK = f"""\
python3 -m postprox.check --offline -- {" ".join([*IMAGE.entrypoint, *IMAGE.command])} || echo $?"""


def test_check_has_no_findings_after_documented_script(tmp_path: Path) -> None:
    *lines, status = patched(tmp_path, SCRIPT, CHECK).splitlines()
    # postprox-check cannot read which user runs the container.
    assert lines[0].startswith(
        "not checked: command line after --: the user that the proxy runs as"
    )
    assert not [line for line in lines[1:] if line and not line.startswith("  ")]
    assert status == "3"


def test_documented_script_enables_filter_only_for_incoming_mail(tmp_path: Path) -> None:
    query = "postconf -x -P '*/*/content_filter'; postconf -h content_filter"
    printed = patched(tmp_path, SCRIPT, query).splitlines()
    assert sorted(printed) == [
        *("", "127.0.0.1:10026/inet/content_filter ="),
        "smtpd/pass/content_filter = scan:[127.0.0.1]:10025",
    ]


def test_missing_transport_is_reported(tmp_path: Path) -> None:
    incomplete = "".join(line for line in SCRIPT.splitlines(True) if not line.startswith("cat "))
    assert "scan" in patched(tmp_path, incomplete, CHECK)
