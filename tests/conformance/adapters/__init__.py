"""The adapter kit: lets the suite test a program that does not have postprox's command line.

Rule: the kit uses the standard library only, and nothing of the suite. An adapter is a file with
`ADAPTER = Adapter(...)`. docs/adapters.md explains each step.

- `Adapter` has the program and its passage.
- `Place` has the addresses and the options for one transcript.
- `Program` is the command for one transcript.
- `Direct`, `Early` and `Deferred` are the passages.
- `OwnName` and `Rewriter` change texts for the client.
- `Message` is the message that a program gives to its filter.
"""

from .adapter import Adapter, Passage, Place, Program
from .command_line import Address, Options
from .deferred import Deferred
from .direct import Direct, Early, Rewriter
from .filter_command import Message
from .names import OwnName

__all__ = [
    "Adapter",
    "Address",
    "Deferred",
    "Direct",
    "Early",
    "Message",
    "Options",
    "OwnName",
    "Passage",
    "Place",
    "Program",
    "Rewriter",
]
