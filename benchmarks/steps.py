"""Performs the start of a session step by step like the launcher, and measures each step.

    python3 -ISB steps.py LIBRARY

It prints a line at the end of each step, with the processor time of the process so far in seconds
and the monotonic clock.

Rule: this program does the same as `packaging/launcher`, in the same order, and nothing else that
takes time.
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
    """Record the end of a step."""
    marks.append((time.process_time(), time.monotonic()))


gc.set_threshold(50_000)
library = sys.argv[1]
library = f"{library.rpartition('/')[0]}/{posix.readlink(library)}"
byte_code = f"{library}/{sys.implementation.cache_tag}"
descriptor = posix.open(f"{byte_code}/session", posix.O_RDONLY | posix.O_NONBLOCK)
status = posix.fstat(descriptor)
if status.st_mode & 0o170000 != 0o100000:
    sys.exit("the byte code is not a regular file")
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
