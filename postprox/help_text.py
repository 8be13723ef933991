"""What --help, --license and --version print.

Rule: texts for people; never imported while proxying.
"""

from . import __version__
from .core import limits

_HELP = f"""\
Usage: postprox HOST:PORT [-c CMD] [-d DIR] [-t SEC] [-rv] [-l [IP:]PORT]
       postprox -hLV

Pass SMTP from standard input to the mail server at HOST:PORT and its replies
to standard output, and let a filter command decide about every message.
Postfix's spawn(8) runs it. HOST is a name, an IPv4 address or [IPv6 address];
HOST:PORT may also be unix:/path. Without :PORT the port is 25.

  -c, --command CMD        run CMD with `sh -c` on every message
                           (default: none, all mail passes)
  -d, --tempdir DIR        store messages in DIR (default: /tmp)
  -t, --timeout SEC        kill CMD after SEC seconds (default: {limits.FILTER_TIMEOUT:g})
  -r, --reject             refuse a message with 451 if CMD fails, instead of
                           letting it pass
      --strict             only a reply code makes status 1 a rejection; with -r
  -v, --verbose            log every message; twice: every command too
  -l, --listen [IP:]PORT   go into the background and listen there
                           (default IP: 127.0.0.1)
      --foreground         with -l: stay in the foreground
      --log syslog|stderr  with -l --foreground: where the log goes (default:
                           syslog; without /dev/log standard error)
      --max-sessions N     with -l: serve N clients at once (default: {limits.SESSIONS})
      --metrics FILE       with -l: write there for Prometheus what it does
      --pid-file FILE      with -l: write the process id there
  -h, --help               print this help
  -L, --license            print the licence
  -V, --version            print the version

CMD finds the message in the file $EMAIL, and SENDER, RECIPIENT, REMOTEIP and
HELO in its environment. Exit status 0: the message passes, replaced by the
contents of $OUTFILE if there are any. 1: it is rejected, with the last line of
standard error. 2 or more, a signal, or out of time: CMD has failed (see -r).
The manual page, postprox(1), has it all.
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
