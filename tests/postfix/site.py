"""A mail site under test: a private Postfix with all variants of the proxy, and a syslog."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.client import Reply

from .client import submit
from .devlog import DevLog, may_unshare
from .instance import Postfix, public_directory, wait_for
from .proxies import Box, Installation


@dataclass(frozen=True)
class Site:
    """A running site. A `way` is a proxy variant and its service, such as `strict_before`."""

    postfix: Postfix
    proxy: Installation
    syslog: DevLog | None

    def send(self, way: str, box: Box, content: bytes) -> Reply:
        """Send a message to the recipient in the given way."""
        return submit(self.postfix.addresses[way], box.sender, [box.address], content)

    def wait_syslog(self, *words: str) -> str:
        """Wait for a line with all these words in the proxy's log, and return it."""
        assert self.syslog is not None
        lines = self.syslog.lines
        return wait_for(
            f"a log line with {words}",
            lambda: next((line for line in lines if all(word in line for word in words)), None),
        )

    def last_words(self) -> list[tuple[str, str]]:
        """Return the last lines of each log under a heading."""
        mail = self.postfix.log().splitlines()
        proxy = self.syslog.lines if self.syslog else []
        return [
            ("the end of Postfix's mail log", "\n".join(mail[-60:])),
            ("the end of the proxy's syslog", "\n".join(proxy[-20:])),
        ]


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """Run Postfix with all proxy variants, and a private syslog if possible."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-postfix-"))
        proxy = Installation(directory)
        syslog = None
        if may_unshare():
            syslog = stack.enter_context(contextlib.closing(DevLog(directory / "dev")))
        postfix = Postfix(
            directory,
            proxy.names(),
            proxy.services,
            wrapper=syslog.private_dev() if syslog else (),
        )
        yield Site(stack.enter_context(postfix), proxy, syslog)
