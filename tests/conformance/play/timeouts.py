"""How long one awaited thing may take: what a run has learnt of the program's pace.

Rule: who often says nothing is waited for less, but nobody is accused of what short patience has
done: it stays far above the slowest thing that came, and what fails by silence is played again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: After so many waits that ran out, by all who play at a time, patience is divided by so much; for
#: what is known to fail it is so from the beginning.
EXPIRED_BEFORE_REDUCED = 10
REDUCED_DIVISOR = 5
#: What came in so many seconds may take so many times as long.
_MARGIN = 3
#: So many that have failed once more with whole patience, by all who play at a time: who has missed
#: so much of a level has missed it.
_REPLAYS = {"must": 8, "should": 4}


@dataclass
class AdaptiveTimeout:
    """What one process has learnt, and what it may still spend."""

    #: How many waits may run out yet.
    left: float = EXPIRED_BEFORE_REDUCED
    #: How long the slowest thing took that came at all, in seconds.
    slowest: float = 0.0
    #: How many may fail once more, for each level.
    replays: dict[str, int] = field(default_factory=lambda: dict(_REPLAYS))

    @classmethod
    def shared(cls, workers: int) -> AdaptiveTimeout:
        """That of one of so many who play at a time."""
        replays = {level: max(1, number // workers) for level, number in _REPLAYS.items()}
        return cls(max(1, EXPIRED_BEFORE_REDUCED // workers), replays=replays)

    def full_timeout(self) -> AdaptiveTimeout:
        """The same for a run that is waited for with whole patience, whatever has been."""
        return AdaptiveTimeout(float("inf"), self.slowest)

    @property
    def is_reduced(self) -> bool:
        """Whether too many waits have run out."""
        return self.left <= 0

    def patience(self, whole: float) -> float:
        """What is left of *whole* patience."""
        return min(whole, self.at_least(whole / REDUCED_DIVISOR)) if self.is_reduced else whole

    def at_least(self, seconds: float) -> float:
        """*seconds*, or more of a program that is slower than that."""
        return max(seconds, _MARGIN * self.slowest)

    def observed(self, seconds: float) -> None:
        """Something awaited has come in *seconds*."""
        self.slowest = max(self.slowest, seconds)

    def expired(self) -> None:
        """Something awaited has not come."""
        self.left -= 1

    def may_replay(self, level: str) -> bool:
        """Whether a failure at *level*, by little patience, is to be tried again."""
        return self.replays.get(level, 0) > 0

    def confirmed(self, level: str) -> None:
        """It has failed again."""
        self.replays[level] -= 1
