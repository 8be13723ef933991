"""The proxy's own replies to clients.

Rule: each reply is a complete line with CRLF. This module contains only the reply texts. `session`
decides which reply to send.
"""

BYE = b"221 2.0.0 Bye\r\n"
OK = b"250 2.0.0 Ok\r\n"
SEND_MESSAGE = b"354 End data with <CR><LF>.<CR><LF>\r\n"

SHUTTING_DOWN = b"421 4.3.2 The mail filter is shutting down\r\n"
MISCONFIGURED = b"421 4.3.5 The mail filter is not configured correctly\r\n"
INTERNAL_ERROR = b"421 4.3.0 The mail filter has failed\r\n"
NOT_LMTP = b"421 4.3.5 The mail filter speaks SMTP, use smtp(8) and not lmtp(8) as transport\r\n"
CLIENT_IDLE = b"421 4.4.2 Idle for too long, closing the connection\r\n"
CLIENT_SLOW = b"421 4.4.2 Input is too slow, closing the connection\r\n"
UPSTREAM_UNREACHABLE = b"421 4.4.1 The mail server behind the filter cannot be reached\r\n"
UPSTREAM_LOST = b"421 4.4.2 The mail server behind the filter closed the connection\r\n"
UPSTREAM_SILENT = b"421 4.4.2 The mail server behind the filter does not answer\r\n"
UPSTREAM_GARBLED = b"421 4.3.0 The mail server behind the filter does not speak SMTP\r\n"
AUTHENTICATE_AGAIN = b"421 4.7.0 Connect and authenticate again\r\n"

MESSAGE_LOST = b"451 4.4.2 The mail server behind the filter was lost, try again\r\n"
MESSAGE_UNANSWERED = b"451 4.3.0 The mail server behind the filter gave no valid answer\r\n"
FILTER_FAILED = b"451 4.3.0 The mail filter has failed, try again later\r\n"
SPOOL_ERROR = b"452 4.3.1 The mail filter cannot store the message, try again later\r\n"

LINE_TOO_LONG = b"500 5.5.2 Line too long\r\n"
BAD_CHARACTER = b"500 5.5.2 Command with a NUL or a bare CR\r\n"
DATA_ARGUMENT = b"501 5.5.4 DATA takes no argument\r\n"
NOT_OFFERED = b"502 5.5.1 Command not available through the mail filter\r\n"
NEED_MAIL = b"503 5.5.1 Send MAIL first\r\n"
NEED_RECIPIENT = b"554 5.5.1 No valid recipients\r\n"
REJECTED = b"554 5.7.1 Message rejected by the mail filter\r\n"
