"""Postfix after the proxy waits for the filter even under stress and with strict limits.

Postfix's timeouts cannot be scaled. The timeout under stress is 10 s, so the filter takes 11 s.
POSTPROX_LONG=1 adds a filter that takes 40 s.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from .client import connect_from, message
from .recipe import BEFORE, BOB, OUTSIDE, SPAWNED, Besides, Recipe, running_recipe

pytestmark = pytest.mark.usefixtures("needs_postfix")

#: The services before the two proxies.
SERVICES = ("smtp", "own")
FIXED = Besides("smtpd_timeout = 10s\n")
FEW_ERRORS = Besides("smtpd_junk_command_limit = 1\nsmtpd_hard_error_limit = 1\n")
OPTIONS = " -o stress= -o smtpd_timeout=300s"
HARD_LIMIT = " -o smtpd_hard_error_limit=1000"

LONG = pytest.mark.skipif(os.environ.get("POSTPROX_LONG") != "1", reason="requires POSTPROX_LONG=1")


def stressed(text: str) -> str:
    """Add `-o stress=yes` before the services' options, as master(8) does under stress."""
    for name in ("filtered", "signed"):
        first = f"    -o syslog_name=postfix/{name}\n"
        text = text.replace(first, f"    -o stress=yes\n{first}")
    return text


def with_keepalives(text: str) -> str:
    """Shorten all time limits of the proxies except the filter timeout by a factor of 60."""
    fast = "argv=/usr/bin/env POSTPROX_CLOCK_SPEED=60 "
    return text.replace("argv=", fast).replace("-t 60", "-t 2000")


def replies(site: Recipe) -> list[int]:
    """Send a message to each service at the same time. Return the reply codes."""

    def send(service: str) -> int:
        with connect_from(site.postfix.addresses[service], OUTSIDE) as session:
            return session.transact("a@mail.test", [BOB], message(service))[0]

    with ThreadPoolExecutor() as pool:
        return list(pool.map(send, SERVICES))


@pytest.mark.parametrize("seconds", [11, pytest.param(40, marks=LONG)])
def test_mail_is_delivered_despite_slow_filter_under_stress(seconds: int) -> None:
    with running_recipe(BEFORE, SPAWNED, f"sleep {seconds}", stressed, FIXED) as site:
        assert replies(site) == [250, 250]


def test_mail_is_deferred_under_stress_without_timeout_options() -> None:
    def edit(text: str) -> str:
        return stressed(text.replace(OPTIONS, ""))

    with running_recipe(BEFORE, SPAWNED, "sleep 11", edit) as site:
        assert [code // 100 for code in replies(site)] == [4, 4]


def test_keepalives_do_not_count_as_errors() -> None:
    with running_recipe(BEFORE, SPAWNED, "sleep 4", with_keepalives, FEW_ERRORS) as site:
        assert replies(site) == [250, 250]


def test_keepalives_exceeding_default_error_limit_end_session() -> None:
    def edit(text: str) -> str:
        return with_keepalives(text).replace(HARD_LIMIT, "")

    with running_recipe(BEFORE, SPAWNED, "sleep 4", edit, FEW_ERRORS) as site:
        assert [code // 100 for code in replies(site)] == [4, 4]
