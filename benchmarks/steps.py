"""The start of a session, step by step: what the launcher does, with a look at the clocks.

    python3 -ISB steps.py LIBRARY

It prints a line for each step's end: the processor seconds of the process so far, and the system's
monotonic clock.

Rule: it does what `packaging/launcher` does, in that order, and nothing else that costs anything.
"""

import time

marks = [(time.process_time(), time.monotonic())]

import _imp
import gc
import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER


def mark() -> None:
    """Note the end of a step."""
    marks.append((time.process_time(), time.monotonic()))


gc.set_threshold(50_000)
library = sys.argv[1]
library = f"{library.rpartition('/')[0]}/{posix.readlink(library)}"
byte_code = f"{library}/{sys.implementation.cache_tag}"
descriptor = posix.open(f"{byte_code}/session", posix.O_RDONLY | posix.O_NONBLOCK)
status = posix.fstat(descriptor)
if status.st_mode & 0o170000 != 0o100000:
    sys.exit("the byte code is no regular file")
content = posix.read(descriptor, min(status.st_size, 1 << 24))
posix.close(descriptor)
packed = memoryview(content)[:-8]
if _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), packed) != content[-8:]:
    sys.exit("the byte code is damaged")
loader, modules, later = marshal.loads(packed)
mark()
exec(loader)
load = globals()["load"]
load(modules, library)
mark()
load(marshal.loads(later[0][1]), library)
mark()
for processor, clock in marks:
    print(processor, clock)
