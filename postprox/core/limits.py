"""All limits of the proxy.

Rule: each limit has its reason. Units are octets and seconds, unless a comment names another.
"""

#: The deadline that never expires.
NEVER = float("inf")

#: One read from a socket. The size keeps the cost of system calls negligible, and a hundred
#: sessions need a few megabytes.
READ_SIZE = 65536

#: A command line. RFC 4954 section 4 requires 12288 octets, and this is the next power of two.
COMMAND_LINE = 16384

#: Input buffered while earlier commands of the client await their replies. Above this limit the
#: proxy does not read from the client, and TCP blocks it. The buffer can hold any command line.
INPUT_BUFFER = 65536

#: Commands of one client that are handled without a break, in about half a millisecond. Legitimate
#: clients pipeline fewer, and a client can wait while ninety others are handled.
COMMANDS_AT_ONCE = 64

#: Lines with QUIT or BDAT that are examined after EOF from the client, in the search for QUIT. A
#: legitimate client sends one. One search of the full buffer takes up to 70 microseconds.
LINES_WITH_QUIT = 16

#: A reply with all its lines. The largest observed replies (EHLO, HELP) are below 2 KB. The limit
#: bounds the memory for a reply that never ends.
REPLY = 65536

#: Replies that the client has not read. Above this limit the proxy does not read from upstream.
UNREAD_REPLIES = 65536

#: A reply line of the proxy or of the filter, with CRLF (RFC 5321 section 4.5.3.1.5).
REPLY_LINE = 512

#: The buffer for the filter's last line. It exceeds a reply line, because the reply is made from
#: it by removing and replacing characters.
FILTER_LINE = 4096

#: Standard error that is read after the filter exited: the capacity of a pipe. A background child
#: process that continues to write must not delay the reply.
STDERR_DRAIN = 1 << 20

#: The length of a variable in the filter's environment, from the manual.
ENVIRONMENT_VALUE = 99

#: The variable RECIPIENTS of the filter. execve(2) accepts 128 KB per variable (filter.env-more).
RECIPIENTS = 100_000

#: Recipients in the log line of a message. Further recipients are only counted.
LOGGED_RECIPIENTS = 20

#: Characters in that line: of one value, of all recipients, and of the reply and the filter's last
#: line. A legitimate address or Message-ID is shorter. The sum is below `LOG_LINE`.
LOGGED_VALUE = 256
LOGGED_TO = 1024
LOGGED_REPLY = 512

#: The part of a message that is searched for its Message-ID.
HEADER = 16384

#: One read from a client that sends a message. The data is stored at once, so the memory does not
#: grow with the number of sessions. Compared with `READ_SIZE` it saves 10 % of the time of a large
#: message.
MESSAGE_READ = 262144

#: Message data that one iteration of the loop reads from all clients. In the worst case, a message
#: of line ends alone, a megabyte takes about 60 ms. The second limit is the minimum per client,
#: because smaller reads of many clients cost too much.
READ_PER_ITERATION = 393216
MIN_READ = 4096

#: The block size from a file to a socket. Half this size adds a few per cent to the time of a large
#: message.
COPY_SIZE = 262144

#: Files above this size are freed in a background thread. The kernel takes half a millisecond per
#: megabyte.
LARGE_FILE = 1 << 24

#: Files and directories that are removed if a filter replaced OUTFILE or EMAIL by a directory. The
#: removal takes about 20 ms. The administrator must remove the rest.
REMOVALS = 1000

#: The depth of that removal. Each level keeps one file descriptor open.
REMOVAL_DEPTH = 8

#: File descriptors of one session: client, upstream, spool, EMAIL, OUTFILE (as created, and as
#: sent), standard error (two ends), and two that are about to be closed. A session that asks the
#: name service (two ends) has no message.
SESSION_DESCRIPTORS = 10

#: Further file descriptors of a process: standard streams, listeners, the log, the loop.
OWN_DESCRIPTORS = 16

#: The idle timeout of a client, and the time limit of a command line. RFC 5321 section 4.5.3.2.7
#: requires 300 s. smtpd(8) answers NOOP itself, so two pauses of its client can be one pause here.
CLIENT_IDLE = 600.0

#: The time limit of a message: a fixed part, plus its size at a rate in octets per second. At this
#: rate smtpd(8) sends a burst of 128 KB every 328 s, which is less than the fixed part.
MESSAGE_TIME = 600.0
MESSAGE_RATE = 400

#: The timeout of a connection to the upstream server, over all addresses. Postfix awaits the
#: greeting for 100 s (smtpd_proxy_timeout).
CONNECT = 30.0

#: The timeout of the greeting and of replies to commands (RFC 5321 sections 4.5.3.2.1 to
#: 4.5.3.2.3).
UPSTREAM_REPLY = 300.0

#: The timeout of the reply to DATA (RFC 5321 section 4.5.3.2.4).
UPSTREAM_DATA = 120.0

#: The timeout of sending a block of the message upstream (RFC 5321 section 4.5.3.2.5).
UPSTREAM_BLOCK = 180.0

#: The timeout of the final reply (RFC 5321 section 4.5.3.2.6).
UPSTREAM_FINAL = 600.0

#: The timeout of the reply to QUIT, on which nothing depends.
UPSTREAM_GOODBYE = 5.0

#: The interval of NOOP to the upstream server while a message is received or filtered. It is
#: below Postfix's smtpd_timeout of 300 s, and below the 100 s that peers of a Postfix under stress
#: use.
KEEPALIVE = 60.0

#: The time for which input of the client is discarded after an error, before the connection is
#: closed. A close with unread input would reset the connection, and the reply would be lost.
LINGER = 1.0

#: The time limit of messages in progress when a server stops. Service managers kill after 90 s.
STOP_GRACE = 60.0

#: The pause after a failure to accept a client, usually for lack of file descriptors. An immediate
#: retry would busy the processor and flood the log. With `--max-sessions` sessions, it is also the
#: interval of the check for sessions whose client is gone.
ACCEPT_PAUSE = 1.0

#: Concurrent sessions of a server: Postfix's default_process_limit.
SESSIONS = 100

#: The interval of status datagrams to the service manager, unless its watchdog sets another.
STATUS = 15.0

#: The default of -t, the timeout of the filter, from the manual.
FILTER_TIMEOUT = 30.0

#: One wait of the event loop. poll(2) accepts milliseconds as an int, but a filter's timeout may be
#: any number.
LONGEST_WAIT = 3600.0

#: The pause of the event loop after a failure to wait for events or to read signals, usually for
#: lack of memory.
LOOP_PAUSE = 0.05

#: The lateness of a deadline, in seconds of real time, that shows that the process was held up:
#: stopped, or without a processor. A loop that is only busy is late by less.
HELD_UP = 0.25

#: The timeout of the last reply after the client is lost. Such a session only occupies a slot
#: (relay.idle).
REPLY_AFTER_CLIENT_EOF = 30.0

#: The timeout of the final reply after the first and after the second termination signal
#: (files.term). Postfix replies in less than a second, unless its disk is busy. Service managers
#: and init scripts kill after 10 s or later.
STOP_FINAL = 10.0
STOP_FINAL_AGAIN = 2.0

#: A line of the log. RFC 5424 section 6.1 requires 2 KB. Current syslog daemons accept 8 KB.
LOG_LINE = 4096

#: Errors and warnings that are buffered while the syslog daemon does not read.
LOG_BACKLOG = 65536

#: The interval of retries for them, and the time limit of retries at exit.
LOG_RETRY = 0.2
LOG_EXIT_FLUSH = 1.0

#: The minimum interval of a repeated warning of a server, for example about `--max-sessions`.
FULL_WARNING = 60.0

#: The age at which files of a killed proxy are removed. A running proxy writes to its files at
#: least every `CLIENT_IDLE` seconds. An OUTFILE alone is removed after a day, because its filter
#: may still run (files.stale).
STALE = 1200.0
STALE_OUTFILE = 86400.0
