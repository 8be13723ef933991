"""Whose turn it is in a session, and whose may be next.

Rule: `TRANSITIONS` holds every step that a session may take; `session` takes them. The unit tests'
`Dialogue` asserts each step against it, and ``docs/states.svg`` is drawn from it.
"""

CONNECT = "connect"  # upstream's: connection, greeting, and what is replayed on a new connection
COMMAND = "command"  # the client's: a command line
ANSWER = "answer"  # the client's: an answer to a 334 (relay.auth)
REPLY = "reply"  # upstream's: the reply to a relayed command
SPOOL = "spool"  # the spool's: it is being made
RECEIVE = "receive"  # the client's: the message
FILTER = "filter"  # the filter's
DELIVER = "deliver"  # upstream's: DATA, the message, the reply to its end
CLOSED = "closed"  # nobody's: the client's connection is closed

#: Whose turn may follow whose, and when it does. A session starts with CONNECT. From everywhere it
#: goes to CLOSED when the proxy is terminated (files.term) or has a fault, which is not repeated.
TRANSITIONS = {
    CONNECT: {
        COMMAND: "upstream has greeted, for the first time",
        REPLY: "upstream has greeted again: the command that waited is relayed",
        CLOSED: "upstream cannot be reached, is lost, silent or garbled, or refuses",
    },
    COMMAND: {
        COMMAND: "the proxy itself answers the command",
        REPLY: "the command is relayed",
        CONNECT: "the command needs upstream, which was left after a message",
        SPOOL: "DATA, after an accepted recipient",
        CLOSED: "QUIT is answered; the client ends, is silent, or is told 421",
    },
    ANSWER: {
        REPLY: "the answer is relayed",
        CLOSED: "the client ends, is silent, or is told 421",
    },
    REPLY: {
        COMMAND: "the reply is relayed",
        ANSWER: "the reply is 334",
        REPLY: "RSET has ended the last transaction upstream: now the command",
        CLOSED: "upstream is lost, silent or garbled",
    },
    SPOOL: {
        RECEIVE: "the spool is there: 354",
        COMMAND: "the spool cannot be made: 452",
        CLOSED: "the proxy has a fault",
    },
    RECEIVE: {
        FILTER: "the message has ended",
        CLOSED: "the client is gone or silent; upstream is lost, silent or garbled",
    },
    FILTER: {
        DELIVER: "the message passes",
        COMMAND: "the message is refused: by the filter, for its failure (-r), or by the spool",
        CLOSED: "the client is gone; upstream is lost, silent or garbled",
    },
    DELIVER: {
        COMMAND: "the message is answered: upstream's reply, or 452 if it cannot be read again",
        CLOSED: "the client is gone before the end is sent; upstream is lost, silent or garbled",
    },
    CLOSED: {},
}
