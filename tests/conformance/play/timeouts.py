"""Time limits for awaited events that adapt to the measured speed of the program.

Rule: a program with frequent timeouts gets a reduced time limit. The limit stays far above its
slowest response, and a transcript that fails because of a reduced limit is run again. The reduction
therefore causes no false failures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: After EXPIRED_BEFORE_REDUCED timeouts in all workers together, the time limit is divided by
#: REDUCED_DIVISOR. For a known divergence, it is divided in every run. The limit for the
#: program's start is never divided.
EXPIRED_BEFORE_REDUCED = 10
REDUCED_DIVISOR = 5
#: The minimum time limit, as a multiple of the slowest response so far.
_MARGIN = 3
#: The maximum number of repeated runs in all workers together. After this number of confirmed
#: failures at a level, further failures at that level are not repeated.
_REPLAYS = {"must": 8, "should": 4}


@dataclass
class AdaptiveTimeout:
    """The measurements of one worker, and its remaining budget."""

    #: The number of timeouts left before the time limit is reduced.
    left: float = EXPIRED_BEFORE_REDUCED
    #: The duration of the slowest response so far, in seconds.
    slowest: float = 0.0
    #: The number of repeated runs left for each level.
    replays: dict[str, int] = field(default_factory=lambda: dict(_REPLAYS))

    @classmethod
    def shared(cls, workers: int) -> AdaptiveTimeout:
        """Return the initial state of one of *workers* parallel workers."""
        replays = {level: max(1, number // workers) for level, number in _REPLAYS.items()}
        return cls(max(1, EXPIRED_BEFORE_REDUCED // workers), replays=replays)

    def full_timeout(self) -> AdaptiveTimeout:
        """Return the state for a run with the full time limit."""
        return AdaptiveTimeout(float("inf"), self.slowest)

    @property
    def is_reduced(self) -> bool:
        """Whether the number of timeouts exceeds the permitted number."""
        return self.left <= 0

    def limit(self, whole: float) -> float:
        """Return the time limit that replaces the full limit *whole*."""
        return min(whole, self.at_least(whole / REDUCED_DIVISOR)) if self.is_reduced else whole

    def at_least(self, seconds: float) -> float:
        """Return *seconds*, or more for a slow program."""
        return max(seconds, _MARGIN * self.slowest)

    def observed(self, seconds: float) -> None:
        """Record that an awaited event came after *seconds*."""
        self.slowest = max(self.slowest, seconds)

    def expired(self) -> None:
        """Record a timeout."""
        self.left -= 1

    def may_replay(self, level: str) -> bool:
        """Whether to repeat a transcript at *level* that failed with a reduced time limit."""
        return self.replays.get(level, 0) > 0

    def confirmed(self, level: str) -> None:
        """Record that the repeated run failed."""
        self.replays[level] -= 1
