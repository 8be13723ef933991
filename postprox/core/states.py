"""Whose turn it is in a session, and whose may be next.

Rule: `TRANSITIONS` holds every step that a session may take; `session` takes them. The unit tests'
`Dialogue` asserts each step against it, and ``docs/states.svg`` is drawn from it.
"""

CONNECTING = "connect"  # upstream's: connection, greeting, and what is replayed on a new connection
COMMAND = "command"  # the client's: a command line
AUTH_RESPONSE = "answer"  # the client's: an answer to a 334 (relay.auth)
AWAITING_REPLY = "reply"  # upstream's: the reply to a relayed command
OPENING_SPOOL = "spool"  # the spool's: it is being made
RECEIVING = "receive"  # the client's: the message
FILTERING = "filter"  # the filter's
DELIVERING = "deliver"  # upstream's: DATA, the message, the reply to its end
CLOSED = "closed"  # nobody's: the client's connection is closed

#: Which state may follow which, and on which event. A session starts in CONNECTING. In addition,
#: every state is followed by CLOSED if the proxy is terminated (files.term) or has a fault.
TRANSITIONS = {
    CONNECTING: {
        COMMAND: "upstream has greeted, for the first time",
        AWAITING_REPLY: "upstream has greeted again: the command that waited is relayed",
        CLOSED: "upstream cannot be reached, is lost, silent or garbled, or refuses",
    },
    COMMAND: {
        COMMAND: "the proxy itself answers the command",
        AWAITING_REPLY: "the command is relayed",
        CONNECTING: "the command needs upstream, which was left after a message",
        OPENING_SPOOL: "DATA, after an accepted recipient",
        CLOSED: "QUIT is answered; the client ends, is silent, or is told 421",
    },
    AUTH_RESPONSE: {
        AWAITING_REPLY: "the answer is relayed",
        CLOSED: "the client ends, is silent, or is told 421",
    },
    AWAITING_REPLY: {
        COMMAND: "the reply is relayed",
        AUTH_RESPONSE: "the reply is 334",
        AWAITING_REPLY: "RSET has ended the last transaction upstream: now the command",
        CLOSED: "upstream is lost, silent or garbled",
    },
    OPENING_SPOOL: {
        RECEIVING: "the spool is there: 354",
        COMMAND: "the spool cannot be made: 452",
        CLOSED: "the proxy has a fault",
    },
    RECEIVING: {
        FILTERING: "the message has ended",
        CLOSED: "the client is gone or silent; upstream is lost, silent or garbled",
    },
    FILTERING: {
        DELIVERING: "the message passes",
        COMMAND: "the message is refused: by the filter, for its failure (-r), or by the spool",
        CLOSED: "the client is gone; upstream is lost, silent or garbled",
    },
    DELIVERING: {
        COMMAND: "the message is answered: upstream's reply, or 452 if it cannot be read again",
        CLOSED: "the client is gone before the end is sent; upstream is lost, silent or garbled",
    },
    CLOSED: {},
}
