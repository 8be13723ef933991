"""Filters that fail or time out. The original is delivered without -r, and deferred with -r."""

from __future__ import annotations

import pytest

from .client import message, unix
from .instance import without_trace
from .site import Site

BROKEN = 'echo replaced >"$OUTFILE"; echo "550 not a verdict" >&2; exit 2'
SLOW = 'echo replaced >"$OUTFILE"; sleep 600'


@pytest.mark.parametrize(
    ("way", "script"),
    [
        pytest.param("open_before", BROKEN, id="broken-before"),
        pytest.param("open_adjusted", BROKEN, id="broken-adjusted"),
        pytest.param("open_after", BROKEN, id="broken-after"),
        pytest.param("hasty_before", SLOW, id="slow-before"),
        pytest.param("hasty_after", SLOW, id="slow-after"),
    ],
)
def test_original_message_is_delivered_after_filter_failure(
    site: Site, way: str, script: str
) -> None:
    box, content = site.proxy.box(script), message("unfiltered")
    assert site.send(way, box, content)[0] == 250
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)
    site.proxy.wait_clean(site.postfix)


@pytest.mark.parametrize(
    ("way", "script"),
    [
        pytest.param("strict_before", BROKEN, id="broken"),
        pytest.param("hasty-strict_before", SLOW, id="slow"),
    ],
)
def test_filter_failure_with_reject_option_causes_451_reply(
    site: Site, way: str, script: str
) -> None:
    box = site.proxy.box(script)
    assert site.send(way, box, message("held back"))[0] == 451
    site.proxy.wait_clean(site.postfix)
    assert site.postfix.delivered(box.address) == []


@pytest.mark.parametrize(
    ("way", "script"),
    [
        pytest.param("strict_after", BROKEN, id="broken"),
        pytest.param("hasty-strict_after", SLOW, id="slow"),
    ],
)
def test_mail_remains_queued_after_filter_failure_with_reject_option(
    site: Site, way: str, script: str
) -> None:
    box = site.proxy.box(script)
    site.send(way, box, message("held back"))
    line = site.postfix.wait_log(rf"to=<{box.address}>.*status=(\w+) \((.*)")
    assert line[1] == "deferred"
    assert " said: 451 " in line[2]
    assert "in reply to end of DATA command" in line[2]
    site.proxy.wait_clean(site.postfix)


def test_queued_mail_is_delivered_after_filter_is_repaired(site: Site) -> None:
    box, content = site.proxy.box(BROKEN), message("repaired")
    site.send("strict_after", box, content)
    site.postfix.wait_log(rf"to=<{box.address}>.*status=deferred")
    site.proxy.rewrite(box, "exit 0")
    site.postfix.flush()
    assert without_trace(site.postfix.wait_delivered(box.address)) == unix(content)
