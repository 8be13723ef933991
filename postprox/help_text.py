"""The output of --help, --license and --version.

Rule: this module contains only user-facing text. The option list is generated from `options.TABLE`.
Sessions do not import this module.
"""

from collections.abc import Iterator

from . import __version__
from .core import options

#: The column in which the descriptions begin.
_INDENT = 27


def _synopsis() -> str:
    """Return the short options in brackets.

    Options without arguments share one pair of brackets.
    """
    parts: list[str] = []
    flags = ""
    for letter, _, argument, _, _, applies, _ in options.TABLE:
        if letter and applies != options.INFORMATION:
            if argument:
                parts += [f"[-{flags}]"] * bool(flags)
                parts.append(f"[-{letter} {argument}]")
                flags = ""
            else:
                flags += letter
    return " ".join(parts + [f"[-{flags}]"] * bool(flags))


def _information() -> str:
    return "".join(
        letter for letter, _, _, _, _, applies, _ in options.TABLE if applies == options.INFORMATION
    )


def _option_lines() -> Iterator[str]:
    defaults = options.Options()
    for letter, name, argument, attribute, _, _, description in options.TABLE:
        forms = f"  -{letter}, " if letter else " " * 6
        forms += f"--{name} {argument}"
        first, *others = description.format(getattr(defaults, attribute)).split("\n")
        yield f"{forms:{_INDENT}}{first}"
        yield from (" " * _INDENT + line for line in others)


_OPTIONS = "\n".join(_option_lines())
_HELP = f"""\
Usage: postprox HOST:PORT {_synopsis()}
       postprox -{_information()}

Relay SMTP between a client on standard input and output and the mail server at
HOST:PORT, and run a filter command that passes, changes or rejects each
message. Postfix's spawn(8) starts postprox. HOST is a name, an IPv4 address or
[IPv6 address]. HOST:PORT may also be unix:/path. The default port is 25.

{_OPTIONS}

CMD finds the message in the file $EMAIL, and SENDER, RECIPIENT, REMOTEIP and
HELO in its environment. Exit status 0 passes the message, or the content of
$OUTFILE instead if that file is not empty. Exit status 1 rejects the message
with the last line of standard error. A status of 2 or more, a signal and a
timeout are failures of CMD (see -r). The manual page postprox(1) describes
all options and the log.
"""

_LICENSE = """\
postprox is free software, distributed under the Artistic License.

You may use it, copy it, change it and give it away under the terms of that licence, which
comes with the program in the file LICENSE. It comes without any warranty: "THIS PACKAGE IS
PROVIDED "AS IS" AND WITHOUT ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, WITHOUT
LIMITATION, THE IMPLIED WARRANTIES OF MERCHANTIBILITY AND FITNESS FOR A PARTICULAR PURPOSE."
"""

_VERSION = f"""\
postprox {__version__}
Database backends: none
"""

TEXTS = {"help": _HELP, "license": _LICENSE, "version": _VERSION}
