"""Helpers for tests of postprox-check, with a small configuration and a fake postconf(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from postprox.check.facts import ProgramFacts, ProxyFacts
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.probe import system
from postprox.check.routes import spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup

MAIN = "compatibility_level = 3.6\nsmtpd_proxy_filter = 127.0.0.1:10025\n"
FRONT = "smtp inet n - n - 20 smtpd\n"
PROXY = (
    "127.0.0.1:10025 inet n n n - 20 spawn user=nobody argv=/p/postprox --strict -t 60 -c /f up\n"
)
SEEN = ProxyFacts(user_exists=True, program=ProgramFacts("/p/postprox", exists=True))


def found(main: str = "", master: str = FRONT + PROXY, overrides: str = "") -> list[Finding]:
    """Return the findings for a configuration, given the output of postconf(1)."""
    configuration = parse(MAIN + main, master, overrides)
    proxies = list(spawned_proxies(configuration))
    return judge(Setup(configuration, proxies, dict.fromkeys(proxies, SEEN)))


def names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def postconf(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace postconf(1) with a shell script."""
    programs = directory / "programs"
    programs.mkdir()
    (programs / "postconf").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "postconf").chmod(0o755)
    monkeypatch.setattr(system, "SYSTEMD_PATH", f"{programs}:{system.SYSTEMD_PATH}")
