"""All limits of the proxy.

Rule: each limit has a comment that explains it. Units are octets and seconds unless the comment
specifies another unit.
"""

#: A deadline that never expires.
NEVER = float("inf")

#: The size of one read from a socket. At this size, the cost of system calls is negligible, and a
#: hundred sessions need only a few megabytes.
READ_SIZE = 65536

#: The maximum length of a command line. RFC 4954 section 4 requires 12288 octets. This limit is the
#: next power of two.
COMMAND_LINE = 16384

#: The maximum amount of client input that is buffered while an earlier command is still being
#: handled. Above this limit, the proxy stops reading from the client, and TCP flow control blocks
#: the client. The buffer has room for any valid command line.
INPUT_BUFFER = 65536

#: The maximum number of commands from one client that are handled without a pause. Handling this
#: number of commands takes about half a millisecond. Legitimate clients pipeline fewer commands.
#: If ninety other clients reach this limit, a command waits about 45 ms, which is acceptable.
COMMANDS_AT_ONCE = 64

#: The maximum number of lines containing QUIT or BDAT that the proxy examines after the client has
#: closed its side of the connection. A legitimate client sends one such line. A search through a
#: full buffer takes up to 70 microseconds.
LINES_WITH_QUIT = 16

#: The maximum total size of a reply. The largest observed replies (EHLO, HELP) are smaller than 2
#: KB. The limit bounds the memory that an endless reply can use.
REPLY = 65536

#: The maximum total size of replies that the client has not read yet. Above this limit, the proxy
#: stops reading from the upstream server.
UNREAD_REPLIES = 65536

#: The maximum length of a reply line from the proxy or the filter, including CRLF (RFC 5321 section
#: 4.5.3.1.5).
REPLY_LINE = 512

#: The size of the buffer for the filter's last line. The buffer is larger than a reply line,
#: because the proxy may remove characters from the last line.
FILTER_LINE = 4096

#: The maximum amount of the filter's standard error output that is read after the filter has
#: exited. It equals the maximum capacity of a pipe on Linux (fs.pipe-max-size). A background
#: process that continues to write must not delay the reply.
STDERR_DRAIN = 1 << 20

#: The maximum length of a variable in the filter's environment, as documented in the manual.
ENVIRONMENT_VALUE = 99

#: The maximum size of the variable RECIPIENTS. execve(2) accepts 128 KB per variable
#: (filter.env-more).
RECIPIENTS = 100_000

#: The maximum number of recipients in a message's log line. Any additional recipients are counted
#: but not listed.
LOGGED_RECIPIENTS = 20

#: The maximum number of characters in a field of a message's log line. `LOGGED_TO` applies to the
#: list of recipients, `LOGGED_REPLY` applies to the reply and to the filter's last line, and
#: `LOGGED_VALUE` applies to all other values. Legitimate addresses and Message-IDs are shorter. All
#: fields together are shorter than `LOG_LINE`.
LOGGED_VALUE = 256
LOGGED_TO = 1024
LOGGED_REPLY = 512

#: The number of octets at the beginning of a message that are searched for the Message-ID.
HEADER = 16384

#: The size of one read from a client that is sending a message. The data is written to the spool
#: immediately, so memory use does not depend on the number of sessions. With this size, a large
#: message takes 10 % less time than with `READ_SIZE`.
MESSAGE_READ = 262144

#: The maximum amount of message data that one iteration of the loop reads from all clients
#: together. One megabyte takes about 60 ms in the worst case (a message that consists only of empty
#: lines). The share of each client is at least `MIN_READ`, because smaller reads would be
#: inefficient.
READ_PER_ITERATION = 393216
MIN_READ = 4096

#: The size of the blocks copied from a file to a socket. With half this size, a large message takes
#: a few percent longer.
COPY_SIZE = 262144

#: Files above this size are freed in a background thread, because freeing a megabyte takes the
#: kernel half a millisecond.
LARGE_FILE = 1 << 24

#: The maximum number of files and directories that are removed if a filter has replaced OUTFILE or
#: EMAIL with a directory. The removal takes about 20 ms. The administrator must remove any others.
REMOVALS = 1000

#: The maximum depth to which nested directories are removed. Each level keeps one file descriptor
#: open.
REMOVAL_DEPTH = 8

#: The number of file descriptors that one session can use. The client, the upstream server, the
#: spool and EMAIL need one each. OUTFILE and the pipe for standard error need two each. Up to two
#: more may not have been closed yet. A session that is resolving a name uses one more pipe, but no
#: descriptors for a message.
SESSION_DESCRIPTORS = 10

#: The number of other file descriptors that a process uses: standard streams, listeners, log and
#: loop.
OWN_DESCRIPTORS = 16

#: The idle timeout for a client, and the time limit for a command line. RFC 5321 section 4.5.3.2.7
#: requires 300 s. This limit is 600 s, because smtpd(8) answers NOOP without relaying it. The proxy
#: therefore measures two pauses with a NOOP between them as one pause.
CLIENT_IDLE = 600.0

#: The time limit for a message: a fixed part, plus the message's size divided by a rate in octets
#: per second. smtpd(8) sends a message in bursts of 128 KB. At this rate, the interval between
#: bursts is 328 s, which is shorter than the fixed part.
MESSAGE_TIME = 600.0
MESSAGE_RATE = 400

#: The timeout for connecting to the upstream server, which applies to all its addresses together.
#: Postfix waits up to 100 s for the greeting (smtpd_proxy_timeout).
CONNECT = 30.0

#: The timeout for the greeting and for replies to commands (RFC 5321 sections 4.5.3.2.1 to
#: 4.5.3.2.3).
UPSTREAM_REPLY = 300.0

#: The timeout for the reply to DATA (RFC 5321 section 4.5.3.2.4).
UPSTREAM_DATA = 120.0

#: The timeout for sending a block of the message upstream (RFC 5321 section 4.5.3.2.5).
UPSTREAM_BLOCK = 180.0

#: The timeout for the final reply (RFC 5321 section 4.5.3.2.6).
UPSTREAM_FINAL = 600.0

#: The timeout for the reply to QUIT. This reply has no effect on mail.
UPSTREAM_GOODBYE = 5.0

#: The interval between NOOP commands to the upstream server while a message is received or
#: filtered. The interval is shorter than Postfix's smtpd_timeout, which is 300 s by default. If
#: Postfix is under stress, its default is 10 s, but the documented configuration of the upstream
#: server sets 300 s.
KEEPALIVE = 60.0

#: The time for which client input is discarded after an error, before the connection is closed. If
#: the connection were closed with unread input, it would be reset and the reply would be lost.
LINGER = 1.0

#: The time limit for messages in progress when a server stops. Service managers kill the server
#: after 90 s.
STOP_GRACE = 60.0

#: The pause after a failed accept(2). The usual cause is that no file descriptor is free. Immediate
#: retries would keep the processor busy and flood the log. If the session limit is reached, the
#: server also checks at this interval whether clients of open sessions have disconnected.
ACCEPT_PAUSE = 1.0

#: The default maximum number of concurrent sessions, equal to Postfix's default_process_limit.
SESSIONS = 100

#: The interval at which a server with sessions checks whether its status has changed. `systemctl
#: status` then shows a status that is at most 2 s old, even if the process is scheduled late.
STATUS = 1.0

#: The interval at which the --metrics file is written. Prometheus usually reads the file at
#: intervals of 15 s or more.
METRICS = 15.0

#: The default timeout for the filter (-t), as documented in the manual.
FILTER_TIMEOUT = 30.0

#: The maximum time for which the event loop waits. poll(2) takes the number of milliseconds as an
#: int, but the filter's timeout may be any number.
LONGEST_WAIT = 3600.0

#: The length of the event loop's pause if the loop cannot wait for events or read signals. The
#: usual cause is that memory is exhausted.
LOOP_PAUSE = 0.05

#: If the loop handles a deadline more than this many seconds late in real time, the process was
#: stopped or not scheduled. If the event loop is only busy, the delay is shorter.
HELD_UP = 0.25

#: The timeout for the last reply after the client has disconnected. Until the timeout, the session
#: occupies a slot although it no longer serves a client (relay.idle).
REPLY_AFTER_CLIENT_EOF = 30.0

#: The time limits for the final reply after the first and the second termination signal, in seconds
#: (files.term). Postfix replies in less than a second, unless its disk is busy. Service managers
#: and init scripts send SIGKILL after 10 s or more.
STOP_FINAL = 10.0
STOP_FINAL_AGAIN = 2.0

#: The maximum length of a log line. RFC 5424 section 6.1 recommends that receivers accept 2 KB.
#: Current syslog daemons accept 8 KB.
LOG_LINE = 4096

#: The maximum number of errors and warnings buffered while the syslog daemon is not reading.
LOG_BACKLOG = 65536

#: The interval between attempts to send buffered lines, and the time limit for attempts at exit.
LOG_RETRY = 0.2
LOG_EXIT_FLUSH = 1.0

#: The minimum interval between repeated warnings from a server, for example about `--max-sessions`.
FULL_WARNING = 60.0

#: The age at which files left behind by a killed proxy are removed. A running proxy writes to its
#: files at least every `CLIENT_IDLE` seconds. An OUTFILE without EMAIL is kept for a day, because
#: its filter may still be running (files.stale).
STALE = 1200.0
STALE_OUTFILE = 86400.0
