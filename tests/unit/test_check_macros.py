"""postprox-check: macros of pipe(8) in the filter command."""

from __future__ import annotations

import subprocess

import pytest

from tests.unit.checking import FRONT, found, names
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
PROXY = (
    "127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv=/p/postprox --strict -t 60 "
    "-c {{{}}} up\n"
)


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ("-f $${sender} -- $${recipient}", "-f,a b,--,x*@mail.test,y@mail.test"),
        ("-f $$sender", "-f,a b"),
        ('-f "$${sender}" "$${client_address}"', "-f,a b,192.0.2.1"),
    ],
)
def test_remedy_replaces_pipe_macro(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: str, result: str
) -> None:
    site.filter.write_text('#!/bin/sh\nIFS=,\necho "$*"\n')
    site.write(site.arguments.replace(str(site.filter), f"'{site.filter} {arguments}'"))
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "a macro of pipe(8)" in checked.problem
    apply(site, checked)
    checked = check(site, capsys)
    assert checked.names() == []
    environment = {
        "SENDER": "a b",
        "RECIPIENTS": "x*@mail.test\ny@mail.test",
        "REMOTEIP": "192.0.2.1",
    }
    (site.directory / "x1@mail.test").touch()
    words = checked.document["proxies"][0]["command"]
    printed = subprocess.check_output(
        ["/bin/sh", "-c", words[words.index("-c") + 1]],
        env=environment,
        text=True,
        cwd=site.directory,
    )
    assert printed == f"{result}\n"


def test_spawned_proxy_gets_variables_instead_of_macros() -> None:
    findings = found(master=FRONT + PROXY.format("/f -f ${sender} -- ${recipient}"))
    (finding,) = [each for each in findings if "macro of pipe(8)" in each.problem]
    assert 'set -f; /f -f "$SENDER" -- $RECIPIENTS' in finding.remedy


@pytest.mark.parametrize(
    "command",
    [
        '/f -f "$SENDER" $RECIPIENTS',
        "sender=$SENDER; /f ${sender}",
        "for recipient in $RECIPIENTS; do /f $recipient || exit 1; done",
        "/f '${sender}'",
        "/f ${sender_address} $senders",
    ],
)
def test_other_variable_is_not_reported(command: str) -> None:
    findings = found(master=FRONT + PROXY.format(command))
    assert not any("macro" in each.problem for each in findings)
    assert "filter" not in names(findings)
