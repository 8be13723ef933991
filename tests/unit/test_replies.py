"""Tests that the proxy's replies are well-formed."""

from __future__ import annotations

import re

import pytest

from postprox.core import limits, replies

OWN = [name for name in vars(replies) if name.isupper()]
WITHOUT_ENHANCED_CODE = {"SEND_MESSAGE"}  # RFC 2034 section 4 excludes 3yz replies.


@pytest.mark.parametrize("name", OWN)
def test_every_reply_is_one_printable_line(name: str) -> None:
    reply = getattr(replies, name)
    assert re.fullmatch(rb"[2-5][0-9][0-9] [ -~]+\r\n", reply)
    assert len(reply) <= limits.REPLY_LINE


@pytest.mark.parametrize("name", sorted(set(OWN) - WITHOUT_ENHANCED_CODE))
def test_enhanced_code_matches_reply_class(name: str) -> None:
    reply = getattr(replies, name)
    code = re.match(rb"([245])[0-9][0-9] ([245])\.[0-9]{1,3}\.[0-9]{1,3} ", reply)
    assert code is not None
    assert code[1] == code[2]
