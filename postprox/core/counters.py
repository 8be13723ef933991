"""The counters of a server, for `--metrics` and `systemctl status`.

Rule: this module keeps counts and nothing else. From each message, it takes only the verdict, the
result, the size and the filter's run time.
"""

from .. import __version__

#: The upper bounds of the run time histogram, in seconds. The bounds distinguish between fast
#: checks, scanners and common timeouts.
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 100.0)


class Counters:
    """The counts since the server was started."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], int] = {}
        self._octets = 0
        self._within = [0] * len(SECONDS)
        self._filtered = 0
        self._seconds = 0.0

    def count(self, verdict: str, result: str, size: int, seconds: float) -> None:
        """Count a message.

        size: the size of the message in octets.
        seconds: the run time of the filter, or 0 if no filter ran.
        """
        key = verdict, result
        self._messages[key] = self._messages.get(key, 0) + 1
        self._octets += size
        if seconds:
            self._filtered += 1
            self._seconds += seconds
            for index, bound in enumerate(SECONDS):
                self._within[index] += seconds <= bound

    @property
    def summary(self) -> str:
        """Return the number of messages for each verdict, for `systemctl status`."""
        verdicts: dict[str, int] = {}
        for (verdict, _), number in self._messages.items():
            verdicts[verdict] = verdicts.get(verdict, 0) + number
        return ", ".join(f"{verdict} {number}" for verdict, number in sorted(verdicts.items()))

    def prometheus_text(self, present: dict[str, tuple[str, str, float]]) -> str:
        """Format the metrics in the Prometheus text format 0.0.4.

        present: the other metrics, as a mapping from the name of each metric to its type,
            description and current value.
        """
        lines = [
            *_head("build_info", "gauge", "Version of postprox."),
            f'postprox_build_info{{version="{__version__}"}} 1',
        ]
        for name, (kind, meaning, number) in present.items():
            lines += [*_head(name, kind, meaning), f"postprox_{name} {number}"]
        lines += _head("messages_total", "counter", "Messages by verdict and result.")
        lines += [
            f'postprox_messages_total{{verdict="{verdict}",result="{result}"}} {number}'
            for (verdict, result), number in sorted(self._messages.items())
        ]
        lines += [
            *_head(
                "message_bytes_total",
                "counter",
                "Octets in messages, counted with LF line endings.",
            ),
            f"postprox_message_bytes_total {self._octets}",
        ]
        lines += _head("filter_seconds", "histogram", "Filter run time in seconds.")
        lines += [
            f'postprox_filter_seconds_bucket{{le="{bound:g}"}} {number}'
            for bound, number in zip(SECONDS, self._within, strict=True)
        ]
        lines += [
            f'postprox_filter_seconds_bucket{{le="+Inf"}} {self._filtered}',
            f"postprox_filter_seconds_sum {self._seconds:.3f}",
            f"postprox_filter_seconds_count {self._filtered}",
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP postprox_{name} {meaning}", f"# TYPE postprox_{name} {kind}"]
