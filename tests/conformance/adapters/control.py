"""The control, which is the reference implementation behind the same adapter.

Rule: the control differs from the adapter only in the program. If the control fails a transcript,
the adapter has caused the failure. The result then proves nothing about the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .adapter import Adapter, Place, Program
from .filter_command import message_of_reference


def control(adapter: Adapter, reference: Sequence[str]) -> Adapter:
    """Return *adapter* with the command *reference* instead of its program."""

    def program(place: Place) -> Program:
        options = place.options
        words = list(options.words)
        if adapter.message is not None and options.command is not None:
            words[words.index("-c") + 1] = f"exec {place.filter_script()}"
        argv = [*reference, *words, "-l", str(place.entrance), str(place.upstream)]
        return Program(argv, detaches=not options.foreground)

    message = message_of_reference if adapter.message is not None else None
    return replace(
        adapter, program=program, unix=False, settling=0.0, message=message, is_control=True
    )
