"""The adapter kit, with which the suite can test programs that lack postprox's command line.

Rule: the kit uses only the standard library and no other module of the suite. An adapter is a file
with `ADAPTER = Adapter(...)`. docs/adapters.md explains each step.

- `Adapter` consists of the program and its delivery mode.
- `Place` contains the addresses and the options for one transcript.
- `Program` is the command for one transcript.
- `Direct`, `Early` and `Deferred` are the delivery modes.
- `OwnName` and `Rewriter` change replies to the client.
- `Message` is the message that a program passes to its filter.
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
