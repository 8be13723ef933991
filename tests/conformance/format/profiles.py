"""The profiles: the classes of programs whose requirements a run tests.

Rule: a requirement belongs to a profile if the profile contains the class that the requirement
binds. A transcript belongs to the same profiles as its subject.
"""

from __future__ import annotations

from dataclasses import dataclass

from .payload import did_you_mean
from .requirements import Requirement, specification
from .vocabulary import BINDS

_WIDEST, *_OTHERS, _WHOLE = BINDS
_SEPARATOR = ","


@dataclass(frozen=True)
class Profile:
    """A set of classes, which always contains relay. The profile postprox contains all classes."""

    classes: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Profile:
        """Parse class names separated by commas. ValueError contains the unknown class."""
        named = text.split(_SEPARATOR)
        for one in named:
            if one not in BINDS:
                raise ValueError(
                    f"profile must be one of {', '.join(BINDS)}, or several of them separated by "
                    f"commas, not '{one}'{did_you_mean(one, BINDS)}"
                )
        return cls(frozenset(BINDS) if _WHOLE in named else frozenset((_WIDEST, *named)))

    @property
    def name(self) -> str:
        """The shortest text that `of` parses as this profile."""
        if _WHOLE in self.classes:
            return _WHOLE
        return _SEPARATOR.join(one for one in _OTHERS if one in self.classes) or _WIDEST

    @property
    def is_whole(self) -> bool:
        """Whether the profile contains every requirement."""
        return _WHOLE in self.classes

    def has(self, requirement: Requirement) -> bool:
        """Whether *requirement* belongs to the profile."""
        return requirement.binds in self.classes

    def counted(self, cited: tuple[str, ...]) -> tuple[str, ...]:
        """Return the identifiers among *cited* that belong to the profile."""
        known = specification().requirements
        return tuple(one for one in cited if self.has(known[one]))


#: The default profile, if neither an option nor the implementation file specifies one.
POSTPROX = Profile.of(_WHOLE)
