"""Measures the cost of a message in a listening proxy.

Rule: the processor time of the proxy for one message of a longer session is measured and compared
with that of a relay. The time of a filter is included only where the proxy starts a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from .clock import Spent, least, spent
from .figures import Bench, Figure
from .peers import Listener, Message, connected, listening, relay
from .ways import FILTERS

MESSAGES = 50
MESSAGE = Message(4096)


def per_message(
    listener: Listener, messages: int, account: Callable[[], float] | None = None
) -> Spent:
    """Return the mean time for one of many messages in a session.

    account: returns the processor time. The default is that of the proxy without its filters.
    """
    client = connected(listener.address)

    def send() -> None:
        for _ in range(messages):
            client.send(MESSAGE)

    taken = spent(account or listener.own, send)
    client.quit()
    return taken.times(1 / messages)


def measure(bench: Bench) -> Iterator[Figure]:
    """Run the benchmark."""
    own = Figure(label="listening, own time without a filter / a relay that only copies")
    own.at_most = 2.8
    direct = Figure(label="listening, proxy and script: executed by path / by a shell")
    direct.at_most = 0.8
    filtering = Figure(label="listening, a 4 KB message with `-c true`", unit="ms")
    passing = Figure(label="listening, a 4 KB message without a filter", unit="ms")
    script = bench.directory / "script"
    script.write_text(FILTERS["script"], encoding="utf-8")
    script.chmod(0o755)
    messages = bench.part(MESSAGES, 2)
    with ExitStack() as stack:
        without, filtered, by_path, by_shell = (
            stack.enter_context(listening(bench.command(bench.postprox, *options)))
            for options in ((), ("-c", "true"), ("-c", str(script)), ("-c", f"exec {script}"))
        )
        copying = stack.enter_context(relay(bench.python, bench.upstream))
        for turn in bench.turns(12):
            no_filter, copied, with_true, path, through_shell = least(
                3,
                partial(per_message, without, messages),
                partial(per_message, copying, messages),
                partial(per_message, filtered, messages),
                partial(per_message, by_path, messages, by_path.family),
                partial(per_message, by_shell, messages, by_shell.family),
            )
            if turn:
                own.add(no_filter.over(copied))
                direct.add(path.over(through_shell))
                filtering.add(with_true.times(1000))
                passing.add(no_filter.times(1000))
    yield own
    yield direct
    yield filtering
    yield passing
