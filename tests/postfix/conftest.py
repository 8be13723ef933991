"""One private Postfix for a whole run of the tests (one for each worker of pytest-xdist)."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.support.fixtures import listener, serve, upstream

from .instance import missing
from .proxies import no_interpreter
from .site import Site, running_site

__all__ = ["listener", "serve", "upstream"]


@pytest.fixture(scope="session")
def needs_postfix() -> None:
    """Skip where there can be no private Postfix; fail where there was to be one."""
    if reason := missing() or no_interpreter():
        if os.environ.get("POSTPROX_REQUIRE_POSTFIX") == "1":
            pytest.fail(f"POSTPROX_REQUIRE_POSTFIX=1, but {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def site(needs_postfix: None) -> Iterator[Site]:
    """A running Postfix with every variant of the proxy."""
    with running_site() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the servers to the report of a failed test."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections += site.last_words()
    return report
