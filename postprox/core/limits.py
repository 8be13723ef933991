"""Every bound of the proxy.

Rule: each has its reason beside it. Octets and seconds.
"""

#: As a deadline: it does not come.
NEVER = float("inf")

#: One read from a socket: large enough that system calls do not matter, small enough that a
#: hundred sessions fit into a few megabytes.
READ_SIZE = 65536

#: A command line. RFC 4954 section 4 asks for 12288 octets; a power of two above it.
COMMAND_LINE = 16384

#: Input held back while the client's earlier commands wait for their answers. Past it the
#: client is not read, and TCP makes it wait. Larger than a command line, so that one always fits.
INPUT_BUFFER = 65536

#: Commands of one client that are handled in one go, about half a millisecond's worth: more than
#: honest clients pipeline, and little enough for one to wait for ninety others.
COMMANDS_AT_ONCE = 64

#: Lines with QUIT or BDAT in them that are looked at, when a client has gone, for a QUIT that it
#: left: an honest one has left one. Each look at all that is held takes up to 70 microseconds.
LINES_WITH_QUIT = 16

#: A reply with all its lines. The largest seen in the field (EHLO, HELP) stay under 2 KB; this
#: bounds memory against an upstream that never ends its reply.
REPLY = 65536

#: Replies that the client has not read yet; past it upstream is not read either.
UNREAD_REPLIES = 65536

#: A reply line of our own or of the filter, with CRLF (RFC 5321 section 4.5.3.1.5).
REPLY_LINE = 512

#: The filter's last line is kept to this length: a reply line, and room for what is cut or
#: replaced in it.
FILTER_LINE = 4096

#: How much standard error is read after the filter has ended: what a pipe can hold. A background
#: child that goes on writing must not keep the reply waiting.
STDERR_DRAIN = 1 << 20

#: The characters that the manual allows a variable of the filter's environment.
ENVIRONMENT_VALUE = 99

#: The accepted recipients handed to the filter as RECIPIENTS, in octets: exec takes 128 KB for one
#: variable (filter.env-more).
RECIPIENTS = 100_000

#: Recipients named in the log line of a message; the others are only counted.
LOGGED_RECIPIENTS = 20

#: Characters of one value in that line: longer than any honest address or Message-ID; of all its
#: recipients; of the reply and of what the filter said. Together they stay under `LOG_LINE`.
LOGGED_VALUE = 256
LOGGED_TO = 1024
LOGGED_REPLY = 512

#: The beginning of a message in which its Message-ID is looked for.
HEADER = 16384

#: One read from a client that sends a message. It is stored at once, so that the number of
#: sessions does not multiply it; four times `READ_SIZE` saves a tenth of a large message's time.
MESSAGE_READ = 262144

#: What is read of all clients that send at the same time, before anybody is served again: of the
#: worst kind, a message of line ends alone, a megabyte takes some 60 ms. And the least that is read
#: of each of very many, or there would be nothing but reading.
READ_PER_ITERATION = 393216
MIN_READ = 4096

#: A message goes from file to socket in blocks of this size; half as large, they cost a few
#: hundredths of a large message's time.
COPY_SIZE = 262144

#: Files above this size give their space back in a thread of their own: it takes the kernel half
#: a millisecond for each megabyte.
LARGE_FILE = 1 << 24

#: Files and folders that are removed from a directory that a filter has put in OUTFILE's or
#: EMAIL's place; what is beyond is left to the administrator. About 20 ms.
REMOVALS = 1000

#: Folders within each other that are looked into there: each keeps a descriptor open.
REMOVAL_DEPTH = 8

#: Descriptors that one session may need: client, upstream, spool, EMAIL, OUTFILE (as it was made,
#: and as it is sent), standard error (two ends), and two about to be closed. A session that asks
#: the name service (two ends) has no message.
SESSION_DESCRIPTORS = 10

#: Descriptors that a process needs besides: standard ones, listeners, the log, the loop.
OWN_DESCRIPTORS = 16

#: The longest silence of a client, and the time limit of a whole command line. RFC 5321 section
#: 4.5.3.2.7 requires 300 s. Two pauses of a client of smtpd(8) can be one pause here, because
#: smtpd(8) answers NOOP itself.
CLIENT_IDLE = 600.0

#: The time limit of a whole message: a fixed part, and its octets at a rate (octets per second).
#: At this rate smtpd(8) sends one burst of 128 KB every 328 s, well within the fixed part.
MESSAGE_TIME = 600.0
MESSAGE_RATE = 400

#: All tries to connect to upstream together. Postfix waits smtpd_proxy_timeout, 100 s, for the
#: greeting.
CONNECT = 30.0

#: Upstream's greeting and its answers to commands (RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.3).
UPSTREAM_REPLY = 300.0

#: Upstream's answer to DATA (RFC 5321 section 4.5.3.2.4).
UPSTREAM_DATA = 120.0

#: Upstream taking a block of the message (RFC 5321 section 4.5.3.2.5).
UPSTREAM_BLOCK = 180.0

#: Upstream's answer to the end of data (RFC 5321 section 4.5.3.2.6).
UPSTREAM_FINAL = 600.0

#: Upstream's answer to QUIT, which decides nothing.
UPSTREAM_GOODBYE = 5.0

#: An upstream left idle for so long while a message is received or filtered is sent NOOP: well
#: under Postfix's smtpd_timeout of 300 s, and under the 100 s of a stressed Postfix's peers.
KEEPALIVE = 60.0

#: After an error the client's input is read and dropped for so long before the connection is
#: closed: closing with unread input would reset the connection, and the reply would be lost.
LINGER = 1.0

#: How long messages under way may take when a listening proxy is told to stop. Service managers
#: kill after 90 s.
STOP_GRACE = 60.0

#: Clients wait for so long after one could not be accepted, for want of descriptors mostly: trying
#: at once again would keep the processor and the log busy with nothing else. When all places are
#: taken, it is looked so often for those whose client is gone.
ACCEPT_PAUSE = 1.0

#: Clients served at once in listen mode: Postfix's default_process_limit.
SESSIONS = 100

#: The service manager is told so often what a server does, if it does not ask for more.
STATUS = 15.0

#: The filter's time limit without -t, in seconds (the manual).
FILTER_TIMEOUT = 30.0

#: One wait of the event loop: poll(2) takes milliseconds as an int, and a filter's time limit may
#: be any number.
LONGEST_WAIT = 3600.0

#: The event loop pauses for so long after it could not wait for events or read signals, for want
#: of memory mostly.
LOOP_PAUSE = 0.05

#: A deadline that is handled so much later than it was due, in seconds of real time, shows that the
#: process was held up: stopped, or without a processor. A loop that is merely busy is late by less.
HELD_UP = 0.25

#: A client that is gone has its last reply awaited for so long: nobody waits for it, and it keeps
#: a place from others (relay.idle).
REPLY_AFTER_CLIENT_EOF = 30.0

#: How long a message whose end has gone upstream is waited for when the proxy is told to stop
#: (files.term), and when it is told so again. Postfix answers in well under a second, unless its
#: disk is busy; service managers and init scripts kill after 10 s at the earliest.
STOP_FINAL = 10.0
STOP_FINAL_AGAIN = 2.0

#: A line of the log. RFC 5424 section 6.1 asks for 2 KB; the syslog daemons of today take 8 KB.
LOG_LINE = 4096

#: Errors and warnings that wait for a syslog daemon that does not read.
LOG_BACKLOG = 65536

#: How long they wait before it is tried again, and at most when the process ends.
LOG_RETRY = 0.2
LOG_EXIT_FLUSH = 1.0

#: A server does not repeat a warning, of full sessions for example, within this time.
FULL_WARNING = 60.0

#: Files that a killed proxy has left are removed after so long: a living proxy writes to its own at
#: least every `CLIENT_IDLE`. An OUTFILE alone, whose filter might still run, only after a day
#: (files.stale).
STALE = 1200.0
STALE_OUTFILE = 86400.0
